"""Numbers as integer * 2 ** -exponent: which exponent, and the integers of a weight."""

from __future__ import annotations

import math
from typing import get_args

import numpy as np
from torch import Tensor

from lrnn.quant.scheme import WeightScale


def largest_integer(bits: int) -> int:
    """2 ** (bits - 1) - 1: the range of `bits` bits is symmetric."""
    return 2 ** (bits - 1) - 1


def exponent_for_range(max_abs: float, bits: int) -> int:
    """The largest e for which round(max_abs * 2 ** e) fits `bits` bits: the finest scale that clips nothing.

    Args:
        max_abs: largest magnitude to be held, above zero.
        bits: width with the sign, 2 to 32.

    Raises:
        ValueError: max_abs is zero, negative or not finite, or bits is out of range.
    """
    _check_bits(bits)
    if not math.isfinite(max_abs) or max_abs <= 0:
        raise ValueError(f"max_abs is {max_abs}, expected a finite number above 0")
    return int(_exponents(np.float64(max_abs), bits))


def quantize_weight(
    weight: np.ndarray | Tensor, bits: int, scale: WeightScale = "row", name: str = "weight"
) -> tuple[np.ndarray, np.ndarray]:
    """The integers and exponents of a weight: weight ~ integers * 2 ** -exponents, no entry clipped.

    Rounds to nearest, halves to even. Zeros stay zeros. Everything is exact in float64, so the result is the
    same on every machine.

    Args:
        weight: (rows, cols) or (rows,); a vector's rows are its entries. "tensor" takes any shape.
        bits: width with the sign, 2 to 32.
        scale: an exponent per row, or one for the tensor.
        name: what errors call the weight.

    Returns:
        integers, int32 of the weight's shape, and exponents, int32 (rows,) or (). A row of zeros has
        exponent 0.

    Raises:
        ValueError: NaN or infinity in the weight or a shape without rows, by its name; an unknown scale.
    """
    _check_bits(bits)
    if isinstance(weight, Tensor):
        weight = weight.detach().cpu().double().numpy()
    weight = np.asarray(weight, dtype=np.float64)
    if not np.isfinite(weight).all():
        raise ValueError(f"{name} has NaN or infinite values")
    if scale not in get_args(WeightScale):
        raise ValueError(f"scale is {scale!r}, expected one of {', '.join(get_args(WeightScale))}")
    if scale == "tensor":
        exponents = _exponents(np.abs(weight).max(initial=0.0), bits)
        shift = exponents
    else:
        if weight.ndim not in (1, 2):
            raise ValueError(f"{name} has shape {weight.shape}, expected (rows, cols) or (rows,)")
        exponents = _exponents(np.abs(weight.reshape(len(weight), -1)).max(axis=1, initial=0.0), bits)
        shift = exponents.reshape(-1, *(1,) * (weight.ndim - 1))
    return np.rint(np.ldexp(weight, shift)).astype(np.int32), exponents.astype(np.int32)


def dequantize(integers: np.ndarray, exponents: np.ndarray) -> np.ndarray:
    """integers * 2 ** -exponents in float64, exactly; exponents is () or one for each row."""
    exponents = np.asarray(exponents)
    if exponents.ndim:
        exponents = exponents.reshape(-1, *(1,) * (integers.ndim - 1))
    return np.ldexp(integers.astype(np.float64), -exponents)


def _exponents(max_abs: np.ndarray, bits: int) -> np.ndarray:
    """`exponent_for_range` of an array; 0 where max_abs is 0."""
    mantissa, exponent = np.frexp(max_abs)  # max_abs = mantissa * 2 ** exponent, mantissa in [0.5, 1)
    # max_abs * 2 ** (bits - 1 - exponent); a half above the largest integer, which is odd, would round up.
    clips = np.ldexp(mantissa, bits - 1) >= largest_integer(bits) + 0.5
    return np.where(max_abs == 0, 0, bits - 1 - exponent - clips)


def _check_bits(bits: int) -> None:
    if type(bits) is not int or not 2 <= bits <= 32:
        raise ValueError(f"bits is {bits!r}, expected 2 to 32")
