"""A compiled program computes what the model computes, on any executor and for any cutting of time."""

from __future__ import annotations

import copy
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrize

import lrnn
from lrnn.program import Graph, Program, lowers, nodes
from lrnn.program.dead import drop_dead
from lrnn.program.numpy_executor import NumpyExecutor
from lrnn.program.program import tensors
from lrnn.program.torch_executor import TorchExecutor

SMALL = lrnn.SequenceModelConfig(d_in=5, d_out=4, d_model=6, d_state=8, blocks=2, n_layers=2)
HEADS = {
    "regression": {},
    "mean": {"head": "classification", "pooling": "mean"},
    "last": {"head": "classification", "pooling": "last"},
}


def make_model(config=SMALL, seed=0) -> lrnn.SequenceModel:
    """A model whose norms and biases are not trivial, in evaluation mode."""
    torch.manual_seed(seed)
    model = lrnn.SequenceModel(config).eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.endswith("bias") or ".norm." in name:
                p.add_(torch.randn_like(p) * 0.3)
        for block in model.blocks:
            if config.norm != "layer":
                block.norm.running_mean.normal_()
                block.norm.running_var.uniform_(0.5, 2)
    return model


def run_numpy(program: Program, x: np.ndarray) -> np.ndarray:
    executor = NumpyExecutor(program)
    state, out = executor.zero_state(), []
    for frame in x:
        y, state = executor.step(frame, state)
        out.append(y)
    return np.stack(out)


def every_frame(model: lrnn.SequenceModel, x: torch.Tensor) -> torch.Tensor:
    """The model's output (B, T, d_out); a classifier's for every beginning of the sequence."""
    with torch.no_grad():
        if model.config.head == "regression":
            return model(x)[0]
        return torch.stack([model(x[:, : t + 1])[0] for t in range(x.shape[1])], dim=1)


def check(model: lrnn.SequenceModel, frames: int = 9) -> Program:
    x = torch.randn(2, frames, model.config.d_in)
    program, expected = lrnn.compile(model), every_frame(model, x)
    torch.testing.assert_close(TorchExecutor(program)(x)[0], expected, atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(run_numpy(program, x[1].numpy()), expected[1], atol=1e-5, rtol=1e-5)
    return program


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("prenorm", [True, False], ids=["prenorm", "postnorm"])
@pytest.mark.parametrize("norm", ["batch", "layer"])
@pytest.mark.parametrize("glu", ["half1", "half2", "full", "none"])
@pytest.mark.parametrize("relu", ["none", "parts", "pair"])
def test_equals_model(relu, glu, norm, prenorm, head):
    check(make_model(replace(SMALL, relu=relu, glu=glu, norm=norm, prenorm=prenorm, **HEADS[head])))


@pytest.mark.parametrize(
    "changes",
    [
        {"ssm": lrnn.S5Options(discretization="bilinear")},
        {"ssm": lrnn.S5Options(conj_sym=False, c_init="complex_normal")},
        {"ssm": lrnn.S5Options(step_rescale=2.0, clip_eigs=False)},
        {"input_exponent": 3},
        {"norm": "frozen_batch"},
        {"d_in": 1, "d_out": 1, "d_model": 1, "n_layers": 1, "d_state": 2, "blocks": 1},
    ],
    ids=str,
)
def test_equals_model_with_options(changes):
    check(make_model(replace(SMALL, **changes)))


def test_equals_model_over_thousands_of_frames():
    """Slow states multiply an error in lambda_bar by the frames they remember."""
    model = make_model(replace(SMALL, relu="none", ssm=lrnn.S5Options(dt_min=1e-4, dt_max=1e-3)))
    program = check(model, frames=3000)
    by_name = {node.name: node for node in program.nodes}
    lambda_bar, _ = model.blocks[0].ssm.discretize()
    assert np.array_equal(by_name["blocks.0.ssm.state"].a, torch.view_as_real(lambda_bar.detach()))


def test_model_in_training_compiles_as_in_evaluation_and_is_not_changed():
    model = make_model(replace(SMALL, dropout=0.5))
    expected = lrnn.compile(model)
    model.train()
    before = copy.deepcopy(model.state_dict())
    found = lrnn.compile(model)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    for node, other in zip(found.nodes, expected.nodes, strict=True):
        assert all(np.array_equal(value, tensors(other)[k]) for k, value in tensors(node).items())


class Mask(nn.Module):
    """A parametrization that zeroes; it must not be asked while training."""

    def __init__(self, mask):
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, weight):
        assert not self.training
        return weight * self.mask


