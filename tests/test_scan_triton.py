"""The Triton scan: on a GPU where there is one, and everywhere under Triton's interpreter.

The interpreter is switched on by an environment variable before Triton is imported, so it gets a process of
its own.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec

import pytest
import torch
from lrnn.kernels.scan import reference
from scan_cases import C64, C128, F32, F64, HALF, OPTIONS, Problem, assert_same, make
from triton_offline import Offline

INTERPRETING = os.environ.get("TRITON_INTERPRET") == "1"
TRITON = tuple(int(n) for n in version("triton").split(".")[:2]) if find_spec("triton") else (0, 0)
KINDS = [(F32, F32), (C64, C64), (F32, C64), (F32, HALF[0]), (HALF[1], HALF[1])]

CHUNKED = [  # kind, constant, with_h0, with_reset, reverse
    ((F32, F32), True, True, True, False),
    ((C64, C64), True, False, False, True),
    ((F32, C64), False, True, False, False),
    ((F64, C128), False, False, True, True),
    ((HALF[0], HALF[0]), False, True, True, False),
    ((HALF[1], HALF[1]), True, True, False, True),
]

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")
interpreted = pytest.mark.skipif(
    not INTERPRETING, reason="runs in the process that test_under_the_interpreter starts"
)


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
@interpreted
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("constant", "reverse"), [(False, False), (True, True), (True, False), (False, True)]
)
def test_interpreted_kernel_equals_the_reference(kind, constant, reverse):
    with_h0 = constant != reverse
    _agrees_with_reference(make(0, (2, 5, 33), kind, constant, with_h0, True, reverse), "cpu")
    _agrees_with_reference(make(1, (1, 3, 2), kind, constant, not with_h0, False, reverse), "cpu")


@pytest.mark.interpret
@interpreted
@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 0, 5), (2, 3, 0), (1, 1, 1)])
def test_interpreted_kernel_takes_empty_sizes(shape):
    _agrees_with_reference(make(2, shape), "cpu")


@pytest.mark.interpret
@interpreted
@pytest.mark.parametrize(("kind", "constant", "with_h0", "with_reset", "reverse"), CHUNKED)
def test_interpreted_chunks_equal_the_reference(kind, constant, with_h0, with_reset, reverse, monkeypatch):
    from lrnn.kernels.scan import gpu

    monkeypatch.setattr(gpu, "chunk_steps", lambda *_: 8)
    _agrees_with_reference(make(5, (2, 19, 5), kind, constant, with_h0, with_reset, reverse), "cpu")


@pytest.mark.interpret
@interpreted
def test_interpreted_chunks_of_chunks_equal_the_reference(monkeypatch):
    """11 chunks of 8 steps, the last one short, are scanned in 2 chunks in their turn."""
    from lrnn.kernels.scan import gpu

    monkeypatch.setattr(gpu, "chunk_steps", lambda *_: 8)
    _agrees_with_reference(make(9, (1, 83, 3), reverse=True), "cpu")


@pytest.mark.interpret
@interpreted
def test_interpreted_long_sequence_is_chunked_by_itself():
    from lrnn.kernels.scan import gpu

    p = make(6, (1, 1003, 3), constant=True, with_reset=False)
    assert gpu._Launcher(p.a, p.b, p.reset, p.reverse).chunks > 20
    for found, want in zip(p.forward(gpu.scan), p.forward(reference.scan), strict=True):
        assert_same(found, want)


@pytest.mark.interpret
@interpreted
@pytest.mark.parametrize("reverse", [False, True])
def test_interpreted_reset_keeps_a_broken_sequence_from_its_neighbour(reverse, monkeypatch):
    """Two sequences packed into one row, across chunks: NaN in one reaches no value of the other."""
    from lrnn.kernels.scan import gpu

    monkeypatch.setattr(gpu, "chunk_steps", lambda *_: 8)
    p = make(7, (1, 40, 4), (C64, C64), True, False, False, reverse)
    p.b[:, 25 if reverse else 3] = float("nan")
    reset = torch.zeros((1, 40), dtype=torch.bool)
    reset[:, 13] = True
    h, h_last = gpu.scan(p.a, p.b, None, reset, reverse)
    want, want_last = reference.scan(p.a, p.b, None, reset, reverse)
    whole = slice(0, 13) if reverse else slice(13, None)
    assert want[:, whole].isfinite().all()
    assert_same(h[:, whole].contiguous(), want[:, whole].contiguous())
    assert_same(h_last, want_last)


@pytest.mark.parametrize(("programs", "length"), [(1, 1), (1, 70), (2, 65536), (16, 16000), (500, 4096)])
def test_chunks_cover_time_and_are_not_too_short(programs, length):
    from lrnn.kernels.scan import gpu

    steps = gpu.chunk_steps(programs, length, 1056)
    chunks = -(-length // steps)
    assert chunks * steps >= length
    assert (chunks > 1) == (length >= 64)
    if chunks > 1:
        assert steps >= 32
        assert steps % 8 == 0
        assert programs * (chunks - 1) <= 1056


def test_many_sequences_are_not_chunked():
    from lrnn.kernels.scan import gpu

    assert gpu.chunk_steps(528, 4096, 1056) == 4096
    many = make(0, (512, 128, 256), (F32, F32))
    launcher = gpu._Launcher(many.a, many.b, many.reset, False)
    assert (launcher.block, launcher.chunks) == (128, 1)


@pytest.mark.skipif(INTERPRETING, reason="compiles")
@pytest.mark.parametrize(("kind", "constant"), [((C64, C64), True), ((HALF[0], HALF[0]), False)])
def test_kernels_compile_for_an_h100_as_they_are_meant_to(kind, constant, monkeypatch):
    from lrnn.kernels.scan import gpu

    names = ("summarise", "forward", "backward")
    kernels = {name: Offline(getattr(gpu.kernels, name)) for name in names}
    for name, kernel in kernels.items():
        monkeypatch.setattr(gpu.kernels, name, kernel)
    p = make(8, (4, 2048, 64), kind, constant, reverse=True)
    p.forward(gpu.scan)
    p.backward(gpu.scan_backward, torch.zeros_like(p.b))
    for name, kernel in kernels.items():
        assert kernel.built, name
        for built in kernel.built:
            assert built.spilled == 0
            assert built.registers <= 128  # 16 warps per multiprocessor fit
            assert "bar.sync" not in built.ptx
    loop = re.search(r"\$L__BB0_2:.*?bra", kernels["forward"].built[-1].ptx, re.S)[0]
    loads, stores = (
        [m.start() for m in re.finditer(pattern, loop)] for pattern in ("ld.global", "st.global")
    )
    assert len(stores) >= 8
    assert max(loads) < min(stores)  # all loads of 8 steps are under way before the first is waited for


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
    assert "40 passed" in run.stdout, run.stdout


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available() or INTERPRETING, reason="needs a CUDA device")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("constant", "with_h0", "with_reset", "reverse"), OPTIONS)
def test_compiled_kernel_equals_the_reference(kind, constant, with_h0, with_reset, reverse):
    _agrees_with_reference(make(3, (3, 37, 45), kind, constant, with_h0, with_reset, reverse), "cuda")
    _agrees_with_reference(make(3, (1, 3001, 37), kind, constant, with_h0, with_reset, reverse), "cuda")


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
