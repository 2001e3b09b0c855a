"""`lrnn.sparse_linear`, a linear layer whose weight has zeros: y = x W^T + bias over any number of steps.

The op is opaque to autograd, torch.compile and torch.export, and twice differentiable. CPU tensors run C++
where `_C` is built; anything else runs the reference, a dense product with the zeros written out.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lrnn.kernels.sparse_linear import reference
from lrnn.ops.libraries import load_op_library

_FLOATS = (torch.float32, torch.float64)
_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


class SparsePattern(NamedTuple):
    """Where a matrix (rows, cols) has values; built once by `from_mask` or `from_indices`, then left alone.

    Attributes:
        columns: (nonzeros,) of every value, row after row, rising within a row; int16, or int32 where cols
            is above 32768.
        cuts: (blocks + 1, rows) int32: row r's values in block b of columns are [cuts[b, r], cuts[b + 1, r]).
            Blocks are of equal width, as few as hold at most 192 columns each.
        columns_t: `columns` of the transposed matrix.
        cuts_t: `cuts` of the transposed matrix.
        order: (nonzeros,) int32: the transposed matrix's values are values[order].
    """

    columns: Tensor
    cuts: Tensor
    columns_t: Tensor
    cuts_t: Tensor
    order: Tensor

    @classmethod
    def from_mask(cls, mask: Tensor) -> SparsePattern:
        """The pattern of the True entries of mask (rows, cols)."""
        if mask.dim() != 2 or mask.dtype != torch.bool:
            raise ValueError(
                f"mask: found {mask.dtype} of shape {tuple(mask.shape)}, expected bool (rows, cols)"
            )
        row, column = mask.nonzero(as_tuple=True)
        rows, columns = mask.shape
        return cls._from_sorted(row, column, (rows, columns))

    @classmethod
    def from_indices(cls, starts: Tensor, columns: Tensor, shape: tuple[int, int]) -> SparsePattern:
        """The pattern of compressed rows.

        Args:
            starts: (rows + 1,) integers: row r's columns are columns[starts[r]:starts[r + 1]].
            columns: (nonzeros,) integers, rising within a row.
            shape: (rows, cols).

        Raises:
            ValueError: the indices do not make such a matrix.
        """
        rows, cols = shape
        _check_indices(starts, columns, rows, cols)
        counts = starts.long().diff()
        row = torch.repeat_interleave(torch.arange(rows, device=starts.device), counts)
        column = columns.long()
        rising = (column.diff() > 0) | (row.diff() > 0)
        if not bool(rising.all()):
            at = int(row[1:][~rising][0])
            raise ValueError(f"columns: those of row {at} do not rise, expected each once and in order")
        return cls._from_sorted(row, column, shape)

    @classmethod
    def _from_sorted(cls, row: Tensor, column: Tensor, shape: tuple[int, int]) -> SparsePattern:
        rows, cols = shape
        if len(row) >= 2**31:
            raise ValueError(f"found {len(row)} nonzeros, expected fewer than 2^31")
        order = torch.argsort(column * rows + row)
        return cls(
            columns=column.to(_index_dtype(cols)),
            cuts=_cuts(row, column, rows, cols),
            columns_t=row[order].to(_index_dtype(rows)),
            cuts_t=_cuts(column[order], row[order], cols, rows),
            order=order.int(),
        )

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, cols): as of a linear layer's weight, (out_features, in_features)."""
        return self.cuts.shape[1], self.cuts_t.shape[1]

    @property
    def nonzeros(self) -> int:
        """How many values the matrix has."""
        return self.columns.shape[0]

    @property
    def density(self) -> float:
        """Share of entries that have a value; 0 for a matrix without entries."""
        return self.nonzeros / max(1, self.shape[0] * self.shape[1])

    def starts(self) -> Tensor:
        """(rows + 1,) int32: where each row's values start, and their end."""
        return torch.cat([self.cuts[0], self.cuts.new_tensor([self.nonzeros])])

    def rows(self) -> Tensor:
        """(nonzeros,): the row of every value."""
        return reference.row_of(self.cuts, self.nonzeros)


class SparseWeight(NamedTuple):
    """A sparse matrix (rows, cols): its pattern, and its values (nonzeros,), which have gradients."""

    values: Tensor
    pattern: SparsePattern

    @classmethod
    def from_dense(cls, weight: Tensor, mask: Tensor | None = None) -> SparseWeight:
        """The entries of weight (rows, cols) that mask keeps; None keeps what is not zero."""
        if weight.dim() != 2:
            raise ValueError(f"weight: shape is {tuple(weight.shape)}, expected (rows, cols)")
        if mask is not None and mask.shape != weight.shape:
            raise ValueError(f"mask: shape is {tuple(mask.shape)}, expected weight's {tuple(weight.shape)}")
        mask = weight.detach() != 0 if mask is None else mask
        pattern = SparsePattern.from_mask(mask)
        return cls(weight[mask], pattern)

    def to_dense(self) -> Tensor:
        """The matrix with its zeros, differentiable."""
        pattern = self.pattern
        return reference.dense(self.values, pattern.columns, pattern.cuts, pattern.shape[1])


