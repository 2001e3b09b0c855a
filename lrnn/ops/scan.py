"""`lrnn.scan`, the recurrence all layers stand on: h[t] = a[t] * h[t-1] + b[t].

The op is opaque to autograd, torch.compile and torch.export. CPU tensors run C++ where `_C` is built, CUDA
tensors Triton, and anything else the reference loop.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lrnn.kernels.scan import reference
from lrnn.ops.libraries import cuda_kernels, load_op_library

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128)
_DOUBLES = (torch.float64, torch.complex128)


def scan(
    a: Tensor, b: Tensor, h0: Tensor | None = None, reset: Tensor | None = None, reverse: bool = False
) -> tuple[Tensor, Tensor]:
    """Linear recurrence h[t] = a[t] * h[t-1] + b[t] along time, on any device, with gradients to a, b and h0.

    Args:
        a: (B, T, N), or (N,) where it is constant in time (never expanded). Real, or complex where b is.
        b: (B, T, N), real or complex.
        h0: (B, N), the state before the first step; None is zeros.
        reset: (B, T) bool; reset[t] cuts the edge from t-1 to t (from h0 where t = 0), so that h[t] = b[t]: a
            packed sequence starts there.
        reverse: run from T-1 down, h[t] = a[t] * h[t+1] + b[t], from h0 beyond the end; reset cuts the same
            edges.

    Returns:
        h (B, T, N) in b's dtype, and the state after the last step travelled, h_last (B, N): h[:, -1], or
        h[:, 0] in reverse, and h0 where T = 0. float16 and bfloat16 are accumulated in float32 and h_last
        stays float32, so that a sequence split anywhere, with h_last carried into the next call as h0,
        gives what the whole gives. (In reverse the edge that reset[:, 0] cuts lies beyond this call: a
        caller who carries on zeroes h_last there.)

    Raises:
        TypeError: a dtype that does not fit.
        ValueError: a shape or device that does not fit.
    """
    _check(a, b, h0, reset)
    if h0 is not None:
        h0 = h0.to(reference.accumulator(b.dtype))
    return torch.ops.lrnn.scan(a, b, h0, reset, reverse)


def _check(a: Tensor, b: Tensor, h0: Tensor | None, reset: Tensor | None) -> None:
    """Raise where the arguments of `scan` do not fit each other, naming the first that does not."""
    for name, x in (("a", a), ("b", b), ("h0", h0)):
        if x is None:
            continue
        if x.dtype not in _FLOATS:
            raise TypeError(
                f"{name}: dtype is {x.dtype}, expected a floating or complex one (not ComplexHalf)"
            )
        if x.dtype.is_complex and not b.dtype.is_complex:
            raise TypeError(f"{name}: dtype is {x.dtype} but b is real ({b.dtype}); expected a complex b")
        if x.dtype in _DOUBLES and b.dtype not in _DOUBLES:
            raise TypeError(f"{name}: dtype is {x.dtype}, expected at most the precision of b ({b.dtype})")
    if b.dim() != 3:
        raise ValueError(f"b: shape is {tuple(b.shape)}, expected (batch, time, channels)")
    batch, length, width = b.shape
    if a.dim() not in (1, 3) or a.shape != (b.shape if a.dim() == 3 else b.shape[2:]):
        raise ValueError(f"a: shape is {tuple(a.shape)}, expected {tuple(b.shape)} or ({width},) to fit b")
    if h0 is not None and (h0.dim() != 2 or h0.shape[0] != batch or h0.shape[1] != width):
        raise ValueError(f"h0: shape is {tuple(h0.shape)}, expected ({batch}, {width}) to fit b")
    if reset is not None:
        if reset.dtype != torch.bool:
            raise TypeError(f"reset: dtype is {reset.dtype}, expected torch.bool")
        if reset.dim() != 2 or reset.shape[0] != batch or reset.shape[1] != length:
            raise ValueError(f"reset: shape is {tuple(reset.shape)}, expected ({batch}, {length}) to fit b")
    for name, x in (("a", a), ("h0", h0), ("reset", reset)):
        if x is not None and x.device != b.device:
            raise ValueError(f"{name}: device is {x.device}, expected b's ({b.device})")


torch.library.define(
    "lrnn::scan",
    "(Tensor a, Tensor b, Tensor? h0, Tensor? reset, bool reverse) -> (Tensor h, Tensor h_last)",
    tags=torch.Tag.pt2_compliant_tag,
)
torch.library.define(
    "lrnn::scan_backward",
    "(Tensor grad_h, Tensor grad_last, Tensor a, Tensor h, Tensor? h0, Tensor? reset, bool reverse)"
    " -> (Tensor grad_a, Tensor grad_b, Tensor grad_h0)",
    tags=torch.Tag.pt2_compliant_tag,
)

# For every device; a kernel registered for one device goes before it.
torch.library.impl("lrnn::scan", "default", reference.scan)
torch.library.impl("lrnn::scan_backward", "default", reference.scan_backward)
load_op_library()


@torch.library.impl("lrnn::scan", "cuda")
def _(a, b, h0, reset, reverse):
    return cuda_kernels("scan").scan(a, b, h0, reset, reverse)


@torch.library.impl("lrnn::scan_backward", "cuda")
def _(grad_h, grad_last, a, h, h0, reset, reverse):
    return cuda_kernels("scan").scan_backward(grad_h, grad_last, a, h, h0, reset, reverse)


@torch.library.register_fake("lrnn::scan")
def _(a, b, h0, reset, reverse):
    batch, _, width = b.shape
    return b.new_empty(b.shape), b.new_empty((batch, width), dtype=reference.accumulator(b.dtype))


@torch.library.register_fake("lrnn::scan_backward")
def _(grad_h, grad_last, a, h, h0, reset, reverse):
    return a.new_empty(a.shape), h.new_empty(h.shape), grad_last.new_empty(grad_last.shape)


def _save(ctx, inputs, output):
    a, _, h0, reset, ctx.reverse = inputs
    ctx.save_for_backward(a, output[0], h0, reset)


def _backward(ctx, grad_h, grad_last):
    a, h, h0, reset = ctx.saved_tensors
    grad_a, grad_b, grad_h0 = torch.ops.lrnn.scan_backward(grad_h, grad_last, a, h, h0, reset, ctx.reverse)
    return grad_a, grad_b, None if h0 is None else grad_h0, None, None


def _no_double_backward(ctx, *grads):
    raise RuntimeError("lrnn.scan has no second derivative: its backward pass was itself differentiated")


torch.library.register_autograd("lrnn::scan", _backward, setup_context=_save)
torch.library.register_autograd("lrnn::scan_backward", _no_double_backward)
for _device in ("cpu", "cuda"):
    torch.library.register_autocast("lrnn::scan", _device, torch.float32)
    torch.library.register_autocast("lrnn::scan_backward", _device, torch.float32)
