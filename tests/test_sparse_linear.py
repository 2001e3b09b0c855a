"""lrnn.sparse_linear: the dense masked product on every ISA, with its gradients; the same to the bit."""

from __future__ import annotations

import pytest
import torch
from isas import Library
from torch.nn.functional import linear

from lrnn.ops import SparsePattern, SparseWeight, sparse_linear
from lrnn.ops.libraries import load_op_library

F32, F64 = torch.float32, torch.float64
TOLERANCE = {F32: {"rtol": 1e-4, "atol": 2e-4}, F64: {"rtol": 1e-11, "atol": 1e-11}}
SHAPES = [(1, 1), (5, 7), (0, 4), (4, 0), (33, 200), (200, 401), (70, 33)]
LEADING = [(0,), (), (1,), (3,), (7,), (16,), (63,), (64,), (2, 65), (300,)]


LIBRARY = Library(load_op_library()[0])


@pytest.fixture(params=LIBRARY.isas)
def isa(request):
    with LIBRARY.running(request.param):
        yield request.param


def make(rows, cols, density, dtype=F32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, cols, dtype=dtype, generator=generator)
    mask = torch.rand(rows, cols, generator=generator) < density
    w = SparseWeight.from_dense(weight, mask)
    return SparseWeight(w.values.requires_grad_(), w.pattern), weight * mask


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("density", [0.0, 0.1, 1.0])
def test_equals_the_dense_masked_product_with_its_gradients(isa, dtype, shape, density):
    w, dense = make(*shape, density, dtype)
    assert torch.equal(w.to_dense(), dense)
    for leading in LEADING:
        x = torch.randn(*leading, shape[1], dtype=dtype, requires_grad=True)
        bias = torch.randn(shape[0], dtype=dtype, requires_grad=True)
        y, want = sparse_linear(x, w, bias), linear(x, w.to_dense(), bias)
        g = torch.randn_like(want)
        leaves = (x, w.values, bias)
        torch.testing.assert_close(y, want, **TOLERANCE[dtype])
        for found, expected in zip(
            torch.autograd.grad(y, leaves, g), torch.autograd.grad(want, leaves, g), strict=True
        ):
            torch.testing.assert_close(found, expected, **TOLERANCE[dtype])


def test_columns_beyond_16_bits(isa):
    w, dense = make(3, 40_000, 0.01)
    assert w.pattern.columns.dtype == torch.int32
    x = torch.randn(70, 40_000)
    torch.testing.assert_close(sparse_linear(x, w), linear(x, dense), **TOLERANCE[F32])


def test_a_step_depends_on_itself_alone_to_the_bit(isa):
    w, _ = make(50, 410, 0.2)
    x, bias = torch.randn(300, 410), torch.randn(50)
    whole = sparse_linear(x, w, bias)
    for cut in (1, 2, 15, 64, 299):
        parts = torch.cat([sparse_linear(x[:cut], w, bias), sparse_linear(x[cut:], w, bias)])
        assert torch.equal(parts, whole)


def test_results_do_not_depend_on_the_number_of_threads(isa):
    w, _ = make(130, 210, 0.3)
    x, g = torch.randn(1500, 210, requires_grad=True), torch.randn(1500, 130)
    bias = torch.randn(130, requires_grad=True)
    results, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2, 3, 5):
            torch.set_num_threads(threads)
            y = sparse_linear(x, w, bias)
            results.append((y, *torch.autograd.grad(y, (x, w.values, bias), g)))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_strided_inputs():
    w, dense = make(20, 30, 0.3)
    x = torch.randn(30, 70).T
    spread = torch.stack([w.values.detach()] * 2, dim=1)[:, 0]
    assert not x.is_contiguous()
    assert not spread.is_contiguous()
    found = sparse_linear(x, SparseWeight(spread, w.pattern))
    torch.testing.assert_close(found, linear(x, dense), **TOLERANCE[F32])


def test_derivatives_and_registration():
    w, _ = make(6, 300, 0.1, F64)
    x = torch.randn(2, 3, 300, dtype=F64, requires_grad=True)
    bias = torch.randn(6, dtype=F64, requires_grad=True)

    def call(x, values, bias):
        return sparse_linear(x, SparseWeight(values, w.pattern), bias)

    assert torch.autograd.gradcheck(call, (x, w.values, bias))
    assert torch.autograd.gradgradcheck(call, (x, w.values, bias))
    ops = torch.ops.lrnn
    torch.library.opcheck(ops.sparse_linear.default, (x, w.values, bias, *w.pattern))
    grad = torch.randn(2, 3, 6, dtype=F64, requires_grad=True)
    torch.library.opcheck(ops.sparse_linear_backward.default, (grad, x, w.values, *w.pattern, True, True))


def test_compiles_as_one_graph_and_runs_in_float32_under_autocast():
    w, dense = make(20, 30, 0.3)
    x = torch.randn(70, 30)
    compiled = torch.compile(sparse_linear, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x, w), sparse_linear(x, w))
    with torch.autocast("cpu", torch.bfloat16):
        y = sparse_linear(x.bfloat16(), w)
    assert y.dtype == F32
    torch.testing.assert_close(y, linear(x.bfloat16().float(), dense), **TOLERANCE[F32])


def test_pattern_from_compressed_rows_is_that_of_the_mask():
    mask = torch.rand(40, 500) < 0.2
    pattern = SparsePattern.from_mask(mask)
    again = SparsePattern.from_indices(pattern.starts(), pattern.columns, (40, 500))
    assert all(torch.equal(a, b) for a, b in zip(pattern, again, strict=True))


@pytest.mark.parametrize(
    ("starts", "columns", "message"),
    [
        ([0, 1, 2], [0, 3], "columns: found 0 to 3, expected 0 to 2"),
        ([0, 1, 2], [-1, 2], "columns: found -1 to 2"),
        ([0, 2, 2], [1, 1], "columns: those of row 0 do not rise"),
        ([0, 2, 1], [0, 1], "starts: run from 0 to 1, expected 0 to 2"),
        ([0, 3, 2], [0, 1], "starts: some fall"),
        ([0, 2], [0, 1], "starts: found 2 of them, expected 3 for 2 rows"),
    ],
)
def test_indices_out_of_order_or_range_are_refused(starts, columns, message):
    with pytest.raises(ValueError, match=message):
        SparsePattern.from_indices(torch.tensor(starts), torch.tensor(columns), (2, 3))


def test_errors_name_the_argument():
    w, _ = make(4, 6, 0.5)
    with pytest.raises(ValueError, match=r"x: shape is \(2, 5\), expected \(\.\.\., 6\)"):
        sparse_linear(torch.ones(2, 5), w)
    with pytest.raises(TypeError, match=r"x: dtype is torch.float64, expected that of w"):
        sparse_linear(torch.ones(2, 6, dtype=F64), w)
    with pytest.raises(ValueError, match=r"bias: shape is \(6,\), expected \(4,\)"):
        sparse_linear(torch.ones(2, 6), w, torch.ones(6))
    with pytest.raises(TypeError, match="w: found Tensor"):
        sparse_linear(torch.ones(2, 6), torch.ones(4, 6))
