"""Numbers as integer * 2 ** -exponent: which exponent, and the integers of a weight."""

from __future__ import annotations

import math
from typing import get_args

import numpy as np
import torch
from torch import Tensor

from lrnn.quant.scheme import WeightScale

MOST_EXPONENT = 126
"""Of a value's scale, either way: 2 ** -126 is the smallest normal float32."""
SATURATED_SIGMOID = 16.0
"""Beyond it a sigmoid is 0 or 1 to 23 bits."""

MOST_GATE_EXPONENT = 30
"""What a gate's product drops has to fit 32 bits."""

_MOST_DECAY_EXPONENT = 30  # squares of such integers fit 62 bits


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
    return int(_exponents(torch.tensor(max_abs, dtype=torch.float64), bits))


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
    if not isinstance(weight, Tensor):
        weight = torch.from_numpy(np.array(weight, dtype=np.float64))
    weight = weight.detach().cpu().double()
    if not torch.isfinite(weight).all():
        raise ValueError(f"{name} has NaN or infinite values")
    if scale not in get_args(WeightScale):
        raise ValueError(f"scale is {scale!r}, expected one of {', '.join(get_args(WeightScale))}")
    if scale == "row" and weight.ndim not in (1, 2):
        raise ValueError(f"{name} has shape {tuple(weight.shape)}, expected (rows, cols) or (rows,)")
    integers, exponents = to_grid(weight, bits, scale)
    return integers.numpy().astype(np.int32), exponents.numpy().astype(np.int32)


def to_grid(weight: Tensor, bits: int, scale: WeightScale) -> tuple[Tensor, Tensor]:
    """`quantize_weight` on any device and without its checks: integers in float64, exponents in int32."""
    weight = weight.double()
    exponents = _exponents(row_peaks(weight, scale), bits)
    return torch.ldexp(weight, spread(exponents, weight)).round_(), exponents


