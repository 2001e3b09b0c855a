"""Schedules by name, sparsity of single tensors, and what of them a checkpoint holds."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import ClassVar

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import nn

import lrnn
from lrnn.cli import main
from lrnn.prune import (
    ConstantSchedule,
    CubicSchedule,
    LinearSchedule,
    OneShotSchedule,
    Pruner,
    make_schedule,
    prune_once,
)

few = settings(max_examples=25, deadline=None)
NAMES = ("cubic", "linear", "constant", "oneshot")


def network(seed: int = 0) -> nn.ModuleDict:
    torch.manual_seed(seed)
    return nn.ModuleDict(
        {"first": nn.Linear(20, 30), "conv": nn.Conv1d(6, 8, 3), "last": nn.Linear(30, 10, bias=False)}
    )


def sequence_model() -> lrnn.SequenceModel:
    torch.manual_seed(0)
    config = lrnn.SequenceModelConfig(d_in=9, d_out=7, d_model=12, d_state=16, blocks=2, n_layers=2)
    return lrnn.SequenceModel(config)


# Schedules


@few
@given(st.sampled_from(NAMES), st.integers(0, 50), st.integers(0, 100))
def test_every_schedule_rises_to_one_at_its_end(name, start, length):
    schedule = make_schedule(name, start, start + length)
    values = [schedule.fraction(n) for n in range(start + length + 5)]
    assert values == sorted(values)
    assert all(v == 0 for v in values[: schedule.start])
    assert all(v == 1 for v in values[schedule.end :])
    assert schedule.start == start


def test_schedules_by_hand():
    assert LinearSchedule(10, 20).fraction(15) == 0.5
    assert CubicSchedule(10, 20).fraction(15) == 0.875
    assert [ConstantSchedule(10, 20).fraction(n) for n in (9, 10, 15)] == [0, 1, 1]
    assert [OneShotSchedule(10).fraction(n) for n in (9, 10)] == [0, 1]


@pytest.mark.parametrize("name", NAMES)
def test_masks_freeze_at_the_end_of_any_schedule(name):
    model = nn.Linear(20, 20)
    pruner = Pruner(model, 0.9, schedule=make_schedule(name, 3, 6)).attach()
    chosen = []
    for n in range(10):
        if pruner.step(n):
            chosen.append(n)
        with torch.no_grad():
            model.parametrizations.weight.original.copy_(torch.randn(20, 20))
    assert chosen == ([3] if name == "oneshot" else [3, 4, 5, 6])
    assert pruner.frozen
    assert pruner.total_sparsity() == 0.9


def test_an_unknown_schedule_is_named():
    with pytest.raises(ValueError, match="schedule is 'cosine', expected one of 'cubic', 'linear'"):
        make_schedule("cosine", 0, 1)
    with pytest.raises(ValueError, match="start is -1"):
        OneShotSchedule(-1)


@pytest.mark.parametrize("name", NAMES)
def test_a_schedule_comes_back_from_a_checkpoint(name):
    first = Pruner(network(), 0.9, schedule=make_schedule(name, 3, 9)).attach()
    first.step(5)
    second = Pruner(network(), 0.9, schedule=make_schedule(name, 0, 0)).attach()
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert second.schedule == first.schedule
    assert second.state_dict() == first.state_dict()


def test_another_kind_of_schedule_is_refused():
    state = Pruner(network(), 0.9, schedule=CubicSchedule(3, 9)).attach().state_dict()
    with pytest.raises(ValueError, match="schedule is 'linear', but the checkpoint was pruned with 'cubic'"):
        Pruner(network(), 0.9, schedule=LinearSchedule(3, 9)).attach().load_state_dict(state)


def test_a_schedule_of_ones_own():
    @dataclass(frozen=True)
    class Half:
        start: int
        end: int
        name: ClassVar[str] = "half"

        def fraction(self, iteration: int) -> float:
            return 1.0 if iteration >= self.end else 0.5

    model = nn.Linear(20, 20)
    pruner = Pruner(model, 0.8, schedule=Half(0, 4)).attach()
    assert [pruner.step(n) and pruner.total_sparsity() for n in (0, 4)] == [0.4, 0.8]
    again = Pruner(nn.Linear(20, 20), 0.8, schedule=Half(0, 4)).attach()
    again.load_state_dict(pruner.state_dict())
    assert again.frozen


def test_a_checkpoint_from_before_schedules_had_names():
    state = Pruner(network(), 0.9, schedule=CubicSchedule(3, 9)).attach().state_dict()
    for name in ("schedule", "overrides", "exclude", "score"):
        del state[name]
    pruner = Pruner(network(), 0.9).attach()
    pruner.load_state_dict(state)
    assert pruner.schedule == CubicSchedule(3, 9)


# Scores of B


def test_by_magnitude_no_state_is_pruned_for_its_small_step():
    """|B| ranks alike what a state's gain, about its time step, makes differ by a factor of 100."""
    found = {}
    for by in ("discretized", "magnitude"):
        torch.manual_seed(0)
        layer = lrnn.S5(24, 64, blocks=4)
        pruner = Pruner(layer, 0.9, "uniform", score=by).attach()
        pruner.step(0)
        mask = layer.parametrizations.B[0].mask.expand(-1, -1, 2)
        dense = layer.parametrizations.B.original.detach()
        gain = layer.discretize()[1].detach() if by == "discretized" else torch.ones(32)
        size = (gain[:, None] * torch.view_as_complex(dense)).abs()
        assert size[mask[..., 0]].min() >= size[~mask[..., 0]].max()
        assert pruner.sparsities()["B"] == pytest.approx(0.9, abs=1 / 768)
        slow = layer.log_step < layer.log_step.median()
        found[by] = mask[slow].float().mean() / mask[~slow].float().mean()
    assert found["discretized"] < 0.1
    assert 0.5 < found["magnitude"] < 2


