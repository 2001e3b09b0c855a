"""Laws of pruning, without a trainer."""

from __future__ import annotations

import copy
import json
from itertools import pairwise

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import nn
from torch.nn.utils import parametrize

import lrnn
from lrnn.cli import main
from lrnn.nn.load import load_model
from lrnn.prune import (
    CubicSchedule,
    Pruner,
    attach_masks,
    bake,
    erk,
    global_magnitude,
    keep_largest,
    prune_once,
    uniform,
)

few = settings(max_examples=25, deadline=None)


def sequence_model(seed: int = 0, **options) -> lrnn.SequenceModel:
    torch.manual_seed(seed)
    config = {"d_in": 9, "d_out": 7, "d_model": 12, "d_state": 16, "blocks": 2, "n_layers": 2} | options
    return lrnn.SequenceModel(lrnn.SequenceModelConfig(**config))


def mixed_model(seed: int = 0) -> nn.ModuleDict:
    torch.manual_seed(seed)
    return nn.ModuleDict(
        {
            "conv": nn.Conv1d(6, 8, 3),
            "norm": nn.LayerNorm([8, 10]),
            "lstm": nn.LSTM(8, 5, 2),
            "out": nn.Linear(5, 4),
        }
    )


def run_mixed(model: nn.ModuleDict, x: torch.Tensor) -> torch.Tensor:  # x: (batch, 6, 12)
    y = model["norm"](model["conv"](x)).permute(2, 0, 1)
    return model["out"](model["lstm"](y)[0])


def shadow(module: nn.Module, name: str = "weight") -> torch.Tensor:
    return module.parametrizations[name].original


def mask_of(module: nn.Module, name: str = "weight") -> torch.Tensor:
    return module.parametrizations[name][0].mask


# Schedule and distributions


@few
@given(st.integers(0, 50), st.integers(0, 100))
def test_schedule_rises_from_zero_to_one(start, length):
    schedule = CubicSchedule(start, start + length)
    values = [schedule.fraction(n) for n in range(start + length + 5)]
    assert values == sorted(values)
    assert all(v == 0 for v in values[:start])
    assert all(v == 1 for v in values[start + length :])


def test_schedule_is_the_cubic_one():
    assert CubicSchedule(10, 20).fraction(15) == 1 - 0.5**3


@pytest.mark.parametrize(("start", "end"), [(-1, 5), (6, 5)])
def test_schedule_refuses_bad_limits(start, end):
    with pytest.raises(ValueError, match=f"start is {start} and end is {end}"):
        CubicSchedule(start, end)


shape = st.lists(st.integers(1, 40), min_size=2, max_size=4).map(tuple)


@few
@given(st.lists(shape, min_size=1, max_size=8), st.floats(0, 0.99))
def test_erk_meets_the_total_and_favours_thin_tensors(shapes, sparsity):
    shapes = {str(i): s for i, s in enumerate(shapes)}
    numel = {name: torch.Size(s).numel() for name, s in shapes.items()}
    result = erk(shapes, sparsity)
    assert all(0 <= v <= 1 for v in result.values())
    zeros = sum(v * numel[name] for name, v in result.items())
    assert (
        sparsity * sum(numel.values()) - len(shapes) - 1e-6 <= zeros <= sparsity * sum(numel.values()) + 1e-6
    )
    raw = {name: sum(s) / numel[name] for name, s in shapes.items()}
    by_raw = sorted(shapes, key=raw.get)
    assert all(result[a] >= result[b] - 1e-9 for a, b in pairwise(by_raw))


def test_erk_by_hand():
    # Kept: 10 + 100 of 1100 elements. raw: 20/100, 110/1000; epsilon = 110 / (20 + 110).
    result = erk({"small": (10, 10), "wide": (10, 100)}, 0.9)
    assert result == pytest.approx({"small": 1 - 110 / 130 * 0.2, "wide": 1 - 110 / 130 * 0.11})
    # A tensor that would need more than all of its elements is dense and the other pays.
    result = erk({"thin": (1, 4), "wide": (100, 100)}, 0.9)
    assert result["thin"] == 0.0
    assert (1 - result["wide"]) * 10000 == pytest.approx(1000 + 1 - 4)


