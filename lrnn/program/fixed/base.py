"""What all nodes of a fixed-point Program share: integers in, one rounding shift and one saturation, and the
proof that no sum overflows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import get_args

import numpy as np

from lrnn.program.fixed.format import Format
from lrnn.program.node import Node
from lrnn.quant import Rounding
from lrnn.quant.exponent import MOST_EXPONENT

MOST_SHIFT = 62  # of 64 bits
WEIGHTS = ("int8", "int16")
BIASES = ("int32", "int64")


@dataclass(frozen=True, eq=False)
class FixedNode(Node):
    """Base of the nodes that read integers."""

    def format(self, inputs):
        """See Node.format."""
        if not all(inputs):
            raise self.error("it reads floats, expected integers: a fixed_quantize node's")
        return self._format(inputs)

    def _format(self, inputs: tuple[Format, ...]) -> Format | None:
        return inputs[0]

    def _check_exponent(self, name: str, exponent: int) -> None:
        if abs(exponent) > MOST_EXPONENT:
            raise self.error(f"{name} is {exponent}, expected {-MOST_EXPONENT} to {MOST_EXPONENT}")

    def _check_bits(self, name: str, bits: int) -> None:
        if not 2 <= bits <= 32:
            raise self.error(f"{name} is {bits}, expected 2 to 32")

    def _fit(self, bound: int, row: int = 0, most_bits: int = 64) -> int:
        """Bits, 32 or 64, of an accumulator for sums up to `bound`; ValueError where there is none."""
        if bound >= 1 << (most_bits - 1):
            raise self.error(
                f"the sum of row {row} could reach {bound}, expected less than 2 ** {most_bits - 1}"
            )
        return 32 if bound < 1 << 31 else 64

    def _check_shift(self, shift: int, row: int = 0) -> None:
        if abs(shift) > MOST_SHIFT:
            raise self.error(f"row {row} is shifted by {shift}, expected {-MOST_SHIFT} to {MOST_SHIFT}")

    def _check_symmetric(self, name: str, integers: np.ndarray) -> None:
        if integers.dtype.kind != "i" or not integers.size:
            return  # another kind of number is named when the node joins a program
        least = np.iinfo(integers.dtype).min
        if integers.min() == least:
            raise self.error(f"{name} has {least}, expected at least {least + 1}: integers are symmetric")


@dataclass(frozen=True, eq=False)
class Rounded(FixedNode, ABC):
    """A node that shifts its sums to `exponent` and saturates them at `bits`."""

    exponent: int = 0
    bits: int = 16
    rounding: str = "nearest_even"

    def __post_init__(self):
        super().__post_init__()
        self._check_exponent("exponent", self.exponent)
        self._check_bits("bits", self.bits)
        if self.rounding not in get_args(Rounding):
            raise self.error(
                f"rounding is {self.rounding!r}, expected one of {', '.join(get_args(Rounding))}"
            )

    def _format(self, inputs):
        self.accumulator_bits(inputs)  # raises where a sum could overflow
        return Format.saturated(self.exponent, self.bits)

    def accumulator_bits(self, inputs: tuple[Format, ...]) -> int:
        """32 or 64: what provably holds every sum in any order, with the half that rounds and, where the
        shift is to the left, shifted.
        """
        return self._fit(self.greatest(inputs))

    def greatest(self, inputs: tuple[Format, ...]) -> int:
        """The greatest magnitude of a sum and of what its rounding and shift make of it."""
        greatest = 0
        for row, (bound, shift) in enumerate(self.sums(inputs)):
            self._check_shift(shift, row)
            bound = with_shift(bound, shift)
            self._fit(bound, row)
            greatest = max(greatest, bound)
        return greatest

    def widest(self, inputs: tuple[Format, ...]) -> int:
        """As `greatest`, with what a node multiplies on the way in more bits than it sums."""
        return self.greatest(inputs)

    @abstractmethod
    def sums(self, inputs: tuple[Format, ...]) -> Iterable[tuple[int, int]]:
        """Of each row, a bound on its sum of magnitudes, and the shift that follows."""


def with_shift(bound: int, shift: int) -> int:
    """The greatest magnitude on the way from a sum to what is saturated."""
    return bound << -shift if shift <= 0 else bound + (1 << (shift - 1))
