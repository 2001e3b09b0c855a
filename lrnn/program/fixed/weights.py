"""The integers of matrices, of diagonal maps and of recurrences."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lrnn.program import nodes as op
from lrnn.program.program import Program
from lrnn.quant import (
    Scheme,
    WeightScale,
    largest_integer,
    quantize_decay,
    quantize_rotation,
    quantize_weight,
)

MOST_SHIFT = 30
"""Bits that the sums of a row stand finer than its value; more would round to nothing."""
BIAS_BITS = 31
"""Width of a bias, so that a sum in 32 bits has room beside it."""


@dataclass(frozen=True)
class MapIntegers:
    """Of y = W x + b: W ~ weight * 2 ** -exponent by rows, bias at the scale of the sums."""

    weight: np.ndarray
    exponent: np.ndarray
    bias: np.ndarray

    def named(self, weight: str) -> dict[str, np.ndarray]:
        """As the fields of a node that calls its weight so."""
        return {weight: self.weight, f"{weight}_exponent": self.exponent, "bias": self.bias}


def matrix_bits(program: Program, node: op.Linear, scheme: Scheme) -> int:
    """Width of a matrix's weights: of B, which a state of an S5 reads, and of C, which reads one or its ReLU,
    those of their own.
    """
    if any(isinstance(n, op.Diagonal) for n in program.nodes if node.name in n.inputs):
        return scheme.b_bits
    makers = {n.name: n for n in program.nodes}
    source = makers.get(node.inputs[0])
    if isinstance(source, (op.Relu, op.PairRelu)):
        source = makers.get(source.inputs[0])
    return scheme.c_bits if isinstance(source, op.Diagonal) else scheme.weight_bits


def map_integers(
    weight: np.ndarray,
    bias: np.ndarray,
    bits: int,
    scale: WeightScale,
    x_exponent: int,
    exponent: int,
    bias_bits: int = BIAS_BITS,
) -> MapIntegers:
    """Integers of a matrix (rows, cols), or of a diagonal map (rows,), and of its bias.

    A row is as fine as its greatest weight allows, unless its bias would not fit `bias_bits` then, or its
    sums would be finer than the value by more than 30 bits.

    Args:
        weight: (rows, cols) or (rows,).
        bias: (rows,).
        bits: of the weights, with the sign.
        scale: an exponent for each row, or one for all.
        x_exponent: of what the map reads.
        exponent: of the value that it makes.
        bias_bits: at most 31.
    """
    _, exponents = quantize_weight(weight, bits, scale)
    exponents = np.broadcast_to(exponents, len(weight)).astype(np.int64)
    value = exponent - x_exponent  # a row with this exponent is not shifted at all
    empty = ~np.reshape(weight != 0, (len(weight), -1)).any(1)
    exponents = np.where(empty, value + MOST_SHIFT, exponents)
    room = bias_bits - 1 - np.frexp(np.abs(bias.astype(np.float64)))[1] - x_exponent
    exponents = np.minimum(exponents, np.minimum(np.where(bias != 0, room, exponents), value + MOST_SHIFT))
    if scale == "tensor":
        exponents = np.full(len(weight), exponents.min(initial=127))
    exponents = np.clip(exponents, -127, 127)
    by_row = exponents.reshape(-1, *(1,) * (weight.ndim - 1))
    most = largest_integer(bits)
    integers = np.clip(np.rint(np.ldexp(weight.astype(np.float64), by_row)), -most, most)
    biases = np.rint(np.ldexp(bias.astype(np.float64), exponents + x_exponent))
    most = largest_integer(BIAS_BITS + 1)
    return MapIntegers(
        integers.astype(np.int8 if bits <= 8 else np.int16),
        exponents.astype(np.int8),
        np.clip(biases, -most, most).astype(np.int32),
    )


def decay_integers(node: op.Diagonal, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """1 - lambda of every state with an exponent of its own, as `lrnn.quant.quantize_decay` rounds it.

    Args:
        node: in float.
        bits: of each part, with the sign.

    Returns:
        (P, 2) int16, or int32 above 16 bits, and exponents (P,) int8.

    Raises:
        ValueError: |lambda| is 1 or more before any rounding; names the node.
    """
    a = node.a.astype(np.float64)
    if (np.hypot(a[:, 0], a[:, 1]) >= 1).any():
        p = int(np.hypot(a[:, 0], a[:, 1]).argmax())
        raise node.error(f"|lambda| of state {p} is {np.hypot(*a[p]):.7g}, expected less than 1")
    try:
        integers, exponents = quantize_decay(a[:, 0] + 1j * a[:, 1], bits)
    except ValueError as error:
        raise node.error(str(error)) from None
    if (exponents < 1).any():
        raise node.error(f"1 - lambda of state {int(exponents.argmin())} does not fit {bits} bits")
    return _narrow(integers, bits), exponents.astype(np.int8)


def rotation_integers(node: op.Gated, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """1 - rotation of every state with an exponent of its own, as `lrnn.quant.quantize_rotation` rounds it.

    Args:
        node: in float, with a rotation.
        bits: of each part, with the sign.

    Returns:
        (N, 2) int16, or int32 above 16 bits, and exponents (N,) int8.

    Raises:
        ValueError: a magnitude is not 1; names the node.
    """
    rotation = node.rotation.astype(np.float64)
    try:
        integers, exponents = quantize_rotation(rotation[:, 0] + 1j * rotation[:, 1], bits)
    except ValueError as error:
        raise node.error(str(error)) from None
    return _narrow(integers, bits), exponents.astype(np.int8)


def _narrow(integers: np.ndarray, bits: int) -> np.ndarray:
    return integers.astype(np.int16 if bits <= 16 else np.int32)