def test_uniform():
    assert uniform({"a": (2, 3), "b": (4, 5)}, 0.7) == {"a": 0.7, "b": 0.7}


def test_global_has_one_threshold_and_counts_pairs_as_two():
    scores = {"a": torch.arange(10.0), "pairs": torch.arange(5.0, 15.0)}
    result = global_magnitude(scores, {"a": 10, "pairs": 20}, 0.5)
    # 15 of 30 elements may stay: pairs 14 to 10, single 9, pair 9, single 8; pair 8 would be one too many.
    kept = {"a": round(10 * (1 - result["a"])), "pairs": round(10 * (1 - result["pairs"]))}
    assert kept == {"a": 2, "pairs": 6}


# Masks


@few
@given(st.lists(st.integers(0, 3), min_size=1, max_size=30), st.data())
def test_keep_largest_breaks_ties_by_lower_index(values, data):
    kept = data.draw(st.integers(1, len(values)))
    mask = keep_largest(torch.tensor(values, dtype=torch.float32), kept)
    best = sorted(range(len(values)), key=lambda i: (-values[i], i))[:kept]
    assert mask.nonzero().flatten().tolist() == sorted(best)


@few
@given(st.floats(0, 0.99), st.sampled_from(["erk", "uniform", "global"]), st.integers(0, 9))
def test_budgets_are_exact(sparsity, distribution, seed):
    model = sequence_model(seed)
    pruner = Pruner(model, sparsity, distribution).attach()
    pruner.step(0)
    if distribution != "global":
        share_out = {"erk": erk, "uniform": uniform}[distribution]
        targets = share_out({w.name: tuple(w.dense.shape) for w in pruner.weights}, sparsity)
        for weight in pruner.weights:
            entries = weight.dense.numel() // (2 if weight.name.endswith(".B") else 1)
            kept = max(1, round(entries * (1 - targets[weight.name])))
            assert pruner.sparsities()[weight.name] == pytest.approx(1 - kept / entries, abs=1e-12)
    numel = sum(w.dense.numel() for w in pruner.weights)
    assert abs(pruner.total_sparsity() - sparsity) * numel <= 2 * len(pruner.weights)


def test_which_weights_are_pruned():
    names = [w.name for w in Pruner(sequence_model(glu="full")).attach().weights]
    per_block = ("out1.weight", "out2.weight", "ssm.B", "ssm.C")
    assert names == sorted(
        ["encoder.weight", "decoder.weight", *(f"blocks.{i}.{n}" for i in range(2) for n in per_block)]
    )
    names = [w.name for w in Pruner(mixed_model()).attach().weights]
    lstm = [f"lstm.weight_{kind}_l{layer}" for kind in ("hh", "ih") for layer in range(2)]
    assert names == ["conv.weight", *lstm, "out.weight"]


def test_exclude_matches_parameters_and_modules():
    names = [w.name for w in Pruner(mixed_model(), exclude=("lstm", "out.w*")).attach().weights]
    assert names == ["conv.weight"]


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
@few
@given(seed=st.integers(0, 99), sparsity=st.floats(0.1, 0.95), steps=st.integers(1, 4))
def test_masked_weights_are_zero_after_any_step(optimizer, seed, sparsity, steps):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(7, 6), nn.ReLU(), nn.Linear(6, 5))
    make = {
        "sgd": lambda p: torch.optim.SGD(p, 0.3, momentum=0.9, weight_decay=0.1),
        "adam": lambda p: torch.optim.Adam(p, 0.1),
        "adamw": lambda p: torch.optim.AdamW(p, 0.1, weight_decay=0.1),
    }[optimizer](model.parameters())
    model(torch.randn(8, 7)).square().mean().backward()
    make.step()  # momentum from before the masks
    pruner = Pruner(model, sparsity).attach()
    pruner.step(0)
    for _ in range(steps):
        make.zero_grad()
        model(torch.randn(8, 7)).square().mean().backward()
        make.step()
        for layer in (model[0], model[2]):
            kept = mask_of(layer)
            assert torch.equal(layer.weight != 0, kept)
            assert torch.equal(layer.weight[kept], shadow(layer)[kept])
            assert (shadow(layer)[~kept] != 0).all()


