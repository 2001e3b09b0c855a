"""The fixed-point nodes over whole batches in torch: the integers of numpy_nodes, for (B, T, width) at once.

Values are int64. A node sums and rounds in `numbers`: in float64 where that is exact, which is where no sum
passes 2 ** 52, because torch multiplies and shifts integers slowly; else in int64.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from lrnn.program import nodes as op
from lrnn.program.fixed import nodes as fixed
from lrnn.program.fixed.arithmetic import INVERSE_ROOTS, ROOT_STEP
from lrnn.program.fixed.base import Rounded
from lrnn.program.fixed.format import Format
from lrnn.quant import largest_integer

Formats = list[Format]
Buffers = dict[str, Tensor]


def numbers_of(node: op.Node, formats: Formats) -> torch.dtype:
    """What a node can sum in: float64 where its greatest sum, rounded or shifted, is exact there."""
    exact = not isinstance(node, Rounded) or node.widest(tuple(formats)) < 1 << 52
    return torch.float64 if exact else torch.int64


def shift_right(x: Tensor, shift: np.ndarray | int, rounding: str) -> Tensor:
    """See lrnn.program.fixed.arithmetic: the same for x in int64 and, where that is exact, in float64."""
    if x.dtype == torch.int64:
        return _shift_integers(x, torch.as_tensor(shift, dtype=torch.int64, device=x.device), rounding)
    if np.any(shift):  # a power of two: exact
        x = x * torch.as_tensor(np.ldexp(1.0, -np.asarray(shift)), device=x.device)
    if rounding == "floor":
        return x.floor()
    return x.round() if rounding == "nearest_even" else (x + 0.5).floor_()


def _shift_integers(x: Tensor, shift: Tensor, rounding: str) -> Tensor:
    x, right = x << (-shift).clamp(min=0), shift.clamp(min=0)
    if rounding == "floor":
        return x >> right
    half = (torch.ones_like(right) << right) >> 1
    if rounding == "nearest_up":
        return (x + half) >> right
    return torch.where(right > 0, (x + half - 1 + ((x >> right) & 1)) >> right, x)


def _finish(node: Rounded, sums: Tensor, shift: np.ndarray | int) -> Tensor:
    most = largest_integer(node.bits)
    return shift_right(sums, shift, node.rounding).clamp_(-most, most).long()


def _quantize(
    node: fixed.Quantize, formats: list[None], numbers: torch.dtype, w: Buffers, x: Tensor
) -> Tensor:
    most = 2.0 ** (node.bits - 1)
    scaled = torch.round(x.float() * 2.0**node.exponent).clamp(-most, most)
    most = largest_integer(node.bits)
    return scaled.long().clamp_(-most, most)


def _dequantize(
    node: fixed.Dequantize, formats: Formats, numbers: torch.dtype, w: Buffers, x: Tensor
) -> Tensor:
    return x.float() * 2.0 ** -formats[0].exponent


def _rescale(node: fixed.Rescale, formats: Formats, numbers: torch.dtype, w: Buffers, x: Tensor) -> Tensor:
    return _finish(node, x.to(numbers), formats[0].exponent - node.exponent)


def _linear(node: fixed.Linear, formats: Formats, numbers: torch.dtype, w: Buffers, x: Tensor) -> Tensor:
    sums = x.to(numbers) @ w["weight"].to(numbers).T  # (B, T, cols) -> (B, T, rows)
    return _finish(node, sums.add_(w["bias"]), node.shift(formats[0]))


def _affine(node: fixed.Affine, formats: Formats, numbers: torch.dtype, w: Buffers, x: Tensor) -> Tensor:
    sums = torch.addcmul(w["bias"].to(numbers), w["scale"].to(numbers), x.to(numbers))
    return _finish(node, sums, node.shift(formats[0]))


def _embedding(
    node: fixed.Embedding, formats: list[None], numbers: torch.dtype, w: Buffers, x: Tensor
) -> Tensor:
    token = x[..., 0].long()  # (B, T)
    shift = torch.from_numpy(node.shift()).to(x.device)[token][..., None]
    most = largest_integer(node.bits)
    return _shift_integers(w["weight"][token].long(), shift, node.rounding).clamp_(-most, most)


def _relu(node: fixed.Relu, formats: Formats, numbers: torch.dtype, w: Buffers, x: Tensor) -> Tensor:
    return x.clamp(min=0)


def _pair_relu(node: fixed.PairRelu, formats: Formats, numbers: torch.dtype, w: Buffers, x: Tensor) -> Tensor:
    pairs = x.unflatten(-1, (-1, 2))  # (B, T, P, 2) re, im
    re, im = pairs.unbind(-1)
    keep = (re > 0) | ((re == 0) & (im > 0))
    return torch.where(keep[..., None], pairs, 0).flatten(-2)


def _table(node: fixed.Table, formats: Formats, numbers: torch.dtype, w: Buffers, x: Tensor) -> Tensor:
    table, bits = w["table"].long(), formats[0].bits
    step = bits - (len(table) - 1).bit_length() + 1
    above = x + (1 << (bits - 1))
    i, rest = above >> step, above & ((1 << step) - 1)
    low = table[i]
    return low + (((table[i + 1] - low) * rest + ((1 << step) >> 1)) >> step)


def _norm(node: fixed.Norm, formats: Formats, numbers: torch.dtype, w: Buffers, x: Tensor) -> Tensor:
    n = x.shape[-1]
    total = x.sum(-1, keepdim=True) if node.centred else x.new_zeros(*x.shape[:-1], 1)
    mantissa, j = _inverse_root(n * (x * x).sum(-1, keepdim=True) - total * total + node.eps)
    normal = _shift_integers((n * x - total) * mantissa, 15 + j, node.rounding)
    sums = torch.addcmul(w["bias"].to(numbers), w["scale"].to(numbers), normal.to(numbers))
    return _finish(node, sums, node.shift())


def _inverse_root(v: Tensor) -> tuple[Tensor, Tensor]:
    length = torch.frexp(v.double())[1].long()  # float64 may round up to the next power of two
    length -= ((v >> (length - 1)) == 0).long()
    j = (length - 31) >> 1
    m = torch.where(j > 0, v >> (2 * j).clamp(min=0), v << (-2 * j).clamp(min=0)) - (1 << 30)
    i, rest = m >> ROOT_STEP, m & ((1 << ROOT_STEP) - 1)
    table = torch.as_tensor(INVERSE_ROOTS, device=v.device)
    low = table[i]
    return low + (((table[i + 1] - low) * rest + (1 << (ROOT_STEP - 1))) >> ROOT_STEP), j


def _add(
    node: fixed.Add, formats: Formats, numbers: torch.dtype, w: Buffers, x0: Tensor, x1: Tensor
) -> Tensor:
    e0, e1 = formats[0].exponent, formats[1].exponent
    finest = max(e0, e1)
    sums = x0.to(numbers) * (1 << (finest - e0)) + x1.to(numbers) * (1 << (finest - e1))
    return _finish(node, sums, finest - node.exponent)


def _product(
    node: fixed.Product, formats: Formats, numbers: torch.dtype, w: Buffers, x0: Tensor, x1: Tensor
) -> Tensor:
    return _finish(
        node, x0.to(numbers) * x1.to(numbers), formats[0].exponent + formats[1].exponent - node.exponent
    )


def states(
    node: fixed.Diagonal, formats: Formats, numbers: torch.dtype, w: Buffers, x: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    """The state h after each frame, (B, T, 2 P) in `numbers`, and what is kept of the last, (B, 4 P)."""
    x = shift_right(x.to(numbers), formats[0].exponent - node.state_exponent, node.rounding)
    frames = x.unflatten(-1, (-1, 2)).permute(1, 3, 0, 2).contiguous()  # (T, 2, B, P): re, im
    first, rest = state.to(numbers).view(len(x), 2, -1, 2).permute(1, 3, 0, 2).clone()  # (2, B, P)
    re, im = w["decay"].to(numbers).T[:, None]  # (1, P)
    im = torch.stack((-im, im))  # (2, 1, P)
    scale = (torch.ones_like(w["decay_exponent"], dtype=torch.int64) << w["decay_exponent"]).to(numbers)
    quotient = _divider(w["decay_exponent"], numbers)
    most = largest_integer(node.state_bits)
    # What takes the time is the number of calls for each frame: h lies as re, im, re, so that the parts the
    # other way round are a view, and every view is made beforehand.
    h = x.new_empty(len(frames) + 1, 3, *first.shape[1:])
    h[0] = first[[0, 1, 0]]
    straight, swapped = h[:, :2].unbind(0), h[:, 1:].unbind(0)
    reals, again = h[:, 0].unbind(0), h[:, 2].unbind(0)
    for t, frame in enumerate(frames.unbind(0)):
        q = torch.addcmul(rest, re, straight[t]).addcmul_(im, swapped[t])
        lost = quotient(q)
        rest = q.addcmul_(lost, scale, value=-1)
        torch.clamp(torch.sub(frame, lost, out=lost).add_(straight[t]), -most, most, out=straight[t + 1])
        again[t + 1].copy_(reals[t + 1])
    after = torch.stack((h[-1, :2], rest)).permute(2, 0, 3, 1).flatten(1).int()
    return h[1:, :2].permute(2, 0, 3, 1).flatten(-2), after


def gated_states(
    node: fixed.Gated,
    formats: Formats,
    numbers: torch.dtype,
    w: Buffers,
    g: Tensor,
    x: Tensor,
    state: Tensor,
) -> tuple[Tensor, Tensor]:
    """The state h after each frame, (B, T, N) or (B, T, 2 N) in `numbers`, and what is kept of the last."""
    one, most = 1 << node.gate_exponent, largest_integer(node.state_bits)
    x = shift_right(x.to(numbers), formats[1].exponent - node.state_exponent, node.rounding)
    x = x.unflatten(-1, (node.size, node.parts)).transpose(0, 1)  # (T, B, N, parts)
    g = g.clamp(0, one).to(numbers)[..., None].transpose(0, 1)  # (T, B, N, 1)
    h, *turn, rest = state.to(numbers).unflatten(-1, (-1, *x.shape[2:])).unbind(1)  # (B, N, parts)
    turned = _turner(w, numbers) if turn else None
    drop = _divider(torch.tensor(node.gate_exponent, device=x.device), numbers)
    out = torch.empty_like(x)
    for t, (gate, frame) in enumerate(zip(g.unbind(0), x.unbind(0), strict=True)):
        if turned:
            h, turn[0] = turned(h, turn[0])
        q = torch.addcmul(rest, gate, h - frame)
        dropped = drop(q)
        rest = q.sub_(dropped, alpha=one)
        h = torch.clamp(h - dropped, -most, most, out=out[t])
    after = torch.stack((h, *turn, rest), 1).flatten(1).int()
    return out.transpose(0, 1).flatten(-2), after


def _turner(w: Buffers, numbers: torch.dtype) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """The function of pairs (B, P, 2): (1 - decay) h, rounded down, and what that drops."""
    re, im = w["decay"].to(numbers).unbind(-1)
    re, im = re[:, None], torch.stack((-im, im), -1)  # (P, 1), (P, 2)
    scale = (torch.ones_like(w["decay_exponent"], dtype=torch.int64) << w["decay_exponent"]).to(numbers)
    drop = _divider(w["decay_exponent"][:, None], numbers)

    def turned(h: Tensor, rest: Tensor) -> tuple[Tensor, Tensor]:
        q = torch.addcmul(rest, re, h).addcmul_(im, h.flip(-1))
        lost = drop(q)
        return h - lost, q.addcmul_(lost, scale[:, None], value=-1)

    return turned


def _divider(exponents: Tensor, numbers: torch.dtype) -> Callable[[Tensor], Tensor]:
    """The function q >> exponents."""
    if numbers == torch.int64:
        exponents = exponents.long()
        return lambda q: q >> exponents
    inverse = torch.as_tensor(np.ldexp(1.0, -exponents.cpu().numpy().astype(int)), device=exponents.device)
    return lambda q: torch.mul(q, inverse).floor_()


def _diagonal(
    node: fixed.Diagonal, formats: Formats, numbers: torch.dtype, w: Buffers, x: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    h, after = states(node, formats, numbers, w, x, state)
    return _finish(node, h, node.state_exponent - node.exponent), after


def _gated(
    node: fixed.Gated,
    formats: Formats,
    numbers: torch.dtype,
    w: Buffers,
    g: Tensor,
    x: Tensor,
    state: Tensor,
) -> tuple[Tensor, Tensor]:
    h, after = gated_states(node, formats, numbers, w, g, x, state)
    return _finish(node, h, node.state_exponent - node.exponent), after


def _mean_pool(
    node: fixed.MeanPool, formats: Formats, numbers: torch.dtype, w: Buffers, x: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    ones = x.new_ones(*x.shape[:-1], 1)
    totals = state[:, None] + torch.cat([x, ones], dim=-1).cumsum(dim=1)  # (B, T, size + 1): sums, counts
    total, count = totals[..., :-1], totals[..., -1:]
    return (2 * total + count).div(2 * count, rounding_mode="floor"), totals[:, -1] if x.shape[1] else state


FUNCTIONS: dict[type[op.Node], Callable] = {
    fixed.Quantize: _quantize,
    fixed.Dequantize: _dequantize,
    fixed.Rescale: _rescale,
    fixed.Linear: _linear,
    fixed.Affine: _affine,
    fixed.Embedding: _embedding,
    fixed.Relu: _relu,
    fixed.PairRelu: _pair_relu,
    fixed.Table: _table,
    fixed.Norm: _norm,
    fixed.Add: _add,
    fixed.Product: _product,
    fixed.Diagonal: _diagonal,
    fixed.Gated: _gated,
    fixed.MeanPool: _mean_pool,
}
