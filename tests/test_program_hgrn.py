"""A compiled HGRN computes what the model computes, on every executor and for any cutting of time."""

from __future__ import annotations

import copy
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import lrnn
from lrnn import HGRNBlockConfig, HGRNOptions, HGRNStack
from lrnn.profile.count import count
from lrnn.program import Program, nodes
from lrnn.program.dead import drop_dead
from lrnn.program.numpy_executor import NumpyExecutor
from lrnn.program.torch_executor import TorchExecutor
from lrnn.prune import prune_once

AUTHORS = HGRNOptions("complex", norm="layer", bias=True, norm_eps=1e-5)
SMALL = {"d_model": 6, "d_state": 5, "d_hidden": 10}


def make_stack(n_layers: int = 2, seed: int = 0, **changes) -> HGRNStack:
    """A stack with no parameter where initialisation left it, so that none can be forgotten."""
    torch.manual_seed(seed)
    stack = HGRNStack(HGRNBlockConfig(**{**SMALL, **changes}), n_layers).eval()
    with torch.no_grad():
        for p in stack.parameters():
            p += 0.3 * torch.randn_like(p)
    return stack


def run_numpy(program: Program, x: np.ndarray) -> np.ndarray:
    executor = NumpyExecutor(program)
    state, out = executor.zero_state(), []
    for frame in x:
        y, state = executor.step(frame, state)
        out.append(y)
    return np.stack(out)


def check(stack: HGRNStack, frames: int = 9) -> Program:
    x = torch.randn(2, frames, stack.config.d_model)
    with torch.no_grad():
        expected = stack(x)[0]
    program = lrnn.compile(stack)
    torch.testing.assert_close(TorchExecutor(program)(x)[0], expected, atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(run_numpy(program, x[1].numpy()), expected[1], atol=1e-5, rtol=1e-5)
    return program


@pytest.mark.parametrize("relu", ["none", "gates", "all"])
@pytest.mark.parametrize(
    "options",
    [HGRNOptions(), HGRNOptions("complex"), AUTHORS, HGRNOptions(norm="layer"), HGRNOptions(bias=True)],
    ids=["real", "complex", "authors", "layer norm", "biases"],
)
def test_equals_the_model(options, relu):
    check(make_stack(hgrn=options, relu=relu))


@pytest.mark.parametrize("kind", ["real", "complex"])
def test_smallest_sizes(kind):
    check(make_stack(1, d_model=1, d_state=1, d_hidden=1, hgrn=HGRNOptions(kind)))


def test_equals_the_model_over_thousands_of_frames():
    """Bounds near one remember for long."""
    stack = make_stack(3)
    with torch.no_grad():
        stack.lower_bounds[1:] += 6
    check(stack, 3000)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_model_of_another_type_compiles_to_what_it_computes_in_float32(dtype):
    """Its phases too, which no model turns by in half precision."""
    stack = make_stack(hgrn=AUTHORS).to(dtype)
    program = lrnn.compile(stack)
    x = torch.randn(50, SMALL["d_model"])
    with torch.no_grad():
        expected = copy.deepcopy(stack).float()(x[None])[0][0]
    np.testing.assert_allclose(run_numpy(program, x.numpy()), expected, atol=1e-5, rtol=1e-5)


def test_bounds_are_constants_and_the_first_layer_has_none():
    stack = make_stack(3)
    by_name = {node.name: node for node in lrnn.compile(stack).nodes}
    assert "blocks.0.mixer.bound" not in by_name
    for i in (1, 2):
        scale = by_name[f"blocks.{i}.mixer.bound"].scale
        np.testing.assert_allclose(scale, 1 - stack.bounds()[i].detach().numpy(), rtol=1e-6)


cuts = st.lists(st.integers(0, 12), max_size=4).map(lambda ends: [0, *sorted(ends), 12])


@settings(max_examples=15, deadline=None)
@given(cuts=cuts, kind=st.sampled_from(["real", "complex"]), seed=st.integers(0, 99))
def test_any_cutting_of_time_gives_the_same(cuts, kind, seed):
    executor = TorchExecutor(lrnn.compile(make_stack(seed=seed, hgrn=HGRNOptions(kind))))
    x = torch.randn(2, 12, SMALL["d_model"])
    whole, last = executor(x)
    state, parts = None, []
    for start, end in pairwise(cuts):
        y, state = executor(x[:, start:end], state)
        parts.append(y)
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=1e-5, rtol=1e-5)
    for name, value in last.items():
        torch.testing.assert_close(state[name], value, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["real", "complex"])
def test_masks_become_zeros(kind):
    stack = make_stack(d_model=32, d_state=24, d_hidden=48, hgrn=HGRNOptions(kind), relu="gates")
    prune_once(stack, 0.9)
    program = check(stack)
    matrices = [n.weight for n in program.nodes if isinstance(n, nodes.Linear)]
    density = sum((w != 0).sum() for w in matrices) / sum(w.size for w in matrices)
    assert len(matrices) == 14
    assert density < 0.12  # what is left of the matrices where units went is denser


