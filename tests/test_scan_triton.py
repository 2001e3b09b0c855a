"""The Triton scan: on a GPU where there is one, and everywhere under Triton's interpreter.

The interpreter is switched on by an environment variable before Triton is imported, so it gets a process of
its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec

import pytest
import torch
from lrnn.kernels.scan import reference
from scan_cases import C64, F32, HALF, OPTIONS, Problem, assert_same, make

INTERPRETING = os.environ.get("TRITON_INTERPRET") == "1"
TRITON = tuple(int(n) for n in version("triton").split(".")[:2]) if find_spec("triton") else (0, 0)
KINDS = [(F32, F32), (C64, C64), (F32, C64), (F32, HALF[0]), (HALF[1], HALF[1])]

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")


def _agrees_with_reference(p: Problem, device: str) -> None:
    from lrnn.kernels.scan import gpu

    there = Problem(*(x.to(device) if isinstance(x, torch.Tensor) else x for x in vars(p).values()))
    h, h_last = p.forward(reference.scan)
    for found, want in zip(there.forward(gpu.scan), (h, h_last), strict=True):
        assert_same(found.cpu(), want)
    found = there.backward(gpu.scan_backward, h.to(device))
    for x, want in zip(found, p.backward(reference.scan_backward, h), strict=True):
        assert_same(x.cpu(), want)


@pytest.mark.interpret
@pytest.mark.skipif(not INTERPRETING, reason="runs in the process that test_under_the_interpreter starts")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("constant", "reverse"), [(False, False), (True, True), (True, False), (False, True)]
)
def test_interpreted_kernel_equals_the_reference(kind, constant, reverse):
    with_h0 = constant != reverse
    _agrees_with_reference(make(0, (2, 5, 33), kind, constant, with_h0, True, reverse), "cpu")
    _agrees_with_reference(make(1, (1, 3, 2), kind, constant, not with_h0, False, reverse), "cpu")


@pytest.mark.interpret
@pytest.mark.skipif(not INTERPRETING, reason="runs in the process that test_under_the_interpreter starts")
@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 0, 5), (2, 3, 0), (1, 1, 1)])
def test_interpreted_kernel_takes_empty_sizes(shape):
    _agrees_with_reference(make(2, shape), "cpu")


@pytest.mark.skipif(INTERPRETING, reason="this is the interpreter's process")
@pytest.mark.skipif(
    TRITON < (3, 7), reason="the interpreter of Triton < 3.7 loops over no run-time range with NumPy >= 2.4"
)
def test_under_the_interpreter():
    run = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:xdist",
            "-o",
            "addopts=",
            __file__,
        ],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "24 passed" in run.stdout, run.stdout


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available() or INTERPRETING, reason="needs a CUDA device")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("constant", "with_h0", "with_reset", "reverse"), OPTIONS)
def test_compiled_kernel_equals_the_reference(kind, constant, with_h0, with_reset, reverse):
    _agrees_with_reference(make(3, (3, 37, 45), kind, constant, with_h0, with_reset, reverse), "cuda")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available() or INTERPRETING, reason="needs a CUDA device")
def test_cuda_tensors_reach_the_kernel_through_the_op():
    import lrnn

    p = make(4, (2, 9, 40))
    a, b = p.a.cuda().requires_grad_(), p.b.cuda().requires_grad_()
    h, _ = lrnn.scan(a, b)
    assert_same(h.detach().cpu(), reference.scan(p.a, p.b)[0])
    h.abs().square().sum().backward()
    assert a.grad.isfinite().all()
    assert b.grad.isfinite().all()
