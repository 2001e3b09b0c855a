"""What neurons compute, in numpy int64: one function for each `op` of a group's program.

A function takes the operation's record, its arrays, its inputs (vectors of int64) and its state, and returns
the value; what remembers writes its state in place. Shifts go to the right, negative ones to the left.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def shift_right(x: np.ndarray, shift: np.ndarray | int, rounding: str) -> np.ndarray:
    """x * 2 ** -shift to an integer by "nearest_even", "nearest_up" (halves go up) or "floor"."""
    shift = np.asarray(shift, np.int64)
    x, right = x << np.maximum(-shift, 0), np.maximum(shift, 0)
    if rounding == "floor":
        return x >> right
    half = (np.int64(1) << right) >> 1
    if rounding == "nearest_up":
        return (x + half) >> right
    if rounding != "nearest_even":
        raise ValueError(f"rounding is {rounding!r}, expected nearest_even, nearest_up or floor")
    return np.where(right > 0, (x + half - 1 + ((x >> right) & 1)) >> right, x)


def saturate(x: np.ndarray, bits: int) -> np.ndarray:
    """x within +-(2 ** (bits - 1) - 1)."""
    most = (1 << (bits - 1)) - 1
    return np.clip(x, -most, most)


def _finish(op: dict, sums: np.ndarray, shift: np.ndarray | int) -> np.ndarray:
    return saturate(shift_right(sums, shift, op["rounding"]), op["bits"])


def _linear(op, arrays, state, sums):
    return _finish(op, sums + arrays["bias"], arrays["shift"])


def _affine(op, arrays, state, x):
    return _finish(op, arrays["scale"] * x + arrays["bias"], arrays["shift"])


def _rescale(op, arrays, state, x):
    return _finish(op, x, op["shift"])


def _relu(op, arrays, state, x):
    return np.maximum(x, 0)


def _pair_relu(op, arrays, state, x):
    re, im = x[0::2], x[1::2]
    return np.where(np.repeat((re > 0) | ((re == 0) & (im > 0)), 2), x, 0)


def _table(op, arrays, state, x):
    """Linear between two entries; the lowest bits of x say where between."""
    table = arrays["table"]
    step = op["input_bits"] - (len(table) - 1).bit_length() + 1
    above = x + (1 << (op["input_bits"] - 1))
    i, rest = above >> step, above & ((1 << step) - 1)
    return table[i] + shift_right((table[i + 1] - table[i]) * rest, step, "nearest_up")


def _norm(op, arrays, state, x):
    """(x - mean) / deviation * scale + bias. Its sums go over all neurons of the group."""
    n = len(x)
    total = int(x.sum()) if op["centred"] else 0
    mantissa, j = inverse_root(n * int(x @ x) - total * total + op["eps"])
    normal = shift_right((n * x - total) * mantissa, 15 + j, op["rounding"])
    return _finish(op, arrays["scale"] * normal + arrays["bias"], arrays["shift"])


ROOTS = np.rint(2.0**16 / np.sqrt(1 + np.arange(385) / 128)).astype(np.int64)


def inverse_root(w: int) -> tuple[int, int]:
    """1 / sqrt(w) as mantissa * 2 ** -(31 + j), by a table between 1 and 4."""
    j = (w.bit_length() - 31) // 2
    m = w >> 2 * j if j > 0 else w << -2 * j
    i, rest = divmod(m - (1 << 30), 1 << 23)
    return int(ROOTS[i]) + ((int(ROOTS[i + 1] - ROOTS[i]) * rest + (1 << 22)) >> 23), j


def _add(op, arrays, state, x0, x1):
    left0, left1 = op["left_shifts"]
    return _finish(op, (x0 << left0) + (x1 << left1), op["shift"])


def _product(op, arrays, state, x0, x1):
    return _finish(op, x0 * x1, op["shift"])


def _turn(arrays, h: np.ndarray, rest: np.ndarray) -> np.ndarray:
    """lambda h of complex pairs, rounded down; what that drops replaces `rest`."""
    re, im = np.repeat(arrays["decay"], 2, axis=0).T  # each (2 P,), the decay of the pair
    other = h.reshape(-1, 2)[:, ::-1].reshape(-1)
    other[0::2] *= -1  # i h
    s = np.repeat(arrays["decay_exponent"], 2)
    q = re * h + im * other + rest
    rest[:] = q & ((np.int64(1) << s) - 1)
    return h - (q >> s)


def _diagonal(op, arrays, state, x):
    h, rest = state
    x = shift_right(x, op["input_shift"], op["rounding"])
    h[:] = saturate(_turn(arrays, h, rest) + x, op["state_bits"])
    return _finish(op, h, op["shift"])


def _gated(op, arrays, state, g, x):
    h, rest, turn = state
    e = op["gate_exponent"]
    x = shift_right(x, op["input_shift"], op["rounding"])
    g = np.repeat(np.clip(g, 0, 1 << e), len(x) // len(g))
    u = _turn(arrays, h, turn) if arrays else h
    q = g * (u - x) + rest
    h[:] = saturate(u - (q >> e), op["state_bits"])
    rest[:] = q & ((1 << e) - 1)
    return _finish(op, h, op["shift"])


def _mean_pool(op, arrays, state, x):
    total, count = state
    total += x
    count += 1
    return (2 * total + count) // (2 * count)


OPERATIONS: dict[str, Callable[..., np.ndarray]] = {
    "linear": _linear,
    "affine": _affine,
    "rescale": _rescale,
    "relu": _relu,
    "pair_relu": _pair_relu,
    "table": _table,
    "norm": _norm,
    "add": _add,
    "product": _product,
    "diagonal": _diagonal,
    "gated": _gated,
    "mean_pool": _mean_pool,
}
STATES = {"diagonal": 2, "gated": 3, "mean_pool": 2}  # vectors carried from step to step, zero at first
