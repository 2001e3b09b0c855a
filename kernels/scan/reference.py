"""The scan h[t] = a[t] * h[t-1] + b[t] as a loop over time: what every other kernel is tested against.

Shapes: b (B, T, N), a (B, T, N) or (N,), h0 (B, N), reset (B, T) bool. reset[t] cuts the edge between t-1 and
t, in both directions of travel. Half precision is accumulated in float32. The forward loop is plain torch and
differentiable.
"""

from __future__ import annotations

import torch
from torch import Tensor

_WIDE = {torch.float16: torch.float32, torch.bfloat16: torch.float32}


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """The dtype that states of this one are accumulated in: float32 for half precision, else the same."""
    return _WIDE.get(dtype, dtype)


def _coefficient(a: Tensor, acc: torch.dtype) -> Tensor:
    """`a` in the precision of `acc`; a real one stays real."""
    return a.to(acc if a.is_complex() else acc.to_real())


def _conj(x: Tensor) -> Tensor:
    """The conjugate, written out: torch 2.13 resolves no lazy one where a compiled graph calls this."""
    return torch.conj_physical(x) if x.is_complex() else x


def _order(length: int, reset: Tensor | None, reverse: bool) -> list[tuple[int, Tensor | None]]:
    """Time steps in the order of travel, each with the mask (B, 1) of sequences whose edge into it is cut."""
    if reset is None:
        cuts = [None] * (length + 1)
    else:
        cuts = [cut.unsqueeze(-1) for cut in reset.unbind(1)] + [None]
    if reverse:  # the edge into t comes from t + 1; nothing cuts the one from beyond the end
        return [(t, cuts[t + 1]) for t in reversed(range(length))]
    return [(t, cuts[t]) for t in range(length)]


def scan(
    a: Tensor, b: Tensor, h0: Tensor | None = None, reset: Tensor | None = None, reverse: bool = False
) -> tuple[Tensor, Tensor]:
    """Return h (B, T, N) in b's dtype and the last state (B, N) in the accumulator's."""
    batch, length, width = b.shape
    acc = accumulator(b.dtype)
    a = _coefficient(a, acc)
    a_t = a.unbind(1) if a.dim() == 3 else [a] * length
    b_t = b.to(acc).unbind(1)
    state = b.new_zeros((batch, width), dtype=acc) if h0 is None else h0.to(acc)
    out = [state] * length
    for t, cut in _order(length, reset, reverse):
        moved = a_t[t] * state + b_t[t]
        state = moved if cut is None else torch.where(cut, b_t[t], moved)
        out[t] = state
    h = torch.stack(out, dim=1).to(b.dtype) if length else b.new_empty(b.shape)
    return h, state.clone(memory_format=torch.contiguous_format)


def scan_backward(
    grad_h: Tensor,
    grad_last: Tensor,
    a: Tensor,
    h: Tensor,
    h0: Tensor | None = None,
    reset: Tensor | None = None,
    reverse: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of a (its shape and dtype), b (h's) and h0 (B, N) (the accumulator's).

    With g[t] the gradient of all that h[t] reaches, g[t] = grad_h[t] + conj(a[t+1]) g[t+1] where the edge
    between the two is whole; then b gets g[t] and a gets g[t] conj(h[t-1]), summed over time, then batch,
    where constant.
    """
    batch, length, width = h.shape
    acc = accumulator(h.dtype)
    wide = _coefficient(a, acc)
    constant = a.dim() == 1
    first = torch.zeros_like(grad_last, dtype=acc) if h0 is None else h0.to(acc)
    grad_a = torch.zeros(
        (batch, width) if constant else (batch, length, width), dtype=wide.dtype, device=h.device
    )
    grad_b = torch.empty_like(h, memory_format=torch.contiguous_format)
    g = grad_last.to(acc)
    steps = _order(length, reset, reverse)
    for i in reversed(range(length)):
        t, cut = steps[i]
        g = g + grad_h[:, t]
        grad_b[:, t] = g
        before = h[:, steps[i - 1][0]] if i else first
        through = g * _conj(before)
        g = g * _conj(wide if constant else wide[:, t])
        if cut is not None:
            through, g = through.masked_fill(cut, 0), g.masked_fill(cut, 0)
        through = through if wide.is_complex() else through.real if through.is_complex() else through
        if constant:
            grad_a += through
        else:
            grad_a[:, t] = through
    grad_a = grad_a.sum(0) if constant else grad_a
    return grad_a.to(a.dtype), grad_b, g.clone(memory_format=torch.contiguous_format)
