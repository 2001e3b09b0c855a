"""The nodes of an HGRN: the formulas in float64, the laws of time, and what they refuse."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from lrnn.program import Program, load, nodes
from lrnn.program.numpy_executor import NumpyExecutor
from lrnn.program.program import tensors
from lrnn.program.torch_executor import TorchExecutor


def draw(*shape, seed=0, scale=1.0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)


def rotation_of(size: int) -> np.ndarray:
    theta = np.linspace(0, np.pi, size)
    return np.stack([np.cos(theta), np.sin(theta)], -1).astype(np.float32)


def gated_program(size: int, turned: bool) -> Program:
    """A gate of sigmoids and what is written, both from an input of 4 numbers."""
    width = 2 * size if turned else size
    return Program(
        "input",
        4,
        (
            nodes.Linear("z", ("input",), draw(size, 4, seed=1), draw(size, seed=2)),
            nodes.Sigmoid("g", ("z",)),
            nodes.Linear("x", ("input",), draw(width, 4, seed=3)),
            nodes.Gated("h", ("g", "x"), size, rotation_of(size) if turned else None),
        ),
        "h",
    )


def behind_a_table(program: Program) -> tuple[nodes.Node, ...]:
    """Its nodes, which read rows of a table by the numbers of 6 tokens."""
    read = [replace(n, inputs=tuple("table" if i == "input" else i for i in n.inputs)) for n in program.nodes]
    return nodes.Embedding("table", ("input",), draw(6, program.input_width)), *read


def run_numpy(program: Program, x: np.ndarray, state=None):
    executor = NumpyExecutor(program)
    state, out = state or executor.zero_state(), []
    for frame in x:
        y, state = executor.step(frame, state)
        out.append(y)
    return np.stack(out), state


def run_torch(program: Program, x: np.ndarray) -> np.ndarray:
    return TorchExecutor(program)(torch.from_numpy(x)[None])[0][0].numpy()


@pytest.mark.parametrize("turned", [False, True], ids=["real", "complex"])
@pytest.mark.parametrize("size", [1, 5, 16])
def test_gated_is_the_recurrence_of_the_paper(size, turned):
    """h = f exp(j theta) h + (1 - f) x, f = 1 - g, in complex float64."""
    program = gated_program(size, turned)
    x = draw(50, 4)
    weights = {n.name: n for n in program.nodes}
    g = 1 / (1 + np.exp(-(x.astype(float) @ weights["z"].weight.T + weights["z"].bias)))
    i = x.astype(float) @ weights["x"].weight.T
    if turned:
        i = i[:, 0::2] + 1j * i[:, 1::2]
    turn = np.exp(1j * np.linspace(0, np.pi, size)) if turned else 1.0
    h, expected = np.zeros(size), []
    for t in range(len(x)):
        h = (1 - g[t]) * turn * h + g[t] * i[t]
        expected.append(np.stack([h.real, h.imag], -1).reshape(-1) if turned else h)
    np.testing.assert_allclose(run_numpy(program, x)[0], np.stack(expected), atol=1e-5)
    np.testing.assert_allclose(run_torch(program, x), np.stack(expected), atol=1e-5)


def test_gated_comes_to_rest_at_what_is_written_however_small_the_gate():
    """1 - g rounds to 1 here: f h + g x would grow for ever."""
    node = nodes.Gated("h", ("g", "input"), 1)
    g = nodes.Affine("g", ("input",), np.zeros(1, np.float32), np.full(1, 2.0**-26, np.float32))
    program = Program("input", 1, (g, node), "h")
    state = {"h": np.full(1, 1.0, np.float32)}
    y, _ = run_numpy(program, np.ones((1000, 1), np.float32), state)
    assert (y == 1).all()


def test_functions_and_norm():
    x = draw(3, 8, scale=4)
    silu = Program("input", 8, (nodes.Silu("y", ("input",)),), "y")
    norm = Program("input", 8, (nodes.RmsNorm("y", ("input",), draw(8, seed=1), 1e-3),), "y")
    wide = x.astype(float)
    expected = {
        silu: wide / (1 + np.exp(-wide)),
        norm: wide / np.sqrt((wide**2).mean(-1, keepdims=True) + 1e-3) * draw(8, seed=1),
    }
    for program, y in expected.items():
        np.testing.assert_allclose(run_numpy(program, x)[0], y, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(run_torch(program, x), y, rtol=1e-6, atol=1e-6)


def test_silu_of_large_numbers_is_finite():
    silu = Program("input", 4, (nodes.Silu("y", ("input",)),), "y")
    x = np.array([[-1e30, -200, 200, 1e30]], np.float32)
    assert np.array_equal(run_numpy(silu, x)[0], [[0, 0, 200, np.float32(1e30)]])


def embedding(tokens: int = 6) -> Program:
    return Program("input", 1, (nodes.Embedding("table", ("input",), draw(tokens, 3)),), "table")


def test_embedding_is_a_row_of_the_table():
    tokens = np.array([[0], [5], [2], [2]], np.float32)
    program = embedding()
    expected = program.nodes[0].weight[[0, 5, 2, 2]]
    assert np.array_equal(run_numpy(program, tokens)[0], expected)
    assert np.array_equal(run_torch(program, tokens), expected)


@pytest.mark.parametrize("token", [-1, 6, 0.5, 1e30])
def test_what_is_no_token_is_named(token):
    x = np.array([[token]], np.float32)
    for run in (run_numpy, run_torch):
        with pytest.raises(ValueError, match=r"'table' \(embedding\): x has .*, expected .* 0 to 5"):
            run(embedding(), x)


@pytest.mark.parametrize("token", [np.nan, np.inf])
def test_a_token_that_is_not_finite(token):
    for run in (run_numpy, run_torch):
        with pytest.raises(ValueError, match="NaN or inf"):
            run(embedding(), np.array([[token]], np.float32))


def test_half_precision_does_not_round_tokens():
    program = embedding(4097)
    x = torch.tensor([[[4095.0]]])
    expected = torch.from_numpy(program.nodes[0].weight[4095]).half()
    assert torch.equal(TorchExecutor(program).half()(x)[0][0, 0], expected)


@pytest.mark.parametrize("turned", [False, True], ids=["real", "complex"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_tokens_may_be_of_any_floating_point_type(dtype, turned):
    program = Program("input", 1, behind_a_table(gated_program(6, turned)), "h")
    executor, x = TorchExecutor(program), torch.tensor([[[0.0], [5.0], [2.0]]])
    expected, last = executor(x)
    found, state = executor(x.to(dtype))
    assert torch.equal(found, expected)
    assert torch.equal(state["h"], last["h"])


@pytest.mark.parametrize("turned", [False, True], ids=["real", "complex"])
def test_any_cutting_of_time_gives_the_whole(turned):
    program, x = gated_program(6, turned), draw(40, 4)
    whole, last = run_numpy(program, x)
    first, state = run_numpy(program, x[:13])
    second, end = run_numpy(program, x[13:], state)
    assert np.array_equal(np.concatenate([first, second]), whole)
    assert np.array_equal(end["h"], last["h"])
    assert np.array_equal(last["h"], whole[-1])


@pytest.mark.parametrize("turned", [False, True], ids=["real", "complex"])
def test_file_holds_them_exactly(tmp_path, turned):
    gated = gated_program(6, turned)
    program = Program(
        "input",
        1,
        (
            *behind_a_table(gated),
            nodes.RmsNorm("norm", ("h",), draw(gated.output_width), 1e-5),
            nodes.Silu("y", ("norm",)),
        ),
        "y",
    )
    program.save(tmp_path / "p.lrnn")
    found = load(tmp_path / "p.lrnn")
    for node, other in zip(found.nodes, program.nodes, strict=True):
        assert (type(node), node.name, node.inputs) == (type(other), other.name, other.inputs)
        assert all(np.array_equal(v, tensors(other)[k]) for k, v in tensors(node).items())
    x = np.arange(6, dtype=np.float32)[:, None]
    assert np.array_equal(run_numpy(found, x)[0], run_numpy(program, x)[0])


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: nodes.Gated("h", ("x", "x"), 3), r"'h' \(gated\): first input's width is 4, expected 3"),
        (lambda: nodes.Gated("h", ("x", "x"), 4, rotation_of(4)), "second input's width is 4, expected 8"),
        (lambda: nodes.Gated("h", ("x", "x"), 4, rotation_of(3)), "rows of its rotation is 3, expected 4"),
        (lambda: nodes.Gated("h", ("x",), 4), "1 inputs, expected 2"),
        (lambda: nodes.RmsNorm("n", ("x",), np.ones(3, np.float32)), r"'n' \(rms_norm\): input width is 4"),
        (lambda: nodes.RmsNorm("n", ("x",), np.ones(4, np.float32), -1.0), "eps is -1.0"),
        (lambda: nodes.Embedding("e", ("x",), draw(3, 2)), "input width is 4, expected 1"),
    ],
)
def test_nodes_that_do_not_fit(make, match):
    with pytest.raises(ValueError, match=match):
        Program("x", 4, (make(),), "x")


def test_tokens_are_read_from_the_input_only():
    with pytest.raises(ValueError, match="it reads 'y', expected 'x', the program's input"):
        Program("x", 1, (nodes.Relu("y", ("x",)), nodes.Embedding("e", ("y",), draw(3, 2))), "e")
