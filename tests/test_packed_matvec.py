"""The packed sparse product: the format, the op, and the Triton kernel under its interpreter and compiler."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lrnn.kernels.sparse_matvec import reference
from triton_offline import Offline

from lrnn.ops import PackedWeight, packed_matvec

INTERPRETING = os.environ.get("TRITON_INTERPRET") == "1"
TRITON = tuple(int(n) for n in version("triton").split(".")[:2]) if find_spec("triton") else (0, 0)
FORMATS = ("float16", "bfloat16", "int8")
SHAPES = [(1, 1), (5, 7), (33, 300), (3, 2049), (9, 4500), (2, 2048), (0, 5), (4, 0)]
TOLERANCE = {torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 8e-3}

needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")
interpreted = pytest.mark.skipif(
    not INTERPRETING, reason="runs in the process that test_under_the_interpreter starts"
)


def draw(shape, density, seed=0) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=g) * (torch.rand(shape, generator=g) < density)


def rounded(weight: torch.Tensor, format: str) -> torch.Tensor:
    """What packing should leave of a weight, worked out row by row."""
    if format != "int8":
        return weight.to(getattr(torch, format)).float()
    out = torch.zeros_like(weight)
    for i, row in enumerate(weight.double()):
        scale = 2.0**-126
        while row.numel() and torch.round(row.abs().max() / scale) > 127:
            scale *= 2
        out[i] = torch.round(row / scale) * scale
    return out


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("density", [0, 0.001, 0.1, 1])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_unpacking_gives_the_rounded_weight_back(shape, density, format):
    weight = draw(shape, density)
    packed = PackedWeight.from_dense(weight, format)
    assert packed.shape == shape
    assert torch.equal(packed.to_dense(), rounded(weight, format))
    assert packed.nonzeros == packed.to_dense().count_nonzero()


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(0, 5000), unique=True, max_size=30),
    st.lists(st.integers(0, 5000), unique=True, max_size=30),
    st.sampled_from(FORMATS),
)
def test_any_gaps_survive(first, second, format):
    weight = torch.zeros(3, 5001)
    weight[0, first], weight[2, second] = 1.0, -2.0
    packed = PackedWeight.from_dense(weight, format)
    assert torch.equal(packed.to_dense(), weight)
    assert all(len(t) % 8 == 0 for t in (packed.values, packed.deltas))


@pytest.mark.parametrize(
    ("density", "format", "limit"),
    [
        (0.5, "float16", 3.05),
        (0.3, "float16", 3.1),
        (0.1, "float16", 3.15),
        (0.1, "int8", 2.1),
        (0.05, "int8", 2.25),
    ],
)
def test_bytes_per_nonzero(density, format, limit):
    weight = draw((256, 4096), density)
    packed = PackedWeight.from_dense(weight, format)
    assert packed.nbytes / packed.nonzeros <= limit


def test_int8_scales_are_the_finest_powers_of_two_that_clip_nothing():
    weight = torch.tensor([[127.0, 0.0], [127.6, 1.0], [0.0, 0.0], [-1e-3, 5e-4]])
    packed = PackedWeight.from_dense(weight, "int8")
    assert torch.equal(packed.scales.log2(), packed.scales.log2().round())
    assert packed.scales[:2].tolist() == [1.0, 2.0]
    assert 64 <= float(packed.to_dense()[3].abs().max() / packed.scales[3]) <= 127


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_op_is_the_dense_product(format, dtype):
    weight, bias = draw((37, 2500), 0.1), torch.randn(37)
    packed = PackedWeight.from_dense(weight, format)
    x = torch.randn(3, 2500).to(dtype)
    want = x.double() @ rounded(weight, format).double().T + bias.double()
    y = packed_matvec(x, packed, bias)
    assert y.dtype == dtype
    torch.testing.assert_close(y.double(), want, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype] * 40)


def test_opcheck_and_compile():
    packed = PackedWeight.from_dense(draw((9, 300), 0.2))
    x, bias = torch.randn(2, 300), torch.randn(9)
    torch.library.opcheck(torch.ops.lrnn.packed_matvec.default, (x, *packed[:4], bias))
    compiled = torch.compile(lambda x: packed_matvec(x, packed, bias) * 2, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x), packed_matvec(x, packed, bias) * 2)


def test_it_has_no_gradient():
    packed = PackedWeight.from_dense(draw((9, 30), 0.2))
    y = packed_matvec(torch.randn(2, 30, requires_grad=True), packed)
    with pytest.raises(RuntimeError, match="train with lrnn"):
        y.sum().backward()


PACKED = PackedWeight.from_dense(draw((4, 6), 0.5))


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: PackedWeight.from_dense(torch.ones(2, 2), "int4"), ValueError, "format is 'int4'"),
        (lambda: PackedWeight.from_dense(torch.ones(2)), ValueError, r"weight: shape is \(2,\)"),
        (lambda: PackedWeight.from_dense(torch.ones(2, 2).int()), TypeError, "weight: dtype is torch.int32"),
        (lambda: PackedWeight.from_dense(torch.full((1, 2), float("nan"))), ValueError, "weight has NaN"),
        (lambda: PackedWeight.from_dense(torch.full((1, 2), 1e6)), ValueError, "weight: largest .* 1e\\+06"),
        (lambda: packed_matvec(torch.ones(1, 6), torch.ones(4, 6)), TypeError, "weight: found Tensor"),
        (lambda: packed_matvec(torch.ones(1, 5), PACKED), ValueError, r"x: shape is \(1, 5\)"),
        (lambda: packed_matvec(torch.ones(17, 6), PACKED), ValueError, r"x: shape is \(17, 6\)"),
        (lambda: packed_matvec(torch.ones(1, 6).double(), PACKED), TypeError, "x: dtype is torch.float64"),
        (lambda: packed_matvec(torch.ones(1, 6), PACKED, torch.ones(3)), ValueError, "bias: found"),
        (lambda: packed_matvec(torch.ones(1, 6, device="meta"), PACKED), ValueError, "x: device is meta"),
    ],
)
def test_what_does_not_fit_is_named(call, error, words):
    with pytest.raises(error, match=words):
        call()


def _agrees_with_reference(shape, density, batch, format, dtype, with_bias, device="cpu") -> None:
    from lrnn.kernels.sparse_matvec import gpu

    packed = [t.to(device) for t in PackedWeight.from_dense(draw(shape, density), format)[:4]]
    g = torch.Generator().manual_seed(1)
    x = torch.randn((batch, shape[1]), generator=g).to(dtype)
    bias = torch.randn(shape[0], generator=g) if with_bias else None
    want = reference.packed_matvec(x, *(t.cpu() for t in packed), bias)
    found = gpu.packed_matvec(x.to(device), *packed, None if bias is None else bias.to(device))
    assert (found.shape, found.dtype) == (want.shape, want.dtype)
    assert found.is_contiguous()
    scale = TOLERANCE[dtype] * (1 + float(want.abs().max())) if want.numel() else 1
    torch.testing.assert_close(found.cpu(), want, rtol=TOLERANCE[dtype], atol=scale)


CASES = [  # shape, density, batch, format, dtype, with_bias
    ((1, 1), 1.0, 1, "float16", torch.float32, False),
    ((33, 300), 0.1, 1, "int8", torch.float16, True),
    ((37, 300), 0.1, 3, "bfloat16", torch.bfloat16, True),
    ((5, 2049), 0.02, 16, "float16", torch.float16, False),
    ((6, 4500), 0.1, 1, "int8", torch.float32, True),
    ((3, 5000), 0.001, 2, "float16", torch.float32, False),
    ((2, 2048), 1.0, 4, "int8", torch.float16, False),
    ((7, 130), 0.0, 2, "float16", torch.float32, True),
    ((0, 5), 1.0, 2, "float16", torch.float32, False),
    ((4, 0), 1.0, 2, "int8", torch.float32, True),
    ((4, 9), 1.0, 0, "float16", torch.float32, False),
]


@pytest.mark.interpret
@needs_triton
@interpreted
@pytest.mark.parametrize("case", CASES, ids=str)
def test_interpreted_kernel_equals_the_reference(case):
    _agrees_with_reference(*case)


@pytest.mark.interpret
@needs_triton
@interpreted
def test_interpreted_rows_of_uneven_length():
    from lrnn.kernels.sparse_matvec import gpu

    weight = draw((9, 700), 0.05)
    weight[4], weight[6] = torch.randn(700), 0
    packed = PackedWeight.from_dense(weight)
    x = torch.randn(1, 700)
    found = gpu.packed_matvec(x, *packed[:4], None)
    torch.testing.assert_close(found, reference.packed_matvec(x, *packed[:4], None), rtol=1e-5, atol=1e-4)
    assert found[0, 6] == 0


@pytest.mark.interpret
@needs_triton
@interpreted
def test_interpreted_splits_give_what_one_program_gives(monkeypatch):
    from lrnn.kernels.sparse_matvec import gpu

    packed, x = PackedWeight.from_dense(draw((2, 9000), 0.02)), torch.randn(2, 9000)
    bias = torch.randn(2)
    split = gpu.packed_matvec(x, *packed[:4], bias)
    monkeypatch.setattr(gpu, "_WARPS", 0)
    torch.testing.assert_close(split, gpu.packed_matvec(x, *packed[:4], bias), rtol=1e-5, atol=1e-5)


@needs_triton
@pytest.mark.skipif(INTERPRETING, reason="compiles")
@pytest.mark.parametrize(("format", "batch"), [("float16", 1), ("int8", 1), ("float16", 16)])
def test_kernel_compiles_for_an_h100_as_it_is_meant_to(format, batch, monkeypatch):
    from lrnn.kernels.sparse_matvec import gpu

    monkeypatch.setattr(gpu, "_matvec", kernel := Offline(gpu._matvec))
    packed = PackedWeight.from_dense(draw((512, 2048), 0.1), format)
    gpu.packed_matvec(torch.zeros((batch, 2048), dtype=torch.float16), *packed[:4], None)
    (built,) = kernel.built
    assert built.spilled == 0
    assert built.registers <= 64  # 32 warps per multiprocessor fit
    if batch == 1:  # 8 distances in one load; 8 values of 2 bytes in one, too
        assert "ld.global.v2.b32" in built.ptx
        assert ("ld.global.v4.b32" in built.ptx) == (format == "float16") or format == "int8"
    else:  # 8 of an entry's 16 vectors in one load
        assert "ld.global.v4.b32" in built.ptx


@needs_triton
@pytest.mark.skipif(INTERPRETING, reason="this is the interpreter's process")
@pytest.mark.skipif(
    TRITON < (3, 7), reason="the interpreter of Triton < 3.7 loops over no run-time range with NumPy >= 2.4"
)
def test_under_the_interpreter():
    command = [
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
    ]
    run = subprocess.run(
        [*command, "-m", "interpret", __file__],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "13 passed" in run.stdout, run.stdout


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available() or INTERPRETING, reason="needs a CUDA device")
@pytest.mark.parametrize("case", [*CASES, ((4096, 4096), 0.1, 1, "float16", torch.float16, True)], ids=str)
def test_compiled_kernel_equals_the_reference(case):
    _agrees_with_reference(*case, device="cuda")