def test_masks_become_zeros():
    model = make_model()
    ssm, linear = model.blocks[0].ssm, model.blocks[0].out2
    pairs, kept = torch.rand(4, 6, 1) < 0.3, torch.rand(6, 6) < 0.3
    parametrize.register_parametrization(ssm, "B", Mask(pairs))
    parametrize.register_parametrization(linear, "weight", Mask(kept))
    program = check(model.eval())
    found = {node.name: node.weight for node in program.nodes if isinstance(node, nodes.Linear)}
    rows = np.repeat(pairs[..., 0].numpy(), 2, axis=0)  # B_bar as sparse as B: (re, im) rows side by side
    assert np.array_equal(found["blocks.0.ssm.B"] != 0, rows)
    assert np.array_equal(found["blocks.0.out2"] != 0, kept.numpy())
    assert not any(np.signbit(weight[weight == 0]).any() for weight in found.values())  # no -0.0
    lrnn.compile(model.train())  # the parametrizations see evaluation mode all the same
    assert parametrize.is_parametrized(ssm, "B")


@pytest.mark.parametrize("relu", ["none", "parts", "pair"])
def test_states_that_are_cut_off_are_left_out(relu):
    """Those without a row of B, and those that C does not read; the rest computes the same."""
    model = make_model(replace(SMALL, relu=relu))
    ssm = model.blocks[0].ssm
    P = ssm.B.shape[0]
    with torch.no_grad():
        ssm.B[0] = 0
        ssm.C[:, 1] = 0
        model.blocks[1].ssm.B.zero_()  # nothing moves: one state stands for all
    program = lrnn.compile(model)
    assert program.state_widths == {"blocks.0.ssm.state": 2 * (P - 2), "blocks.1.ssm.state": 2}
    x = torch.randn(2, 30, SMALL.d_in)
    found = np.stack([run_numpy(program, part.numpy()) for part in x])
    np.testing.assert_allclose(found, every_frame(model, x).numpy(), atol=1e-5, rtol=1e-5)


def test_states_that_are_read_stay():
    """A state whose value is the output is not touched; one that two matrices read goes from both."""
    zeros, ones = np.zeros((4, 2), np.float32), np.ones((2, 4), np.float32)
    state = nodes.Diagonal("h", ("b",), np.full((2, 2), 0.5, np.float32))
    read_twice = (
        nodes.Linear("b", ("x",), zeros),
        state,
        nodes.Linear("c", ("h",), ones),
        nodes.Linear("d", ("h",), ones),
        nodes.Add("y", ("c", "d")),
    )
    assert [n.weight.shape for n in drop_dead("x", 2, read_twice, "y")[2:4]] == [(2, 2), (2, 2)]
    is_output = (nodes.Linear("b", ("x",), zeros), state)
    assert drop_dead("x", 2, is_output, "h") == list(is_output)


def test_batch_norm_folds_before_the_ssm():
    program = lrnn.compile(make_model())
    by_name = {node.name: node for node in program.nodes}
    assert "blocks.1.norm" not in by_name
    assert by_name["blocks.1.ssm.B"].inputs == by_name["blocks.1.ssm.D"].inputs == ("blocks.0.relu",)
    assert by_name["blocks.1.ssm.B"].bias is not None


def test_batch_norm_stays_where_a_residual_reads_it_and_folds_into_the_decoder():
    program = lrnn.compile(make_model(replace(SMALL, prenorm=False, relu="none")))
    names = [node.name for node in program.nodes if isinstance(node, nodes.Affine)]
    assert names == ["blocks.0.ssm.D", "blocks.0.norm", "blocks.1.ssm.D"]


cuts = st.lists(st.integers(0, 12), max_size=4).map(lambda ends: [0, *sorted(ends), 12])


@settings(max_examples=25, deadline=None)
@given(cuts=cuts, head=st.sampled_from(sorted(HEADS)), seed=st.integers(0, 99))
def test_any_cutting_of_time_gives_the_same(cuts, head, seed):
    program = lrnn.compile(make_model(replace(SMALL, **HEADS[head]), seed))
    executor, x = TorchExecutor(program), torch.randn(2, 12, 5)
    whole, last = executor(x)
    state, parts = None, []
    for start, end in pairwise(cuts):
        y, state = executor(x[:, start:end], state)
        parts.append(y)
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=1e-5, rtol=1e-5)
    for name, value in last.items():
        torch.testing.assert_close(state[name], value, atol=1e-5, rtol=1e-5)


