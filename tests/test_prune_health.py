"""Dead units: by hand for each kind of weight, and as a law of what a module computes."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import nn

import lrnn
from lrnn.prune import DeadUnits, Pruner, attach_masks, bake, dead_units, prune_once, sweep


def cut(parameter: torch.Tensor, *indices) -> None:
    with torch.no_grad():
        for index in indices:
            parameter[index] = 0.0


def test_linear():
    layer = nn.Linear(5, 4)
    assert dead_units(layer) == {"weight": DeadUnits((), (), 4, 5)}
    cut(layer.weight, 1, (slice(None), 0), (slice(None), 3))
    (units,) = dead_units(layer).values()
    assert units == DeadUnits((1,), (0, 3), 4, 5)
    assert len(units) == 3
    assert str(units) == "1 of 4 outputs without input, 2 of 5 inputs unread"


def test_states_of_an_s5():
    layer = lrnn.S5(6, 8)
    cut(layer.B, 2)
    cut(layer.B, (1, slice(None), 0))  # only its real part
    cut(layer.C, (slice(None), 3), (4,))
    found = dead_units(layer)
    assert found["B"] == DeadUnits((2,), (), 4, 6, "outputs")
    assert found["C"] == DeadUnits((4,), (3,), 6, 4, "inputs")
    assert str(found["B"]) == "1 of 4 states without input"
    assert str(found["C"]) == "1 of 6 outputs without input, 1 of 4 states unread"


def test_gates_of_an_lstm():
    lstm = nn.LSTM(3, 2)
    cut(lstm.weight_hh_l0, 5, (slice(None), 1))
    assert dead_units(lstm)["weight_hh_l0"] == DeadUnits((5,), (1,), 8, 2)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("kind", [nn.Conv1d, nn.ConvTranspose1d, nn.Conv2d])
def test_a_convolution_does_not_see_its_dead_inputs(kind, groups):
    torch.manual_seed(0)
    conv = kind(4, 6, 3, groups=groups)
    prune_once(conv, 0.75)
    (units,) = dead_units(conv).values()
    x = torch.randn(2, 4, *[7] * (conv.weight.ndim - 2), requires_grad=True)
    conv(x).square().sum().backward()
    reached = x.grad.flatten(2).abs().sum((0, 2)) > 0
    assert units.inputs == tuple((~reached).nonzero().flatten().tolist())
    y = conv(x.detach()) - conv(torch.zeros_like(x))
    assert units.outputs == tuple((y.flatten(2).abs().sum((0, 2)) == 0).nonzero().flatten().tolist())
    assert (units.n_outputs, units.n_inputs) == (6, 4)


def test_words_of_an_embedding_but_for_its_padding():
    embedding = nn.Embedding(5, 3, padding_idx=0)
    cut(embedding.weight, 2, (slice(None), 1))
    assert dead_units(embedding) == {"weight": DeadUnits((1,), (2,), 3, 5)}


@settings(max_examples=15, deadline=None)
@given(
    st.integers(0, 99),
    st.floats(0.5, 0.97),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["none", "parts", "pair"]),
)
def test_sweeping_takes_away_what_changes_nothing(seed, sparsity, conj_sym, bidirectional, relu):
    torch.manual_seed(seed)
    options = lrnn.S5Options(conj_sym=conj_sym, bidirectional=bidirectional)
    model = nn.Sequential(nn.Linear(6, 6), lrnn.S5(6, 16, blocks=2, relu=relu, options=options))
    prune_once(model, sparsity)
    ssm, x = model[1], torch.randn(2, 9, 6)
    before, zeros = ssm(x)[0], {name: (p == 0).sum().item() for name, p in model.named_parameters()}
    swept = sweep(model)
    assert torch.equal(ssm(x)[0], before)
    for name, parameter in model.named_parameters():
        assert (parameter == 0).sum().item() - zeros[name] == swept.get(name, 0)
    assert set(swept) <= {"1.B", "1.C"}
    found = dead_units(ssm)
    unread = {n % ssm.n_states for n in found["C"].inputs}
    if bidirectional:  # the two directions share a state's input
        unread = {n for n in unread if {n, n + ssm.n_states} <= set(found["C"].inputs)}
    assert set(found["B"].outputs) == unread
    assert sweep(model) == {}


def test_sweeping_finds_what_there_is_to_find():
    torch.manual_seed(0)
    layer = lrnn.S5(6, 16, blocks=2)
    cut(layer.B, 3)
    cut(layer.C, (slice(None), 5))
    assert sweep(layer) == {"B": 12, "C": 12}
    Pruner(layer, 0.5).attach()
    with pytest.raises(ValueError, match="bake its masks"):
        sweep(layer)


def test_masked_and_baked_agree_and_zeros_that_are_kept_are_alive():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 4))
    pruner = Pruner(model, 0.9).attach()
    pruner.step(0)
    masked = dead_units(model)
    assert any(len(units) for units in masked.values())
    assert pruner.dead_units() == masked
    loaded = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 4))
    attach_masks(loaded, model.state_dict())
    loaded.load_state_dict(model.state_dict())
    assert dead_units(loaded) == masked
    bake(model)
    assert dead_units(model) == masked

    adapter = nn.Linear(4, 4)
    nn.init.zeros_(adapter.weight)
    Pruner(adapter, 0.5).attach()
    assert len(dead_units(adapter)["weight"]) == 0