def test_gradient_reaches_every_dense_weight():
    layer = nn.Linear(6, 5)
    Pruner(layer, 0.8).attach().step(0)
    x = torch.randn(3, 6)
    layer(x).backward(torch.ones(3, 5))
    assert torch.equal(shadow(layer).grad, torch.ones(5, 3) @ x)


def test_an_overflowing_shadow_stays_behind_its_mask():
    layer = nn.Linear(6, 5)
    Pruner(layer, 0.8).attach().step(0)
    before = layer.weight.detach().clone()
    with torch.no_grad():
        shadow(layer)[~mask_of(layer)] = float("inf")
    assert torch.equal(layer.weight, before)


def test_a_pruned_weight_comes_back():
    layer = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 0.1]]))
    pruner = Pruner(layer, 0.5, schedule=CubicSchedule(0, 100)).attach()
    pruner.step(99)
    assert layer.weight.tolist() == [[1.0, 0.0]]
    optimizer = torch.optim.SGD(layer.parameters(), 0.5)
    x, target = torch.tensor([[0.0, 1.0]]), torch.tensor([[3.0]])  # only the pruned weight can help
    for _ in range(2):
        optimizer.zero_grad()
        (layer(x) - target).square().sum().backward()
        optimizer.step()
    assert layer.weight.tolist() == [[1.0, 0.0]]
    pruner.step(100)
    assert layer.weight[0, 0] == 0
    assert layer.weight[0, 1] > 1


def test_masks_follow_the_schedule_and_freeze():
    layer = nn.Linear(20, 20)
    pruner = Pruner(layer, 0.9, schedule=CubicSchedule(4, 23), every=5).attach()
    chosen, sparsity = [], []
    for n in range(40):
        if pruner.step(n):
            chosen.append(n)
        assert not pruner.step(n)  # a second micro-batch of the same iteration
        sparsity.append(pruner.total_sparsity())
        with torch.no_grad():
            shadow(layer).copy_(torch.randn(20, 20))
    assert chosen == [4, 9, 14, 19, 23]
    assert sparsity == sorted(sparsity)
    assert sparsity[19] == pytest.approx(0.9 * CubicSchedule(4, 23).fraction(19), abs=1 / 400)
    assert sparsity[23:] == [0.9] * 17
    frozen = mask_of(layer).clone()
    pruner.step(1000)
    assert torch.equal(mask_of(layer), frozen)


def test_the_end_is_not_missed_when_its_iteration_is():
    layer = nn.Linear(20, 20)
    pruner = Pruner(layer, 0.9, schedule=CubicSchedule(0, 10), every=4).attach()
    pruner.step(7)
    assert pruner.step(12)
    assert pruner.total_sparsity() == 0.9
    assert pruner.frozen


@few
@given(st.integers(0, 99), st.sampled_from(["zoh", "bilinear"]))
def test_b_bar_is_as_sparse_as_its_budget(seed, discretization):
    torch.manual_seed(seed)
    layer = lrnn.S5(10, 16, options=lrnn.S5Options(discretization=discretization))
    Pruner(layer, 0.85, "uniform").attach().step(0)
    gain = layer.discretize()[1]
    B_bar = gain[:, None] * torch.view_as_complex(layer.B)
    kept = round(B_bar.numel() * 0.15)
    assert (B_bar != 0).sum() == kept
    dense = (gain[:, None] * torch.view_as_complex(shadow(layer, "B"))).abs()
    assert dense[B_bar != 0].min() >= dense[B_bar == 0].max()


# Life of a masked module