@settings(max_examples=25, deadline=None)
@given(t=st.integers(1, 11), head=st.sampled_from(sorted(HEADS)))
def test_no_output_depends_on_the_future_or_the_batch(t, head):
    executor = TorchExecutor(lrnn.compile(make_model(replace(SMALL, **HEADS[head]))))
    x = torch.randn(2, 12, 5)
    changed = x.clone()
    changed[0, t:] += 10
    y, z = executor(x)[0], executor(changed)[0]
    assert torch.equal(y[0, :t], z[0, :t])
    assert torch.equal(y[1], z[1])
    assert not torch.equal(y[0, t], z[0, t])


def test_trace_has_every_value():
    program = lrnn.compile(make_model())
    executor, x = TorchExecutor(program), torch.randn(2, 3, 5)
    values, _ = executor.trace(x)
    assert {name: value.shape for name, value in values.items()} == {
        name: (2, 3, width) for name, width in program.widths.items()
    }
    assert torch.equal(values["input"], x)
    assert torch.equal(values["decoder"], executor(x)[0])


def test_numpy_step_leaves_the_given_state_alone():
    executor = NumpyExecutor(lrnn.compile(make_model(replace(SMALL, **HEADS["mean"]))))
    x = np.ones(5)
    first, after = executor.step(x, executor.zero_state())
    kept = copy.deepcopy(after)
    second, _ = executor.step(x, after)
    assert not np.array_equal(first, second)
    assert np.array_equal(executor.step(x, kept)[0], second)
    assert all(np.array_equal(after[name], kept[name]) for name in kept)


def test_refuses_bidirectional_by_name():
    model = make_model(replace(SMALL, ssm=lrnn.S5Options(bidirectional=True)))
    with pytest.raises(ValueError, match=r"blocks\.0\.ssm: a bidirectional S5"):
        lrnn.compile(model)


