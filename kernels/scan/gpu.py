"""The scan on a GPU, in Triton: one program walks time for a block of channels of one sequence.

Same functions as `reference`. Complex arrays are read as (re, im) pairs of real ones; everything is widened
right after its load (the interpreter computes wrongly in bfloat16) and narrowed at its store. One
configuration, plain loads and stores: nothing to tune, and nothing that only newer versions of Triton know.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from lrnn.kernels.scan.reference import accumulator
from torch import Tensor

_BLOCK = 32  # channels of a program: one warp, since a sequence has few channels and a GPU many processors


@triton.jit
def _load(pointer, index, mask, COMPLEX: tl.constexpr, ACC: tl.constexpr):
    """Numbers at these indices as a (real, imaginary) pair of ACC; 0 where masked."""
    if COMPLEX:
        real = tl.load(pointer + 2 * index, mask=mask, other=0.0).to(ACC)
        imaginary = tl.load(pointer + 2 * index + 1, mask=mask, other=0.0).to(ACC)
    else:
        real = tl.load(pointer + index, mask=mask, other=0.0).to(ACC)
        imaginary = tl.zeros_like(real)
    return real, imaginary


@triton.jit
def _store(pointer, index, real, imaginary, mask, COMPLEX: tl.constexpr):
    """The opposite of `_load`, rounded to the array's dtype."""
    if COMPLEX:
        tl.store(pointer + 2 * index, real.to(pointer.dtype.element_ty), mask=mask)
        tl.store(pointer + 2 * index + 1, imaginary.to(pointer.dtype.element_ty), mask=mask)
    else:
        tl.store(pointer + index, real.to(pointer.dtype.element_ty), mask=mask)


@triton.jit
def _product(a_real, a_imaginary, real, imaginary, A_COMPLEX: tl.constexpr):
    """a x. A real `a` keeps the parts of x apart, so that an infinite one does not become NaN."""
    if A_COMPLEX:
        return a_real * real - a_imaginary * imaginary, a_real * imaginary + a_imaginary * real
    return a_real * real, a_real * imaginary


@triton.jit
def _is_cut(reset, item, t, length, REVERSE: tl.constexpr):
    """Whether the edge by which step t is entered is cut."""
    if REVERSE:
        return tl.load(reset + item * length + t + 1, mask=t + 1 < length, other=0) != 0
    return tl.load(reset + item * length + t) != 0