@pytest.mark.parametrize("make", [sequence_model, mixed_model])
def test_finalize_leaves_a_plain_module_with_the_same_function(make):
    model = make().eval()
    plain = {name: p.shape for name, p in model.named_parameters()}
    identity = {name: id(p) for name, p in model.named_parameters()}
    x = torch.randn(3, 6, 12) if make is mixed_model else torch.randn(2, 11, 9)
    run = run_mixed if make is mixed_model else lambda m, x: m(x)[0]
    pruner = Pruner(model, 0.8).attach()
    pruner.step(0)
    masked, sparsities = run(model, x), pruner.sparsities()
    pruner.finalize()
    assert torch.equal(run(model, x), masked)
    assert pruner.sparsities() == sparsities
    assert {name: p.shape for name, p in model.named_parameters()} == plain
    assert {name: id(p) for name, p in model.named_parameters()} == identity
    assert not any(parametrize.is_parametrized(m) for m in model.modules())
    assert not pruner.step(1)


def test_lstm_computes_with_its_masked_weights():
    lstm, x = nn.LSTM(4, 3), torch.randn(5, 2, 4)
    lstm(x)  # fills the list of weights that nn.LSTM keeps
    Pruner(lstm, 0.9).attach().step(0)
    reference = nn.LSTM(4, 3)
    reference.load_state_dict({name: getattr(lstm, name).detach() for name in reference.state_dict()})
    assert torch.equal(lstm(x)[0], reference(x)[0])
    lstm(x)[0].sum().backward()
    assert (shadow(lstm, "weight_ih_l0").grad != 0).all()


@pytest.mark.parametrize("make", [sequence_model, mixed_model])
def test_a_deep_copy_lives_its_own_life(make):
    model = make().eval()
    x = torch.randn(3, 6, 12) if make is mixed_model else torch.randn(2, 11, 9)
    run = run_mixed if make is mixed_model else lambda m, x: m(x)[0]
    Pruner(model, 0.8).attach().step(0)
    before = run(model, x)  # leaves a graph behind
    twin = copy.deepcopy(model)
    assert torch.equal(run(twin, x), before)
    bake(twin)
    assert torch.equal(run(twin, x), before)
    assert torch.equal(run(model, x), before)
    assert [w.name for w in Pruner(model).attach().weights] == [w.name for w in Pruner(twin).attach().weights]
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert torch.equal(run(model, x), before)


def test_a_copy_can_be_pruned_further_than_its_original():
    model = nn.Bilinear(3, 4, 5)
    model.extra = nn.Parameter(torch.randn(6, 6))
    Pruner(model, 0.5, exclude=["extra"]).attach()
    twin = copy.deepcopy(model)
    Pruner(twin, 0.5, "uniform").attach().step(0)
    assert (twin.extra == 0).sum() == 18
    assert (model.extra != 0).all()


def test_attach_masks_makes_a_plain_model_load_a_masked_state():
    model = sequence_model().eval()
    Pruner(model, 0.8, exclude=["encoder"]).attach().step(0)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    other = sequence_model(seed=1).eval()
    attach_masks(other, state)
    other.load_state_dict(state)
    x = torch.randn(2, 11, 9)
    assert torch.equal(other(x)[0], model(x)[0])
    assert not parametrize.is_parametrized(other.encoder)


def test_attach_masks_names_what_does_not_fit():
    key = "parametrizations.weight.0.mask"
    for state in (
        {f"missing.{key}": torch.ones(2, 2, dtype=torch.bool)},
        {key: torch.ones(5, 2, dtype=torch.bool)},
    ):
        with pytest.raises(ValueError, match=f"{key} of shape"):
            attach_masks(nn.Linear(2, 2), state)


def test_bake_keeps_other_parametrizations():
    class Double(nn.Module):
        def forward(self, weight):
            return 2 * weight

    layer = nn.Linear(6, 5)
    Pruner(layer, 0.5).attach().step(0)
    parametrize.register_parametrization(layer, "weight", Double())
    before = layer.weight
    bake(layer)
    assert torch.equal(layer.weight, before)
    assert [type(p) for p in layer.parametrizations.weight] == [Double]


def test_a_tied_weight_counts_once_and_has_one_mask():
    embedding, decoder = nn.Embedding(11, 6), nn.Linear(6, 11, bias=False)
    decoder.weight = embedding.weight
    model = nn.Sequential(embedding, decoder)
    pruner = Pruner(model, 0.7).attach()
    pruner.step(0)
    assert [w.name for w in pruner.weights] == ["0.weight"]
    assert torch.equal(embedding.weight, decoder.weight)
    assert (decoder.weight == 0).sum() == round(66 * 0.7)
    pruner.finalize()
    assert embedding.weight is decoder.weight
    with pytest.raises(ValueError, match="Sequential has no parameter to prune"):
        Pruner(model, exclude=["1.weight"]).attach()


