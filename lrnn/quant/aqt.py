"""The paper's quantised operators (AQT: dynamic scales, gradients quantised too), for parity with its code.

Scales are floats made from the very numbers they scale, of a whole sequence or of one frame: such a network
is not causal, or needs a division per frame. lrnn trains with static powers of two instead, see
lrnn.quant.prepare.
"""

from __future__ import annotations

import torch
from torch import Tensor


def quantize(x: Tensor, bits: int, axes: int = -1) -> Tensor:
    """x rounded to 2 ** bits - 1 steps of its own range: scale = max |x| / (2 ** (bits - 1) - 0.5).

    Args:
        x: floating point.
        bits: width with the sign.
        axes: how many of the last axes share a scale; -1 is all.
    """
    shared = tuple(range(-(x.ndim if axes == -1 else axes), 0))
    peak = x.abs().amax(shared, keepdim=True) if shared else x.abs()
    scale = torch.where(peak == 0, 1.0, peak / (2 ** (bits - 1) - 0.5))
    most = 2 ** (bits - 1) - 1
    return (x / scale).clamp(-most, most).round() * scale


class _Dot(torch.autograd.Function):
    @staticmethod
    def forward(ctx, a: Tensor, u: Tensor, a_bits: int, u_bits: int) -> Tensor:
        a, u = quantize(a, a_bits), quantize(u, u_bits)
        ctx.save_for_backward(a, u)
        ctx.bits = max(a_bits, u_bits)
        return a @ u

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        a, u = (quantize(x, ctx.bits) for x in ctx.saved_tensors)
        gradient = quantize(gradient, ctx.bits)
        return torch.outer(gradient, u), a.T @ gradient, None, None


def dot(a: Tensor, u: Tensor, a_bits: int, u_bits: int) -> Tensor:
    """a (N, M) times u (M,); backward, the gradient and both operands are rounded to the wider width."""
    return _Dot.apply(a, u, a_bits, u_bits)