def test_another_score_than_the_checkpoint_is_refused():
    state = Pruner(sequence_model(), 0.8, score="magnitude").attach().state_dict()
    with pytest.raises(ValueError, match="score is 'discretized', but the checkpoint was pruned with 'magni"):
        Pruner(sequence_model(), 0.8).attach().load_state_dict(state)
    with pytest.raises(ValueError, match="score is 'taylor', expected one of"):
        Pruner(sequence_model(), 0.8, score="taylor")


# Sparsity of single tensors


@few
@given(
    st.sampled_from(["erk", "uniform", "global"]),
    st.floats(0.3, 0.95),
    st.floats(0, 0.99),
    st.integers(0, 9),
)
def test_overrides_hold_and_the_total_too(distribution, sparsity, own, seed):
    model = network(seed)
    numel = model.first.weight.numel()
    others = sum(p.numel() for p in model.parameters() if p.ndim > 1) - numel
    pruner = Pruner(model, sparsity, distribution, overrides={"first": own})
    if not 0 <= (sparsity * (numel + others) - own * numel) / others < 1:
        with pytest.raises(ValueError, match="out of reach"):
            pruner.attach()
        return
    pruner.attach().step(0)
    assert abs((model.first.weight == 0).sum().item() - own * numel) <= 1
    assert abs(pruner.total_sparsity() - sparsity) * (numel + others) <= len(pruner.weights)


def test_overrides_grow_with_the_schedule():
    model = network()
    pruner = Pruner(model, 0.8, schedule=LinearSchedule(0, 4), overrides={"last.weight": 0.6, "conv": 0.4})
    pruner.attach().step(2)
    assert pruner.sparsities()["last.weight"] == pytest.approx(0.3, abs=1 / 300)
    assert pruner.sparsities()["conv.weight"] == pytest.approx(0.2, abs=1 / 144)
    assert pruner.total_sparsity() == pytest.approx(0.4, abs=2 / 1044)


def test_the_last_pattern_counts():
    model = sequence_model()
    sparsities = prune_once(model, 0.7, overrides={"blocks": 0.9, "*.out2": 0.5, "blocks.1.out2.weight": 0.0})
    assert sparsities["blocks.0.out2.weight"] == 0.5
    assert sparsities["blocks.1.out2.weight"] == 0.0
    assert sparsities["blocks.1.ssm.B"] == pytest.approx(0.9, abs=1 / 96)


def test_a_tied_weight_answers_to_each_of_its_names():
    model = nn.ModuleDict(
        {"embed": nn.Embedding(11, 6), "mid": nn.Linear(6, 6), "out": nn.Linear(6, 11, bias=False)}
    )
    model.out.weight = model.embed.weight
    assert prune_once(model, 0.5, overrides={"out": 0.6})["embed.weight"] == pytest.approx(0.6, abs=1 / 66)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"frist": 0.5}, "overrides has the pattern 'frist', which matches no weight"),
        ({"first.bias": 0.5}, "overrides has the pattern 'first.bias', which matches no weight"),
        ({"first": 1.0}, "overrides has 1.0 for 'first'"),
        ({"*": 0.9}, "overrides fix the sparsity of every tensor"),
        ({"first": 0.0}, r"sparsity of 0\.9 in all out of reach: the other tensors would need 2\.1"),
    ],
)
def test_bad_overrides_are_named(overrides, message):
    with pytest.raises(ValueError, match=message):
        Pruner(network(), 0.9, overrides=overrides).attach()


def test_an_override_of_what_is_excluded_is_refused():
    with pytest.raises(ValueError, match="'first', which matches no weight that is pruned"):
        Pruner(network(), 0.5, exclude=["first"], overrides={"first": 0.2}).attach()


@pytest.mark.parametrize(
    "options", [{"overrides": {"first": 0.7}}, {"overrides": {"first": 0.8}, "exclude": ["conv"]}]
)
def test_other_overrides_than_the_checkpoint_are_refused(options):
    state = Pruner(network(), 0.8, overrides={"first": 0.8}).attach().state_dict()
    with pytest.raises(ValueError, match="but the checkpoint was pruned with"):
        Pruner(network(), 0.8, **options).attach().load_state_dict(state)


def test_command_takes_overrides_and_reports_dead_units(tmp_path, capsys):
    source, out = tmp_path / "dense.safetensors", tmp_path / "sparse.safetensors"
    sequence_model().save(source, {"card": {}})
    options = ["--sparsity", "0.8", "--override", "*.out2=0.5", "--override", "decoder=0", "--json"]
    assert main(["prune", str(source), "-o", str(out), *options]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["sparsity"] == pytest.approx(0.8, abs=0.02)
    assert report["parameters"]["decoder.weight"] == 0
    assert report["parameters"]["blocks.0.out2.weight"] == 0.5
    found = lrnn.prune.dead_units(lrnn.SequenceModel.load(out))
    assert report["dead"] == {name: len(units) for name, units in found.items()}
    assert any(report["dead"].values())
    assert main(["prune", str(source), "-o", str(out), *options[:-1]]) == 0
    assert "states without input" in capsys.readouterr().out
    assert main(["prune", str(source), "-o", str(out), "--override", "decoder"]) == 2
    assert "--override is decoder, expected GLOB=S" in capsys.readouterr().err