def quantize_decay(lambda_bar: np.ndarray | Tensor, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Integers of 1 - lambda_bar, real and imaginary part, with an exponent for each state; |lambda_bar| < 1.

    1 - lambda_bar is what a slow state forgets from frame to frame: its own scale keeps it. Where rounding
    would leave |lambda_bar| at 1 or above, the larger part of lambda_bar is brought nearer to zero step by
    step.

    Args:
        lambda_bar: (P,) complex.
        bits: of each part, with the sign, 2 to 24.

    Returns:
        integers (P, 2) int32, and exponents (P,) int32, at most 30.

    Raises:
        ValueError: |lambda_bar| is 1 or more before any rounding, or 1 - lambda_bar too large for these bits.
    """
    _check_bits(bits)
    integers, exponents = _decay_integers(torch.as_tensor(lambda_bar).detach().cpu(), bits)
    return integers.numpy().astype(np.int32), exponents.numpy().astype(np.int32)


def quantize_rotation(rotation: np.ndarray | Tensor, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """As `quantize_decay`, of numbers on the unit circle: rounded, they lie on it or inside.

    Args:
        rotation: (N,) complex, of magnitude 1 to float32's precision.
        bits: of each part of 1 - rotation, with the sign, 2 to 24; 4 hold any.

    Returns:
        integers (N, 2) int32, and exponents (N,) int32, 1 to 30.

    Raises:
        ValueError: a magnitude is not 1, or 1 - rotation too large for these bits.
    """
    _check_bits(bits)
    integers, exponents = _rotation_integers(torch.as_tensor(rotation).detach().cpu(), bits)
    return integers.numpy().astype(np.int32), exponents.numpy().astype(np.int32)


def decay_to_grid(lambda_bar: Tensor, bits: int) -> Tensor:
    """The lambda_bar (P,) complex128 that `quantize_decay` gives."""
    return _from_decay(*_decay_integers(lambda_bar, bits))


def rotation_to_grid(rotation: Tensor, bits: int) -> Tensor:
    """The rotation (N,) complex128 that `quantize_rotation` gives."""
    return _from_decay(*_rotation_integers(rotation, bits))


def _from_decay(integers: Tensor, exponents: Tensor) -> Tensor:
    decay = torch.ldexp(integers.double(), -exponents[:, None])
    return torch.complex(1 - decay[:, 0], -decay[:, 1])


def _decay_integers(lambda_bar: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    lambda_bar = lambda_bar.to(torch.complex128)
    if not (lambda_bar.abs() < 1).all():  # nor NaN
        p = int(torch.where(lambda_bar.abs() < 1, 0.0, 1.0).argmax())
        raise ValueError(f"|lambda_bar| of state {p} is {lambda_bar[p].abs():.7g}, expected less than 1")
    integers, exponents = _of_one_minus(lambda_bar, bits, 0, "lambda_bar")
    return _drawn_in(integers, exponents, -1), exponents


def _rotation_integers(rotation: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    rotation = rotation.to(torch.complex128)
    wrong = ~((rotation.abs() - 1).abs() < 1e-5)  # also NaN
    if wrong.any():
        n = int(wrong.int().argmax())
        raise ValueError(f"|rotation| of state {n} is {rotation[n].abs():.7g}, expected 1")
    integers, exponents = _of_one_minus(rotation, bits, 1, "rotation")
    return _drawn_in(integers, exponents, 0), exponents


def _of_one_minus(z: Tensor, bits: int, least: int, name: str) -> tuple[Tensor, Tensor]:
    """Integers (P, 2) of 1 - z, and exponents, at least `least`; ValueError where that is too fine."""
    decay = torch.stack((1 - z.real, -z.imag), 1)
    exponents = _exponents(row_peaks(decay, "row"), bits).clamp(least, _MOST_DECAY_EXPONENT)
    integers = torch.ldexp(decay, exponents[:, None]).round_().long()
    if (integers.abs() > largest_integer(bits)).any():
        raise ValueError(f"{bits} bits do not hold 1 - {name}, whose parts reach {decay.abs().max():.7g}")
    return integers, exponents


def _drawn_in(integers: Tensor, exponents: Tensor, most: int) -> Tensor:
    """Brings z = 1 - integers 2^-exponents nearer to zero until |z|^2 - 1, as integers, is at most `most`."""
    one = torch.ones_like(exponents, dtype=torch.int64) << exponents
    while True:
        re, im = one - integers[:, 0], -integers[:, 1]  # of z
        grows = re**2 + im**2 - one**2 > most
        if not grows.any():
            return integers
        along = re.abs() >= im.abs()
        integers[:, 0] += torch.where(grows & along, re.sign(), 0)
        integers[:, 1] += torch.where(grows & ~along, im.sign(), 0)


def row_peaks(weight: Tensor, scale: WeightScale) -> Tensor:
    """Largest magnitude of each row (rows,), or of the whole ()."""
    magnitude = weight.abs()
    if scale == "tensor":
        return magnitude.amax() if weight.numel() else weight.new_zeros(())
    rows = magnitude.reshape(len(weight), -1)
    return rows.amax(1) if rows.shape[1] else weight.new_zeros(len(weight))


def spread(exponents: Tensor, weight: Tensor) -> Tensor:
    """(rows,) or () -> a shape that broadcasts to the weight's."""
    return exponents.reshape(-1, *(1,) * (weight.ndim - 1)) if exponents.ndim else exponents


def dequantize(integers: np.ndarray, exponents: np.ndarray) -> np.ndarray:
    """integers * 2 ** -exponents in float64, exactly; exponents is () or one for each row."""
    exponents = np.asarray(exponents)
    if exponents.ndim:
        exponents = exponents.reshape(-1, *(1,) * (integers.ndim - 1))
    return np.ldexp(integers.astype(np.float64), -exponents)


def _exponents(max_abs: Tensor, bits: int) -> Tensor:
    """`exponent_for_range` of a tensor in float64; 0 where max_abs is 0."""
    mantissa, exponent = torch.frexp(max_abs)  # max_abs = mantissa * 2 ** exponent, mantissa in [0.5, 1)
    # max_abs * 2 ** (bits - 1 - exponent); a half above the largest integer, which is odd, would round up.
    clips = mantissa * 2.0 ** (bits - 1) >= largest_integer(bits) + 0.5
    return torch.where(max_abs == 0, 0, bits - 1 - exponent - clips.int())


def _check_bits(bits: int) -> None:
    if type(bits) is not int or not 2 <= bits <= 32:
        raise ValueError(f"bits is {bits!r}, expected 2 to 32")