def sparse_linear(x: Tensor, w: SparseWeight, bias: Tensor | None = None) -> Tensor:
    """y = x W^T + bias, with gradients to x, to the values of W and to bias; `F.linear` without the zeros.

    Products with entries outside the pattern are left out: a NaN or infinity in x reaches only the outputs
    that have a weight for it (the reference, on other devices, multiplies it with the zeros too).

    Args:
        x: (..., cols) float32 or float64, any number of leading axes.
        w: matrix (rows, cols).
        bias: (rows,) or None.

    Returns:
        y (..., rows). Sums are in a fixed order: no result or gradient depends on the number of threads, and
        with the compiled library a step's result depends, to the bit, on that step alone.

    Raises:
        TypeError: a dtype that does not fit.
        ValueError: a shape or device that does not fit.
    """
    _check(x, w, bias)
    return torch.ops.lrnn.sparse_linear(x, w.values, bias, *w.pattern)


def _check(x: Tensor, w: SparseWeight, bias: Tensor | None) -> None:
    """Raise where the arguments of `sparse_linear` do not fit each other, naming the first that does not."""
    if not isinstance(w, SparseWeight):
        raise TypeError(f"w: found {type(w).__name__}, expected an lrnn.SparseWeight")
    values, pattern = w
    rows, cols = pattern.shape
    if values.dtype not in _FLOATS:
        raise TypeError(f"w: values are {values.dtype}, expected float32 or float64")
    if values.dim() != 1 or values.shape[0] != pattern.nonzeros:
        raise ValueError(f"w: values have shape {tuple(values.shape)}, expected ({pattern.nonzeros},)")
    if x.dim() < 1 or x.shape[-1] != cols:
        raise ValueError(f"x: shape is {tuple(x.shape)}, expected (..., {cols}) to fit w")
    if bias is not None and (bias.dim() != 1 or bias.shape[0] != rows):
        raise ValueError(f"bias: shape is {tuple(bias.shape)}, expected ({rows},) to fit w")
    for name, tensor in (("x", x), ("bias", bias)):
        if tensor is None:
            continue
        if tensor.device != values.device:
            raise ValueError(f"{name}: device is {tensor.device}, expected that of w ({values.device})")
        if tensor.dtype != values.dtype and not torch.is_autocast_enabled(values.device.type):
            raise TypeError(f"{name}: dtype is {tensor.dtype}, expected that of w ({values.dtype})")


def _check_indices(starts: Tensor, columns: Tensor, rows: int, cols: int) -> None:
    """Raise ValueError where starts and columns are out of range."""
    for name, tensor in (("starts", starts), ("columns", columns)):
        if tensor.dim() != 1 or tensor.dtype not in _INTEGERS:
            raise ValueError(
                f"{name}: found {tensor.dtype} of shape {tuple(tensor.shape)}, expected integers (n,)"
            )
    if rows < 0 or cols < 0 or len(starts) != rows + 1:
        raise ValueError(f"starts: found {len(starts)} of them, expected {rows + 1} for {rows} rows")
    if int(starts[0]) != 0 or int(starts[-1]) != len(columns):
        raise ValueError(
            f"starts: run from {int(starts[0])} to {int(starts[-1])}, expected 0 to {len(columns)} columns"
        )
    if bool((starts.long().diff() < 0).any()):
        raise ValueError("starts: some fall, expected them in order")
    if len(columns) and not (int(columns.min()) >= 0 and int(columns.max()) < cols):
        raise ValueError(
            f"columns: found {int(columns.min())} to {int(columns.max())}, expected 0 to {cols - 1}"
        )


def _index_dtype(size: int) -> torch.dtype:
    return torch.int16 if size <= 2**15 else torch.int32