@triton.jit
def _forward(
    a,
    b,
    h0,
    reset,
    h,
    h_last,
    length,
    width,
    A_CONSTANT: tl.constexpr,
    A_COMPLEX: tl.constexpr,
    COMPLEX: tl.constexpr,
    HAS_H0: tl.constexpr,
    HAS_RESET: tl.constexpr,
    REVERSE: tl.constexpr,
    ACC: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """h and h_last of one sequence's block of channels."""
    blocks = tl.cdiv(width, BLOCK)
    item = (tl.program_id(0) // blocks).to(tl.int64)
    channel = (tl.program_id(0) % blocks) * BLOCK + tl.arange(0, BLOCK)
    mask = channel < width
    real = tl.zeros((BLOCK,), ACC)
    imaginary = tl.zeros((BLOCK,), ACC)
    if HAS_H0:
        real, imaginary = _load(h0, item * width + channel, mask, COMPLEX, ACC)
    if A_CONSTANT:
        a_real, a_imaginary = _load(a, channel, mask, A_COMPLEX, ACC)
    for i in range(0, length):
        t = length - 1 - i if REVERSE else i
        index = (item * length + t) * width + channel
        b_real, b_imaginary = _load(b, index, mask, COMPLEX, ACC)
        if not A_CONSTANT:
            a_real, a_imaginary = _load(a, index, mask, A_COMPLEX, ACC)
        next_real, next_imaginary = _product(a_real, a_imaginary, real, imaginary, A_COMPLEX)
        next_real += b_real
        next_imaginary += b_imaginary
        if HAS_RESET:
            cut = _is_cut(reset, item, t, length, REVERSE)
            next_real = tl.where(cut, b_real, next_real)
            next_imaginary = tl.where(cut, b_imaginary, next_imaginary)
        real = next_real
        imaginary = next_imaginary
        _store(h, index, real, imaginary, mask, COMPLEX)
    _store(h_last, item * width + channel, real, imaginary, mask, COMPLEX)


@triton.jit
def _backward(
    grad_h,
    grad_last,
    a,
    h,
    h0,
    reset,
    grad_a,
    grad_b,
    grad_h0,
    length,
    width,
    A_CONSTANT: tl.constexpr,
    A_COMPLEX: tl.constexpr,
    COMPLEX: tl.constexpr,
    HAS_H0: tl.constexpr,
    HAS_RESET: tl.constexpr,
    REVERSE: tl.constexpr,
    ACC: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Gradients of one sequence's block of channels; grad_a is (batch, channels) where `a` is constant."""
    blocks = tl.cdiv(width, BLOCK)
    item = (tl.program_id(0) // blocks).to(tl.int64)
    channel = (tl.program_id(0) % blocks) * BLOCK + tl.arange(0, BLOCK)
    mask = channel < width
    real, imaginary = _load(grad_last, item * width + channel, mask, COMPLEX, ACC)
    first_real = tl.zeros((BLOCK,), ACC)
    first_imaginary = tl.zeros((BLOCK,), ACC)
    if HAS_H0:
        first_real, first_imaginary = _load(h0, item * width + channel, mask, COMPLEX, ACC)
    if A_CONSTANT:
        a_real, a_imaginary = _load(a, channel, mask, A_COMPLEX, ACC)
        sum_real = tl.zeros((BLOCK,), ACC)
        sum_imaginary = tl.zeros((BLOCK,), ACC)
    for i in range(0, length):
        t = i if REVERSE else length - 1 - i
        before = t + 1 if REVERSE else t - 1
        is_first = i == length - 1  # in the order of travel; there h0 comes before
        index = (item * length + t) * width + channel
        g_real, g_imaginary = _load(grad_h, index, mask, COMPLEX, ACC)
        real += g_real
        imaginary += g_imaginary
        _store(grad_b, index, real, imaginary, mask, COMPLEX)
        index_before = (item * length + tl.where(is_first, t, before)) * width + channel
        h_real, h_imaginary = _load(h, index_before, mask, COMPLEX, ACC)
        h_real = tl.where(is_first, first_real, h_real)
        h_imaginary = tl.where(is_first, first_imaginary, h_imaginary)
        to_a_real, to_a_imaginary = _product(h_real, -h_imaginary, real, imaginary, COMPLEX)
        if not A_CONSTANT:
            a_real, a_imaginary = _load(a, index, mask, A_COMPLEX, ACC)
        next_real, next_imaginary = _product(a_real, -a_imaginary, real, imaginary, A_COMPLEX)
        if HAS_RESET:
            cut = _is_cut(reset, item, t, length, REVERSE)
            to_a_real = tl.where(cut, 0.0, to_a_real)
            to_a_imaginary = tl.where(cut, 0.0, to_a_imaginary)
            next_real = tl.where(cut, 0.0, next_real)
            next_imaginary = tl.where(cut, 0.0, next_imaginary)
        real = next_real
        imaginary = next_imaginary
        if A_CONSTANT:
            sum_real += to_a_real
            sum_imaginary += to_a_imaginary
        else:
            _store(grad_a, index, to_a_real, to_a_imaginary, mask, A_COMPLEX)
    _store(grad_h0, item * width + channel, real, imaginary, mask, COMPLEX)
    if A_CONSTANT:
        _store(grad_a, item * width + channel, sum_real, sum_imaginary, mask, A_COMPLEX)


def scan(
    a: Tensor, b: Tensor, h0: Tensor | None = None, reset: Tensor | None = None, reverse: bool = False
) -> tuple[Tensor, Tensor]:
    """See `reference.scan`."""
    h = b.new_empty(b.shape)
    h_last = b.new_empty((b.shape[0], b.shape[2]), dtype=accumulator(b.dtype))
    _launch(_forward, (a, b, h0, reset, h, h_last), a, h, h0, reset, reverse)
    return h, h_last


def scan_backward(
    grad_h: Tensor,
    grad_last: Tensor,
    a: Tensor,
    h: Tensor,
    h0: Tensor | None = None,
    reset: Tensor | None = None,
    reverse: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """See `reference.scan_backward`."""
    grad_b = h.new_empty(h.shape)
    grad_h0 = h.new_empty(grad_last.shape, dtype=accumulator(h.dtype))
    # For a constant `a` each sequence's sum over time, added up below.
    grad_a = (
        a.new_empty(grad_last.shape, dtype=accumulator(a.dtype)) if a.dim() == 1 else a.new_empty(a.shape)
    )
    arrays = (grad_h, grad_last, a, h, h0, reset, grad_a, grad_b, grad_h0)
    _launch(_backward, arrays, a, h, h0, reset, reverse)
    return grad_a.sum(0).to(a.dtype) if a.dim() == 1 else grad_a, grad_b, grad_h0


def _launch(
    kernel,
    arrays: tuple[Tensor | None, ...],
    a: Tensor,
    h: Tensor,
    h0: Tensor | None,
    reset: Tensor | None,
    reverse: bool,
) -> None:
    """Run `kernel` over all sequences and blocks of channels of h."""
    batch, length, width = h.shape
    programs = batch * triton.cdiv(width, _BLOCK)
    if programs == 0:
        return
    with torch.cuda.device_of(h):
        kernel[(programs,)](
            *(None if x is None else _plain(x) for x in arrays),
            length,
            width,
            A_CONSTANT=a.dim() == 1,
            A_COMPLEX=a.is_complex(),
            COMPLEX=h.is_complex(),
            HAS_H0=h0 is not None,
            HAS_RESET=reset is not None,
            REVERSE=reverse,
            ACC=tl.float64 if h.dtype in (torch.float64, torch.complex128) else tl.float32,
            BLOCK=_BLOCK,
            num_warps=1,
        )


def _plain(x: Tensor) -> Tensor:
    """x dense, in a dtype that Triton knows: complex as pairs, bool as bytes."""
    x = x.resolve_conj().resolve_neg().contiguous()
    if x.is_complex():
        return torch.view_as_real(x)
    return x.view(torch.uint8) if x.dtype == torch.bool else x
