"""y = x W^T + bias for a sparse W, as a dense product: what every other kernel is tested against.

W (rows, cols) has its values in compressed rows: row r's are values[cuts[0, r]:cuts[-1, r]], each in the
column that `columns` names. Nothing else of a pattern is read here: it is there for faster kernels.
"""

from __future__ import annotations

import torch
from torch import Tensor

BLOCK = 192  # most columns between two cuts: csrc/core/spmm/spmm.h, lrnn_spmm_block


def row_of(cuts: Tensor, count: int) -> Tensor:
    """The row (count,) of each value, from cuts (blocks + 1, rows): where each row's values lie."""
    rows = torch.arange(cuts.shape[1], device=cuts.device)
    return torch.repeat_interleave(rows, cuts[-1] - cuts[0], output_size=count)


def dense(values: Tensor, columns: Tensor, cuts: Tensor, cols: int) -> Tensor:
    """W (rows, cols) with its zeros."""
    w = values.new_zeros((cuts.shape[1], cols))
    return w.index_put((row_of(cuts, len(values)), columns.long()), values)


def sparse_linear(
    x: Tensor,
    values: Tensor,
    bias: Tensor | None,
    columns: Tensor,
    cuts: Tensor,
    columns_t: Tensor,
    cuts_t: Tensor,
    order: Tensor,
) -> Tensor:
    """Return y (..., rows) for x (..., cols)."""
    return torch.nn.functional.linear(x, dense(values, columns, cuts, cuts_t.shape[1]), bias)


def sparse_linear_backward(
    grad_y: Tensor,
    x: Tensor,
    values: Tensor,
    columns: Tensor,
    cuts: Tensor,
    columns_t: Tensor,
    cuts_t: Tensor,
    order: Tensor,
    needs_x: bool,
    needs_values: bool,
) -> tuple[Tensor, Tensor]:
    """Return the gradients of x and of values; what is not needed is empty."""
    grad_x, grad_values = x.new_empty(0), values.new_empty(0)
    if needs_x:
        grad_x = grad_y @ dense(values, columns, cuts, cuts_t.shape[1])
    if needs_values:
        grad_w = grad_y.reshape(-1, grad_y.shape[-1]).T @ x.reshape(-1, x.shape[-1])
        grad_values = grad_w[row_of(cuts, len(values)), columns.long()]
    return grad_x, grad_values