def _cuts(row: Tensor, column: Tensor, rows: int, cols: int) -> Tensor:
    """`SparsePattern.cuts`, from the row and column of every value."""
    blocks = -(-cols // reference.BLOCK)
    width = -(-cols // max(1, blocks))
    counts = torch.zeros((rows, blocks), dtype=torch.long, device=row.device)
    counts.view(-1).index_add_(0, row * blocks + column // max(1, width), torch.ones_like(row))
    ends = counts.view(-1).cumsum(0).view(rows, blocks)
    first = (ends - counts)[:, :1] if blocks else counts.new_zeros((rows, 1))
    return torch.cat([first, ends], dim=1).T.contiguous().int()


_PATTERN = "Tensor columns, Tensor cuts, Tensor columns_t, Tensor cuts_t, Tensor order"
torch.library.define(
    "lrnn::sparse_linear",
    f"(Tensor x, Tensor values, Tensor? bias, {_PATTERN}) -> Tensor",
    tags=torch.Tag.pt2_compliant_tag,
)
torch.library.define(
    "lrnn::sparse_linear_backward",
    f"(Tensor grad_y, Tensor x, Tensor values, {_PATTERN}, bool needs_x, bool needs_values)"
    " -> (Tensor grad_x, Tensor grad_values)",
    tags=torch.Tag.pt2_compliant_tag,
)

# For every device; a kernel registered for one device goes before it.
torch.library.impl("lrnn::sparse_linear", "default", reference.sparse_linear)
torch.library.impl("lrnn::sparse_linear_backward", "default", reference.sparse_linear_backward)
load_op_library()


@torch.library.register_fake("lrnn::sparse_linear")
def _(x, values, bias, columns, cuts, columns_t, cuts_t, order):
    return x.new_empty((*x.shape[:-1], cuts.shape[1]))


@torch.library.register_fake("lrnn::sparse_linear_backward")
def _(grad_y, x, values, columns, cuts, columns_t, cuts_t, order, needs_x, needs_values):
    return x.new_empty(x.shape if needs_x else (0,)), values.new_empty(values.shape if needs_values else (0,))


class _SparseLinear(torch.autograd.Function):
    """What `register_autograd` would make of the op, without the 20 us that its general way costs a call."""

    @staticmethod
    def forward(ctx, keyset, x, values, bias, *pattern):
        ctx.save_for_backward(x, values, *pattern)
        return _below_autograd(keyset, x, values, bias, *pattern)

    @staticmethod
    def backward(ctx, grad_y):
        x, values, *pattern = ctx.saved_tensors
        _, needs_x, needs_values, needs_bias, *_ = ctx.needs_input_grad
        grad_x = grad_values = grad_bias = None
        if needs_x or needs_values:
            grad_x, grad_values = torch.ops.lrnn.sparse_linear_backward(
                grad_y, x, values, *pattern, needs_x, needs_values
            )
        if needs_bias:
            grad_bias = grad_y.sum_to_size(grad_y.shape[-1:])
        grads = grad_x if needs_x else None, grad_values if needs_values else None, grad_bias
        return None, *grads, *[None] * len(pattern)


def _below_autograd(keyset, *args):
    with torch._C._AutoDispatchBelowAutograd():
        after = keyset & torch._C._after_autograd_keyset
        return torch.ops.lrnn.sparse_linear.default.redispatch(after, *args)


def _autograd(keyset, x, values, bias, *pattern):
    if torch.is_grad_enabled() and (
        x.requires_grad or values.requires_grad or (bias is not None and bias.requires_grad)
    ):
        return _SparseLinear.apply(keyset, x, values, bias, *pattern)
    return _below_autograd(keyset, x, values, bias, *pattern)


def _save_backward(ctx, inputs, output):
    grad_y, x, values, *pattern, ctx.needs_x, ctx.needs_values = inputs
    ctx.save_for_backward(grad_y, x, values, *pattern)


def _backward_backward(ctx, grad_grad_x, grad_grad_values):
    """grad_x is linear in grad_y and values, grad_values in grad_y and x: the same products once more."""
    grad_y, x, values, *pattern = ctx.saved_tensors
    linear = torch.ops.lrnn.sparse_linear
    u = grad_grad_x if ctx.needs_x else torch.zeros_like(x)
    v = grad_grad_values if ctx.needs_values else torch.zeros_like(values)
    grad_grad_y = linear(u, values, None, *pattern) + linear(x, v, None, *pattern)
    to_x, to_values = torch.ops.lrnn.sparse_linear_backward(grad_y, u, v, *pattern, True, True)
    return grad_grad_y, to_x, to_values, *[None] * 7


_library = torch.library.Library("lrnn", "FRAGMENT")  # lives as long as the process
_library.impl("sparse_linear", _autograd, "Autograd", with_keyset=True)
torch.library.register_autograd(
    "lrnn::sparse_linear_backward", _backward_backward, setup_context=_save_backward
)
for _device in ("cpu", "cuda"):
    torch.library.register_autocast("lrnn::sparse_linear", _device, torch.float32)
    torch.library.register_autocast("lrnn::sparse_linear_backward", _device, torch.float32)
