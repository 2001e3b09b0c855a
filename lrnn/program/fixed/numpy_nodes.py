"""What each fixed-point node computes on a frame, in numpy int64. Normative: every engine makes these.

Functions take a node, the formats of its inputs and the inputs, vectors of int64, and return one.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lrnn.program import nodes as op
from lrnn.program.fixed import nodes as fixed
from lrnn.program.fixed.arithmetic import interpolate, inverse_root, saturate, shift_right
from lrnn.program.fixed.format import Format

Formats = list[Format]


def _finish(node, sums: np.ndarray, shift: np.ndarray | int) -> np.ndarray:
    return saturate(shift_right(sums, shift, node.rounding), node.bits)


def _quantize(node: fixed.Quantize, formats: list[None], x: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # what overflows float32 saturates
        scaled = np.rint(x * np.float32(2.0**node.exponent))
    most = np.float32(2.0 ** (node.bits - 1))  # float32 may not hold the greatest integer itself
    return saturate(np.clip(scaled, -most, most).astype(np.int64), node.bits)


def _dequantize(node: fixed.Dequantize, formats: Formats, x: np.ndarray) -> np.ndarray:
    return x.astype(np.float32) * np.float32(2.0 ** -formats[0].exponent)


def _rescale(node: fixed.Rescale, formats: Formats, x: np.ndarray) -> np.ndarray:
    return _finish(node, x, formats[0].exponent - node.exponent)


def _linear(node: fixed.Linear, formats: Formats, x: np.ndarray) -> np.ndarray:
    sums = node.weight.astype(np.int64) @ x + node.bias  # (rows, cols) (cols,) -> (rows,)
    return _finish(node, sums, node.shift(formats[0]))


def _affine(node: fixed.Affine, formats: Formats, x: np.ndarray) -> np.ndarray:
    return _finish(node, node.scale * x + node.bias, node.shift(formats[0]))


def _embedding(node: fixed.Embedding, formats: list[None], x: np.ndarray) -> np.ndarray:
    token = int(x[0])
    return _finish(node, node.weight[token].astype(np.int64), node.shift()[token])


def _relu(node: fixed.Relu, formats: Formats, x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


def _pair_relu(node: fixed.PairRelu, formats: Formats, x: np.ndarray) -> np.ndarray:
    pairs = x.reshape(-1, 2)  # (P, 2) re, im
    re, im = pairs[:, 0], pairs[:, 1]
    keep = (re > 0) | ((re == 0) & (im > 0))
    return np.where(keep[:, None], pairs, 0).reshape(-1)


def _table(node: fixed.Table, formats: Formats, x: np.ndarray) -> np.ndarray:
    return interpolate(x, node.table.astype(np.int64), formats[0].bits)


def _norm(node: fixed.Norm, formats: Formats, x: np.ndarray) -> np.ndarray:
    n = len(x)
    total = int(x.sum()) if node.centred else 0
    variance = n * int(x @ x) - total * total + node.eps  # Python's integers
    mantissa, j = inverse_root(variance)
    normal = shift_right((n * x - total) * mantissa, 15 + j, node.rounding)
    return _finish(node, node.scale * normal + node.bias, node.shift())


def _add(node: fixed.Add, formats: Formats, x0: np.ndarray, x1: np.ndarray) -> np.ndarray:
    e0, e1 = formats[0].exponent, formats[1].exponent
    finest = max(e0, e1)
    return _finish(node, (x0 << (finest - e0)) + (x1 << (finest - e1)), finest - node.exponent)


def _product(node: fixed.Product, formats: Formats, x0: np.ndarray, x1: np.ndarray) -> np.ndarray:
    return _finish(node, x0 * x1, formats[0].exponent + formats[1].exponent - node.exponent)


def _turned(
    node: fixed.Diagonal | fixed.Gated, h: np.ndarray, rest: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(1 - decay) h of pairs (P, 2), rounded down, and what that drops."""
    re, im = node.decay.T.astype(np.int64)  # (P,)
    s = node.decay_exponent.astype(np.int64)[:, None]  # (P, 1)
    q = np.stack((re * h[:, 0] - im * h[:, 1], re * h[:, 1] + im * h[:, 0]), 1) + rest
    return h - (q >> s), q & ((np.int64(1) << s) - 1)


def _diagonal(
    node: fixed.Diagonal, formats: Formats, x: np.ndarray, state: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    x = shift_right(x, formats[0].exponent - node.state_exponent, node.rounding).reshape(-1, 2)  # (P, 2)
    h, rest = state.astype(np.int64).reshape(2, -1, 2)
    h, rest = _turned(node, h, rest)
    h = saturate(h + x, node.state_bits)
    after = np.concatenate((h, rest)).reshape(-1).astype(np.int32)
    return _finish(node, h.reshape(-1), node.state_exponent - node.exponent), after


def _gated(
    node: fixed.Gated, formats: Formats, g: np.ndarray, x: np.ndarray, state: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    e = node.gate_exponent
    g = np.clip(g, 0, 1 << e)[:, None]  # (N, 1)
    x = shift_right(x, formats[1].exponent - node.state_exponent, node.rounding)
    x = x.reshape(node.size, node.parts)  # (N, parts)
    h, *turn, rest = state.astype(np.int64).reshape(-1, *x.shape)
    if turn:
        h, turn[0] = _turned(node, h, turn[0])
    q = g * (h - x) + rest
    h = saturate(h - (q >> e), node.state_bits)
    after = np.stack((h, *turn, q & ((1 << e) - 1))).reshape(-1).astype(np.int32)
    return _finish(node, h.reshape(-1), node.state_exponent - node.exponent), after


def _mean_pool(
    node: fixed.MeanPool, formats: Formats, x: np.ndarray, state: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    state = state + np.append(x, 1)  # (size + 1,): the sum, and the count of frames
    total, count = state[:-1], state[-1]
    return (2 * total + count) // (2 * count), state


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
