"""`lrnn.ops.packed_matvec`, a packed sparse matrix times 1 to 16 vectors: one step of a few streams on a GPU.

For inference: the op has no gradient (`lrnn.sparse_linear` has). CUDA tensors run Triton; anything else the
reference, which unpacks the whole matrix each time and is there for tests (on a CPU a stream's engine is the
fast way).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lrnn.kernels.sparse_matvec import reference
from lrnn.ops.libraries import cuda_kernels

MAX_BATCH = 16
_FLOATS = (torch.float16, torch.bfloat16, torch.float32)


class PackedWeight(NamedTuple):
    """A sparse matrix (rows, cols) in the format of lrnn.kernels.sparse_matvec.reference; see there.

    Attributes:
        values: (entries,) float16, bfloat16 or int8.
        deltas: (entries,) uint8.
        starts: (rows * segments + 1,) int32.
        scales: (rows,) float32.
        cols: columns of the matrix.
        nonzeros: how many entries are nonzero once rounded; the other entries fill up.
    """

    values: Tensor
    deltas: Tensor
    starts: Tensor
    scales: Tensor
    cols: int
    nonzeros: int

    @classmethod
    def from_dense(cls, weight: Tensor, format: str = "float16") -> PackedWeight:
        """Pack what is not zero.

        Args:
            weight: (rows, cols) floating point, on the device on which it will be used.
            format: "float16", "bfloat16", or "int8" with a power-of-two scale per row.

        Raises:
            TypeError: the weight is not floating point.
            ValueError: an unknown format, another shape, NaN or infinity, or values above float16's range.
        """
        if format not in reference.FORMATS:
            raise ValueError(f"format is {format!r}, expected one of {', '.join(reference.FORMATS)}")
        if not weight.is_floating_point():
            raise TypeError(f"weight: dtype is {weight.dtype}, expected a floating-point one")
        if weight.dim() != 2:
            raise ValueError(f"weight: shape is {tuple(weight.shape)}, expected (rows, cols)")
        if not bool(weight.isfinite().all()):
            raise ValueError("weight has NaN or infinite values, expected finite ones")
        values, deltas, starts, scales = reference.pack(weight.detach(), format)
        if not bool(values.isfinite().all()):
            largest = float(weight.abs().max())
            raise ValueError(f"weight: largest magnitude is {largest:g}, expected what {format} can hold")
        return cls(values, deltas, starts, scales, weight.shape[1], int(values.count_nonzero()))

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, cols), as of a linear layer's weight."""
        return len(self.scales), self.cols

    @property
    def nbytes(self) -> int:
        """Bytes of all four tensors, filled-up entries included."""
        return sum(t.nbytes for t in self[:4])

    def to_dense(self) -> Tensor:
        """The matrix as it is multiplied, (rows, cols) float32."""
        return reference.unpack(*self[:4], self.cols)


def packed_matvec(x: Tensor, weight: PackedWeight, bias: Tensor | None = None) -> Tensor:
    """y = x W^T + bias for 1 to 16 vectors, without gradients.

    Entries that fill up are multiplied too, with a zero: a NaN or infinity in x may reach any output.

    Args:
        x: (batch, cols) float16, bfloat16 or float32.
        weight: matrix (rows, cols).
        bias: (rows,) floating point, or None.

    Returns:
        y (batch, rows) in x's dtype. Sums are in float32 and in a fixed order.

    Raises:
        TypeError: a dtype that does not fit.
        ValueError: a shape or device that does not fit.
    """
    _check(x, weight, bias)
    return torch.ops.lrnn.packed_matvec(x, *weight[:4], bias)


def _check(x: Tensor, weight: PackedWeight, bias: Tensor | None) -> None:
    """Raise where the arguments of `packed_matvec` do not fit each other, naming the first that does not."""
    if not isinstance(weight, PackedWeight):
        raise TypeError(f"weight: found {type(weight).__name__}, expected a PackedWeight")
    rows, cols = weight.shape
    if x.dtype not in _FLOATS:
        raise TypeError(f"x: dtype is {x.dtype}, expected float16, bfloat16 or float32")
    if x.dim() != 2 or x.shape[1] != cols or x.shape[0] > MAX_BATCH:
        raise ValueError(
            f"x: shape is {tuple(x.shape)}, expected (batch <= {MAX_BATCH}, {cols}) to fit weight"
        )
    if bias is not None and (bias.shape != (rows,) or not bias.is_floating_point()):
        found = f"{bias.dtype} of shape {tuple(bias.shape)}"
        raise ValueError(f"bias: found {found}, expected floating point ({rows},) to fit weight")
    for name, tensor in (("x", x), ("bias", bias)):
        if tensor is not None and tensor.device != weight.values.device:
            raise ValueError(f"{name}: device is {tensor.device}, expected weight's ({weight.values.device})")


torch.library.define(
    "lrnn::packed_matvec",
    "(Tensor x, Tensor values, Tensor deltas, Tensor starts, Tensor scales, Tensor? bias) -> Tensor",
    tags=torch.Tag.pt2_compliant_tag,
)
# For every device; a kernel registered for one device goes before it.
torch.library.impl("lrnn::packed_matvec", "default", reference.packed_matvec)


@torch.library.impl("lrnn::packed_matvec", "cuda")
def _(x, values, deltas, starts, scales, bias):
    return cuda_kernels("sparse_matvec").packed_matvec(x, values, deltas, starts, scales, bias)


@torch.library.register_fake("lrnn::packed_matvec")
def _(x, values, deltas, starts, scales, bias):
    return x.new_empty((x.shape[0], scales.shape[0]))


def _no_gradient(ctx, grad_y):
    raise RuntimeError("lrnn.ops.packed_matvec has no gradient; train with lrnn.sparse_linear")


torch.library.register_autograd("lrnn::packed_matvec", _no_gradient)
