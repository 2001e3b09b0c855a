"""A step as a GPU runs it: here uncaptured, on the reference and on the interpreted Triton kernel."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from test_program import make_model, run_numpy
from test_program_hgrn import make_stack

import lrnn
from lrnn.engine import cuda
from lrnn.engine.cuda import DecodeStep
from lrnn.ops import PackedWeight
from lrnn.program import Program, nodes

INTERPRETING = os.environ.get("TRITON_INTERPRET") == "1"
SMALL = lrnn.SequenceModelConfig(d_in=20, d_out=9, d_model=48, d_state=64, blocks=2, n_layers=2)
CONFIGS = {
    "s5": SMALL,
    "classifier": replace(SMALL, head="classification", pooling="mean", norm="layer", relu="pair"),
    "gelu": replace(SMALL, relu="none", glu="full", prenorm=False),
}
interpreted = pytest.mark.skipif(
    not INTERPRETING, reason="runs in the process that test_under_the_interpreter starts"
)


@pytest.fixture(autouse=True)
def _without_graphs_of_other_tests():
    torch._dynamo.reset()  # it counts the graphs of a function, of all tests together


def sparse_program(config, seed=0) -> Program:
    """A program whose matrices are mostly zeros, but for the decoder's."""
    program = lrnn.compile(make_model(config, seed))
    rng = np.random.default_rng(seed)

    def thin(node):
        if not isinstance(node, nodes.Linear) or node.name == "decoder":
            return node
        return replace(node, weight=node.weight * (rng.random(node.weight.shape) < 0.2))

    return replace(program, nodes=tuple(thin(node) for node in program.nodes))


def rounded(program: Program, packed: dict[str, PackedWeight]) -> Program:
    """The program with the weights that the packed matrices hold."""
    changed = (
        replace(n, weight=packed[n.name].to_dense().cpu().numpy()) if n.name in packed else n
        for n in program.nodes
    )
    return replace(program, nodes=tuple(changed))


def check(config, format: str, batch: int, device: str = "cpu", frames: int = 6) -> DecodeStep:
    program = sparse_program(config)
    decode = DecodeStep(program, batch, format, device)
    assert decode.packed
    assert "decoder" not in decode.packed
    x = torch.randn(batch, frames, program.input_width, requires_grad=True)
    y = torch.stack([decode.step(x[:, t]).cpu().clone() for t in range(frames)], dim=1)
    same = rounded(program, decode.packed)
    for stream, found in zip(x.detach().numpy(), y.numpy(), strict=True):
        np.testing.assert_allclose(found, run_numpy(same, stream), rtol=1e-4, atol=1e-5)
    return decode


@pytest.mark.parametrize("format", ["float16", "bfloat16", "int8"])
@pytest.mark.parametrize("config", CONFIGS)
def test_equals_the_normative_executor(config, format):
    assert not check(CONFIGS[config], format, batch=3).captured


@pytest.mark.parametrize("kind", ["real", "complex"])
def test_an_hgrn_that_reads_tokens(kind):
    stack = lrnn.compile(make_stack(d_model=40, d_state=33, d_hidden=70, hgrn=lrnn.HGRNOptions(kind)))
    table = np.random.default_rng(0).standard_normal((9, 40)).astype(np.float32)
    made = [replace(n, inputs=tuple("table" if i == "input" else i for i in n.inputs)) for n in stack.nodes]
    program = Program("input", 1, (nodes.Embedding("table", ("input",), table), *made), stack.output)
    plain, fused = (DecodeStep(program, batch=3, device="cpu") for _ in range(2))
    fused._run = fused._compiled("aot_eager")
    fused.reset()
    tokens = torch.randint(0, 9, (3, 12, 1)).float()
    same = rounded(program, plain.packed)
    for decode in (plain, fused):
        y = torch.stack([decode.step(tokens[:, t]).clone() for t in range(12)], dim=1)
        for stream, found in zip(tokens.numpy(), y.numpy(), strict=True):
            np.testing.assert_allclose(found, run_numpy(same, stream), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("config", CONFIGS)
def test_compiles_as_one_graph(config):
    """As it is before it is captured; with the backend that needs no compiler."""
    program = sparse_program(CONFIGS[config])
    plain, fused = (DecodeStep(program, batch=2, device="cpu") for _ in range(2))
    fused._run = fused._compiled("aot_eager")
    fused.reset()
    for x in torch.randn(4, 2, program.input_width):
        torch.testing.assert_close(fused.step(x), plain.step(x))
    for name, value in plain.state.items():
        torch.testing.assert_close(fused.state[name], value)


def test_more_of_them_compile_than_dynamo_allows_of_one_function():
    program = sparse_program(replace(SMALL, n_layers=1))
    steps = [DecodeStep(program, device="cpu") for _ in range(torch._dynamo.config.recompile_limit + 2)]
    for decode in steps:
        decode._compiled("eager")


def test_reset_and_state():
    decode = DecodeStep(sparse_program(CONFIGS["classifier"]), batch=2, device="cpu")
    x = torch.randn(5, 2, 20)
    first = [decode.step(frame).clone() for frame in x[:2]]
    kept = decode.state
    then = [decode.step(frame).clone() for frame in x[2:]]
    decode.state = kept
    assert all(torch.equal(decode.step(frame), y) for frame, y in zip(x[2:], then, strict=True))
    decode.reset()
    assert all(torch.equal(decode.step(frame), y) for frame, y in zip(x[:2], first, strict=True))


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda p: DecodeStep(p, batch=17), ValueError, "batch is 17"),
        (lambda p: DecodeStep(p, format="int4"), ValueError, "format is 'int4'"),
        (lambda p: DecodeStep(p, device="cpu").step(torch.ones(2, 20)), ValueError, r"x has shape \(2, 20\)"),
        (lambda p: DecodeStep(p, device="cpu").step(torch.ones(1, 20).int()), TypeError, "x is torch.int32"),
        (lambda p: setattr(DecodeStep(p, device="cpu"), "state", {}), ValueError, "state"),
    ],
)
def test_what_does_not_fit_is_named(call, error, words):
    with pytest.raises(error, match=words):
        call(sparse_program(SMALL))


@pytest.mark.interpret
@pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")
@interpreted
@pytest.mark.parametrize(("format", "batch"), [("float16", 1), ("int8", 3)])
def test_interpreted_kernel_in_a_whole_step(format, batch, monkeypatch):
    from lrnn.kernels.sparse_matvec import gpu

    monkeypatch.setattr(cuda, "packed_matvec", lambda x, w, bias: gpu.packed_matvec(x, *w[:4], bias))
    check(SMALL, format, batch, frames=3)


@pytest.mark.skipif(INTERPRETING, reason="this is the interpreter's process")
@pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")
def test_under_the_interpreter():
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-o", "addopts=", "-m", "interpret"]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *options, __file__],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "2 passed" in run.stdout, run.stdout


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available() or INTERPRETING, reason="needs a CUDA device")
@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize(("format", "batch"), [("float16", 1), ("int8", 4)])
def test_captured_step_equals_the_normative_executor(config, format, batch):
    assert check(CONFIGS[config], format, batch, "cuda").captured