def test_bf16_autocast():
    model = sequence_model()
    Pruner(model, 0.8).attach().step(0)
    with torch.autocast("cpu", torch.bfloat16):
        model(torch.randn(2, 11, 9))[0].float().square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.dtype == torch.float32


@pytest.mark.slow
def test_torch_compile_sees_new_masks_without_compiling_again():
    layer = nn.Linear(6, 5)
    pruner = Pruner(layer, 0.8, schedule=CubicSchedule(0, 10)).attach()
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    compiled, x = torch.compile(layer, backend=backend, fullgraph=True), torch.randn(3, 6)
    for n in (0, 5, 10):
        pruner.step(n)
        assert torch.equal(compiled(x), layer(x))
    assert len(graphs) == 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_masks_on_cuda_are_those_of_the_cpu():
    x = torch.randn(3, 6, 12)
    models = [mixed_model(), mixed_model().cuda()]
    for model in models:
        Pruner(model, 0.8).attach().step(0)
        run_mixed(model, x.to(model["out"].bias.device)).square().sum().backward()
    for (name, a), b in zip(models[0].state_dict().items(), models[1].state_dict().values(), strict=True):
        assert torch.equal(a, b.cpu()), name
    twin = copy.deepcopy(models[1])
    bake(twin)
    torch.testing.assert_close(run_mixed(twin, x.cuda()).cpu(), run_mixed(models[0], x), atol=1e-4, rtol=1e-3)


def test_progress_survives_a_state_dict():
    model, other = nn.Linear(20, 20), nn.Linear(20, 20)
    pruner = Pruner(model, 0.9, schedule=CubicSchedule(2, 30), every=5).attach()
    for n in range(13):
        pruner.step(n)
    state = pruner.state_dict()
    assert json.loads(json.dumps(state)) == state  # plain values: weights_only loading accepts them
    resumed = Pruner(other, 0.9).attach()
    resumed.load_state_dict(state)
    other.load_state_dict(model.state_dict())
    for n in range(13, 40):
        assert pruner.step(n) == resumed.step(n)
        assert torch.equal(model.weight, other.weight)
    assert resumed.frozen
    with pytest.raises(ValueError, match=r"sparsity is 0\.5, but the checkpoint was pruned with 0\.9"):
        Pruner(other, 0.5).load_state_dict(state)


# The paper's rule


def paper_step(
    model: nn.Module, pruner: Pruner, n: int, optimizer: torch.optim.Optimizer, x: torch.Tensor
) -> None:
    pruner.step(n)
    optimizer.zero_grad()
    model(x)[0].square().mean().backward()
    optimizer.step()


def test_paper_mode_loses_dense_weights_and_prunes_parts_of_b():
    models = [sequence_model().train(), sequence_model().train()]
    x = torch.randn(4, 11, 9)
    for model, mode in zip(models, ("paper", "ste"), strict=True):
        pruner = Pruner(model, 0.8, schedule=CubicSchedule(0, 3), mode=mode).attach()
        optimizer = torch.optim.SGD(model.parameters(), 0.01)
        for n in range(4):
            paper_step(model, pruner, n, optimizer, x)
        pruner.finalize()
    paper, ste = (model.blocks[0].ssm.B.detach() for model in models)
    one_part = (paper == 0).any(-1) & (paper != 0).any(-1)
    assert one_part.any()
    assert not ((ste == 0).any(-1) & (ste != 0).any(-1)).any()
    assert not parametrize.is_parametrized(models[0].blocks[0].ssm)


