"""Functions of one number as tables: which entries, and how far the integers are from the function."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lrnn.program.fixed.arithmetic import interpolate
from lrnn.quant import largest_integer

SEGMENTS = 512


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(0.5 * x))


def _silu(x: np.ndarray) -> np.ndarray:
    return x * _sigmoid(x)


def _gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


FUNCTIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "sigmoid": _sigmoid,
    "silu": _silu,
    "gelu": _gelu,
}


def make_table(
    function: str, in_bits: int, in_exponent: int, out_bits: int, out_exponent: int
) -> tuple[np.ndarray, float]:
    """A table for all integers of an input.

    The entries are the function's values, rounded and saturated. A table of a function that rises everywhere
    (sigmoid) makes integers that never fall.

    Args:
        function: a name of FUNCTIONS.
        in_bits: width of the input, 2 to 16; one of at most 9 bits has an entry for each integer.
        in_exponent: of the input.
        out_bits: width of the entries, 2 to 16.
        out_exponent: of the entries.

    Returns:
        table (2 ** m + 1,) int16, m at most 9, and the greatest error over all inputs, in units of the
        function (saturation of the output counts in, that of the input cannot).
    """
    segments = min(SEGMENTS, 1 << in_bits)
    first = -(1 << (in_bits - 1))
    grid = np.ldexp(first + np.arange(segments + 1) * ((1 << in_bits) // segments), -in_exponent)
    most = largest_integer(out_bits)
    entries = np.ldexp(FUNCTIONS[function](grid), out_exponent)
    table = np.clip(np.rint(entries), -most, most).astype(np.int16)
    x = np.arange(first + 1, -first, dtype=np.int64)
    y = np.ldexp(interpolate(x, table.astype(np.int64), in_bits).astype(np.float64), -out_exponent)
    return table, float(np.abs(y - FUNCTIONS[function](np.ldexp(x, -in_exponent))).max())