def test_refuses_a_module_without_a_rule_by_name():
    class Doubled(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    model = make_model()
    model.blocks[1].out2 = Doubled(6, 6)
    with pytest.raises(ValueError, match=r"blocks\.1\.out2: no rule compiles a .*Doubled"):
        lrnn.compile(model)


def test_a_new_rule_makes_a_module_compile():
    class RootMeanSquare(nn.Module):
        def forward(self, x):
            return torch.relu(x) + x

    @lowers(RootMeanSquare)
    def rule(graph: Graph, module, path, x):
        return graph.add(nodes.Add(path, (graph.add(nodes.Relu(f"{path}.relu", (x,))), x)))

    model = make_model()
    model.blocks[0].norm = RootMeanSquare()
    check(model)


def test_refuses_what_is_not_a_model_and_weights_that_are_not_finite():
    with pytest.raises(TypeError, match=r"model is a Linear, expected an lrnn\..*lrnn\.SequenceModel"):
        lrnn.compile(nn.Linear(2, 2))
    with pytest.raises(TypeError, match=r"Conv1d, expected .*; a class of your own needs a rule \(see lrnn"):
        lrnn.compile(nn.Conv1d(2, 2, 1))
    model = make_model()
    model.blocks[1].ssm.D.data[0] = float("nan")
    with pytest.raises(ValueError, match=r"node 'blocks\.1\.ssm\.D' \(affine\): scale has NaN"):
        lrnn.compile(model)


def one(node: nodes.Node, x) -> np.ndarray:
    """Run a program of one node on the frames x (T, n), numpy held to torch."""
    x = np.asarray(x, np.float32)
    program = Program("x", x.shape[1], (node,), node.name)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        y = run_numpy(program, x)
    assert y.dtype == np.float32
    torch.testing.assert_close(torch.tensor(y), TorchExecutor(program)(torch.tensor(x)[None])[0][0])
    return y


def test_each_node_at_its_edges():
    big = np.float32(200)
    assert one(nodes.Sigmoid("y", ("x",)), [[-big, 0, big]]).tolist() == [[0, 0.5, 1]]
    pairs = [[0, 1, 0, -1, -1, 5, 2, -3]]
    assert one(nodes.PairRelu("y", ("x",)), pairs).tolist() == [[0, 1, 0, 0, 0, 0, 2, -3]]
    assert one(nodes.Relu("y", ("x",)), pairs).tolist() == [[0, 1, 0, 0, 0, 5, 2, 0]]
    assert one(nodes.Round("y", ("x",), 1), [[0.25, 0.75, -0.25, 0.3]]).tolist() == [[0, 1, 0, 0.5]]
    assert one(nodes.MeanPool("y", ("x",), 1), [[1], [2], [6]]).tolist() == [[1], [1.5], [3]]
    assert np.isfinite(one(nodes.LogSoftmax("y", ("x",)), [[-big, 0, big]])).all()
    assert one(nodes.Gelu("y", ("x",)), [[-big, 0, big]]).tolist() == [[0, 0, big]]
    turn = nodes.Diagonal("y", ("x",), np.array([[0, 1]], np.float32))  # a = i
    assert one(turn, [[1, 0], [0, 0], [0, 0]]).tolist() == [[1, 0], [0, 1], [-1, 0]]
    ones, zeros = np.ones(2, np.float32), np.zeros(2, np.float32)
    assert one(nodes.LayerNorm("y", ("x",), ones, zeros), [[3, 3]]).tolist() == [[0, 0]]
    twice = nodes.Product("y", ("x", "x"))
    assert one(twice, [[3, -2]]).tolist() == [[9, 4]]
    assert one(nodes.Affine("y", ("x",), 2 * ones, ones), [[3, -2]]).tolist() == [[7, -3]]


def f32(*shape):
    return np.ones(shape, np.float32)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: [nodes.Linear("y", ("x",), f32(2, 4))],
            r"node 'y' \(linear\): input width is 3, expected 4",
        ),
        (lambda: [nodes.Linear("y", ("x",), f32(2, 3), f32(3))], r"bias has shape \(3,\), expected \(2,\)"),
        (
            lambda: [nodes.Linear("y", ("x",), f32(3))],
            r"weight has shape \(3,\), expected \(rows, cols\)",
        ),
        (lambda: [nodes.Linear("y", ("x",), None)], r"weight is NoneType, expected an array"),
        (lambda: [nodes.Linear("y", ("x",), np.ones((2, 3)))], r"weight is float64, expected float32"),
        (lambda: [nodes.Linear("y", ("x",), f32(2, 3) * np.nan)], r"weight has NaN or infinite values"),
        (lambda: [nodes.Affine("y", ("x",), f32(3), f32(2))], r"shift has shape \(2,\), expected \(3,\)"),
        (lambda: [nodes.Diagonal("y", ("x",), f32(2, 3))], r"a has shape \(2, 3\), expected \(2, 2\)"),
        (lambda: [nodes.PairRelu("y", ("x",))], r"modulo 2 is 1, expected 0"),
        (lambda: [nodes.Round("y", ("x",), 200)], r"exponent is 200"),
        (lambda: [nodes.LayerNorm("y", ("x",), f32(3), f32(3), -1.0)], r"eps is -1\.0"),
        (lambda: [nodes.Relu("y", ("z",))], r"node 'y' \(relu\): it reads 'z', which no earlier node makes"),
        (lambda: [nodes.Relu("y", ("y",))], r"reads 'y', which no earlier node makes"),
        (lambda: [nodes.Add("y", ("x",))], r"has 1 inputs, expected 2"),
        (lambda: [nodes.Relu("x", ("x",))], r"two values are named 'x'"),
        (lambda: [], r"output 'y' is made by no node"),
    ],
)
def test_a_graph_that_does_not_fit_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        Program("x", 3, tuple(make()), "y")


def test_executors_refuse_bad_frames_and_states():
    program = lrnn.compile(make_model())
    plain, batched = NumpyExecutor(program), TorchExecutor(program)
    with pytest.raises(ValueError, match=r"x has shape \(4,\), expected \(5,\)"):
        plain.step(np.zeros(4), plain.zero_state())
    with pytest.raises(ValueError, match="x has NaN"):
        plain.step(np.full(5, np.inf), plain.zero_state())
    with pytest.raises(ValueError, match=r"state\['blocks\.0\.ssm\.state'\] is missing, expected \(8,\)"):
        plain.step(np.zeros(5), {})
    with pytest.raises(ValueError, match=r"x has shape \(9, 5\), expected \(B, T, 5\)"):
        batched(torch.zeros(9, 5))
    with pytest.raises(TypeError, match=r"x is torch\.int64"):
        batched(torch.zeros(1, 9, 5, dtype=torch.int64))
    with pytest.raises(ValueError, match="x has NaN"):
        batched(torch.full((1, 2, 5), float("nan")))
    _, state = batched(torch.zeros(2, 9, 5))
    with pytest.raises(ValueError, match=r"state\['blocks\.0\.ssm\.state'\] is \(2, 8\), expected \(1, 8\)"):
        batched(torch.zeros(1, 9, 5), state)