def test_paper_mode_runs_one_iteration_ahead_and_leaves_one_update_in_the_zeros():
    layer = nn.Linear(10, 10)
    pruner = Pruner(layer, 0.9, schedule=CubicSchedule(2, 6), mode="paper").attach()
    assert [pruner.step(n) for n in range(2)] == [False, False]
    assert pruner.step(2)
    assert pruner.total_sparsity() == round(90 * (1 - 0.75**3)) / 100
    pruner.step(6)
    pruned = layer.weight == 0
    assert pruned.sum() == 90
    with torch.no_grad():
        layer.weight += 1e-6
    assert (layer.weight != 0).all()
    assert pruner.step(7)  # never frozen
    assert torch.equal(layer.weight == 0, pruned)


def test_paper_mode_counts_step_sizes():
    model = sequence_model()
    pruner = Pruner(model, 0.5, "uniform", mode="paper").attach()
    pruner.step(0)
    assert pruner.sparsities()["blocks.0.ssm.log_step"] == 0.5


# Errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sparsity": 1.0}, "sparsity is 1.0"),
        ({"sparsity": float("nan")}, "sparsity is nan"),
        ({"distribution": "er"}, "distribution is 'er'"),
        ({"mode": "hard"}, "mode is 'hard'"),
        ({"every": 0}, "every is 0"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        Pruner(nn.Linear(2, 2), **options)


def test_what_cannot_be_pruned_is_named():
    with pytest.raises(TypeError, match="exclude is the string 'weight'"):
        Pruner(nn.Linear(2, 2), exclude="weight")
    with pytest.raises(ValueError, match="'wieght', which matches no parameter of Linear"):
        Pruner(nn.Linear(2, 2), exclude=["wieght"]).attach()
    with pytest.raises(ValueError, match="BatchNorm1d has no parameter to prune"):
        Pruner(nn.BatchNorm1d(3)).attach()
    with pytest.raises(ValueError, match="weight has no shape yet"):
        Pruner(nn.LazyLinear(3)).attach()
    with pytest.raises(ValueError, match="weight is parametrized by _WeightNorm"):
        Pruner(nn.utils.parametrizations.weight_norm(nn.Linear(2, 2))).attach()
    with pytest.raises(RuntimeError, match="call attach"):
        Pruner(nn.Linear(2, 2)).step(0)


def test_a_tied_weight_of_an_s5_is_refused():
    model = nn.Sequential(lrnn.S5(4, 8), lrnn.S5(4, 8))
    model[1].B = model[0].B
    with pytest.raises(ValueError, match=r"0\.B is shared"):
        Pruner(model).attach()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_non_finite_weights_are_reported(bad):
    layer = nn.Linear(3, 3)
    pruner = Pruner(layer).attach()
    with torch.no_grad():
        shadow(layer)[1, 1] = bad
    with pytest.raises(ValueError, match="weight holds NaN or infinity"):
        pruner.step(0)


# One shot


def test_prune_once_prunes_and_bakes():
    model = sequence_model()
    sparsities = prune_once(model, 0.75, exclude=["decoder"])
    assert "decoder.weight" not in sparsities
    assert sparsities["encoder.weight"] == (model.encoder.weight == 0).double().mean().item()
    assert "blocks.0.ssm.B" in dict(model.named_parameters())


def test_command_prunes_a_model_file(tmp_path, capsys):
    source, out = tmp_path / "dense.safetensors", tmp_path / "sparse.safetensors"
    card = {"seed": 3, "sparsity": 0.0, "metrics": {"val_si_snr": 12.0}}
    sequence_model().save(source, {"frontend": {"kind": "none"}, "card": card})
    assert main(["prune", str(source), "-o", str(out), "--sparsity", "0.8", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    model, meta = load_model(out)
    assert meta["frontend"] == {"kind": "none"}
    assert "metrics" not in meta["card"]  # they were another model's
    assert (meta["card"]["seed"], meta["card"]["sparsity"]) == (3, 0.8)
    assert report["sparsity"] == pytest.approx(0.8, abs=0.02)
    for name, parameter in model.named_parameters():
        if name in report["parameters"]:
            assert report["parameters"][name] == pytest.approx((parameter == 0).double().mean().item())
    assert main(["prune", str(source), "-o", str(tmp_path / "x.lrnn")]) == 2
    assert "expected a name that ends in .safetensors" in capsys.readouterr().err
