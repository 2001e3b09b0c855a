"""The arithmetic of fixed point in numpy int64: the normative form of rounding, saturation, tables and roots.

A shift by s means a multiplication by 2 ** -s. To the right it rounds:

    nearest_up     (x + 2 ** (s - 1)) >> s            halves go up: one add, one shift
    nearest_even   (x + 2 ** (s - 1) - 1 + ((x >> s) & 1)) >> s
    floor          x >> s

with >> the arithmetic shift; by s <= 0 it is x << -s and exact.
"""

from __future__ import annotations

import numpy as np

from lrnn.quant import Rounding, largest_integer


def shift_right(x: np.ndarray, shift: np.ndarray | int, rounding: Rounding) -> np.ndarray:
    """x * 2 ** -shift, rounded to an integer.

    Args:
        x: int64.
        shift: an integer, or an array that broadcasts to x; negative shifts to the left.
        rounding: see above.
    """
    shift = np.asarray(shift, np.int64)
    x, right = x << np.maximum(-shift, 0), np.maximum(shift, 0)
    if rounding == "floor":
        return x >> right
    half = (np.int64(1) << right) >> 1
    if rounding == "nearest_up":
        return (x + half) >> right
    return np.where(right > 0, (x + half - 1 + ((x >> right) & 1)) >> right, x)


def saturate(x: np.ndarray, bits: int) -> np.ndarray:
    """x within +-(2 ** (bits - 1) - 1)."""
    most = largest_integer(bits)
    return np.clip(x, -most, most)


def interpolate(x: np.ndarray, table: np.ndarray, bits: int) -> np.ndarray:
    """A function of x given by its values on a grid, linear in between, halves up.

    Args:
        x: integers of `bits` bits.
        table: (2 ** m + 1,) values at x = -2 ** (bits - 1) + i 2 ** (bits - m).
        bits: of x, at least m.
    """
    step = bits - (len(table) - 1).bit_length() + 1  # log2 of the distance of two points
    above = x + (1 << (bits - 1))
    i, rest = above >> step, above & ((1 << step) - 1)
    return table[i] + (((table[i + 1] - table[i]) * rest + ((1 << step) >> 1)) >> step)


ROOT_STEP = 23  # log2 of the distance of two points of the table, where 2 ** 30 stands for 1
ROOT_EXPONENT = 16  # of its entries


def inverse_root_table() -> np.ndarray:
    """(385,) int64: 2 ** 16 / sqrt(1 + i / 128) to the nearest integer, from 1 to 4."""
    return np.rint(2.0**ROOT_EXPONENT / np.sqrt(1 + np.arange(385) / 128)).astype(np.int64)


INVERSE_ROOTS = inverse_root_table()


def inverse_root(w: int) -> tuple[int, int]:
    """1 / sqrt(w) as mantissa * 2 ** -(31 + j), to a relative error of 3e-5.

    w is scaled by an even power of two to m in [2 ** 30, 2 ** 32), where the table stands.

    Args:
        w: 1 to 2 ** 63 - 1.

    Returns:
        mantissa, 2 ** 15 to 2 ** 16, and j, -15 to 16.
    """
    j = (w.bit_length() - 31) // 2
    m = w >> 2 * j if j > 0 else w << -2 * j
    i, rest = divmod(m - (1 << 30), 1 << ROOT_STEP)
    slope = int(INVERSE_ROOTS[i + 1] - INVERSE_ROOTS[i])
    return int(INVERSE_ROOTS[i]) + ((slope * rest + (1 << (ROOT_STEP - 1))) >> ROOT_STEP), j