@pytest.mark.parametrize("kind", ["real", "complex"])
@pytest.mark.parametrize("relu", ["none", "all"])
def test_states_that_nothing_writes_are_left_out(relu, kind):
    """The norm's mean is over all states: what is left counts for as many as there were."""
    stack = make_stack(hgrn=HGRNOptions(kind, norm_eps=1e-2), relu=relu)
    parts = 2 if kind == "complex" else 1
    with torch.no_grad():
        stack.blocks[0].mixer.i_proj.weight[: 2 * parts] = 0
        stack.blocks[1].mixer.o_proj.weight[:, : 2 * parts] = 0  # the norm reads these all the same
    program = check(stack)
    assert program.state_widths == {"blocks.0.mixer.state": 3 * parts, "blocks.1.mixer.state": 5 * parts}
    assert program.widths["blocks.0.mixer.write"] == 3


def test_hidden_units_that_are_cut_off_are_left_out():
    """Without a row of either matrix, or without a column of the last; the rest computes the same."""
    stack = make_stack()
    with torch.no_grad():
        glu = stack.blocks[0].glu
        glu.gate_proj.weight[0] = glu.up_proj.weight[1] = 0
        glu.down_proj.weight[:, 2] = 0
        stack.blocks[1].glu.up_proj.weight.zero_()  # one unit stands for all
    program = check(stack)
    assert program.widths["blocks.0.glu.product"] == SMALL["d_hidden"] - 3
    assert program.widths["blocks.1.glu.product"] == 1


def test_a_channel_that_nothing_feeds_goes_from_the_whole_residual_stream():
    table = np.ones((4, 3), np.float32)
    table[:, 1] = 0
    weight = np.arange(1, 10, dtype=np.float32).reshape(3, 3)
    weight[1] = 0
    graph = (
        nodes.Embedding("e", ("x",), table),
        nodes.RmsNorm("n", ("e",), np.ones(3, np.float32), 0.5),
        nodes.Linear("w", ("n",), weight),
        nodes.Add("s", ("e", "w")),
        nodes.Linear("y", ("s",), np.ones((2, 3), np.float32)),
    )
    whole = Program("x", 1, graph, "y")
    smaller = Program("x", 1, tuple(drop_dead("x", 1, graph, "y")), "y")
    assert [smaller.widths[name] for name in "enwsy"] == [2, 2, 2, 2, 2]
    np.testing.assert_allclose(
        smaller.stream("numpy").run([[2]]), whole.stream("numpy").run([[2]]), rtol=1e-6
    )


def test_counts():
    """Matrices, products, bounds and states; the rotation of a complex state takes four more."""
    for kind, parts in (("real", 1), ("complex", 2)):
        program = lrnn.compile(make_stack(hgrn=HGRNOptions(kind)))
        costs = {cost.name: cost for cost in count(program, np.ones((3, 6), np.float32))}
        state, matrices = costs["blocks.1.mixer.state"], 6 * 5 * (1 + 3 * parts) + 3 * 6 * 10
        assert state.macs == state.macs_weights == (5 if kind == "real" else 2 * 5 + 4 * 5)
        assert state.parameters == (0 if kind == "real" else 2 * 5)
        block = sum(cost.macs for name, cost in costs.items() if name.startswith("blocks.1."))
        assert block == matrices + state.macs + 5 * parts + 10 + 5  # two products, the bound
    table = Program("x", 1, (nodes.Embedding("e", ("x",), np.ones((9, 4), np.float32)),), "e")
    (cost,) = count(table, np.zeros((3, 1), np.float32))
    assert (cost.parameters, cost.macs, cost.activity) == (36, 0, None)


def test_only_whole_models_compile():
    with pytest.raises(TypeError, match=r"model is a HGRN, expected an lrnn\.HGRNStack or lrnn\."):
        lrnn.compile(lrnn.HGRN(4))
    for layer in (lrnn.HGRN(4), lrnn.S5(4, 4, blocks=1)):
        with pytest.raises(TypeError, match=r"; a layer compiles inside one of these, or .*program\.lowers"):
            lrnn.compile(layer)


def test_what_stands_in_a_stack_needs_a_rule():
    stack = make_stack()
    stack.blocks[1].glu.up_proj = nn.Bilinear(2, 2, 2)
    with pytest.raises(ValueError, match=r"blocks\.1\.glu\.up_proj: no rule compiles a .*Bilinear"):
        lrnn.compile(stack)


def test_config_goes_through_json():
    config = HGRNBlockConfig(**SMALL, relu="all", hgrn=AUTHORS)
    assert HGRNBlockConfig.from_dict(config.to_dict()) == config
    assert HGRNBlockConfig.from_dict({"d_model": 8}) == HGRNBlockConfig(d_model=8)
    with pytest.raises(ValueError, match="HGRNBlockConfig has no field 'd_modle'"):
        HGRNBlockConfig.from_dict({"d_modle": 8})
    with pytest.raises(ValueError, match="HGRNOptions has no field 'nrom'"):
        HGRNBlockConfig.from_dict({"hgrn": {"nrom": "rms"}})
