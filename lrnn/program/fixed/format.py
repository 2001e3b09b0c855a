"""What an integer value of a fixed-point program is: static, the same for every frame."""

from __future__ import annotations

from dataclasses import dataclass

from lrnn.quant import largest_integer


@dataclass(frozen=True)
class Format:
    """Of a value: the number meant is `integer * 2 ** -exponent`.

    Args:
        exponent: one for the whole vector.
        bits: width with the sign; the value saturates at +-(2 ** (bits - 1) - 1).
        low: least integer it can hold, where that is known to be more; 0 says that it has no sign.
        high: greatest.
    """

    exponent: int
    bits: int
    low: int
    high: int

    @classmethod
    def saturated(cls, exponent: int, bits: int) -> Format:
        """A value about which nothing is known but that it saturates."""
        return cls(exponent, bits, -largest_integer(bits), largest_integer(bits))

    @property
    def magnitude(self) -> int:
        """The greatest magnitude that it can hold."""
        return max(-self.low, self.high)
