"""The fixed-point nodes that remember."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from lrnn.program.fixed.base import FixedNode, Rounded, with_shift
from lrnn.program.node import axes
from lrnn.quant import largest_integer


@dataclass(frozen=True, eq=False)
class Diagonal(Rounded):
    """h = lambda h + x, complex and diagonal, with what the shift drops kept for the next frame.

    `decay` is 1 - lambda: a slow state's lambda is so near to 1 that its distance from 1, which is all that
    matters, would be left with few bits. With D = decay and s = decay_exponent,

        q = D h + rest          complex; 39 bits
        h = saturate(h - (q >> s) + x)
        rest = q mod 2 ** s

    so that nothing is rounded away: a slow state neither drifts nor sticks above its last bit. h is off by at
    most sqrt(2) (1 + |1 - lambda| / (1 - |lambda|)) last bits, and a pole that turns fast and decays slowly
    may ring on at that level in silence. h is `state_bits` wide; x is shifted to its exponent, as every value
    is. The node's value is h, shifted.

    Attributes:
        decay: (P, 2) re, im.
        decay_exponent: (P,) 1 to 30.
        state_exponent: of h.
        state_bits: of h.
    """

    op: ClassVar[str] = "fixed_diagonal"
    state_dtype: ClassVar[str] = "int32"
    decay: np.ndarray = field(kw_only=True, metadata=axes("P", 2, dtypes=("int16", "int32")))
    decay_exponent: np.ndarray = field(kw_only=True, metadata=axes("P", dtypes=("int8",)))
    state_exponent: int = field(kw_only=True)
    state_bits: int = field(kw_only=True)

    def __post_init__(self):
        super().__post_init__()
        self._check_exponent("state_exponent", self.state_exponent)
        self._check_bits("state_bits", self.state_bits)
        for p, (re, im) in enumerate(self.decay.tolist()):
            s = int(self.decay_exponent[p])
            if not 1 <= s <= 30:
                raise self.error(f"decay_exponent[{p}] is {s}, expected 1 to 30")
            if ((1 << s) - re) ** 2 + im**2 >= 1 << 2 * s:
                raise self.error(f"state {p} does not decay: |lambda| is 1 or more")

    def width(self, widths):
        """2 P."""
        self._expect("input width", widths[0], 2 * len(self.decay))
        return 2 * len(self.decay)

    @property
    def state_width(self) -> int:
        """4 P: the last h, and its rest."""
        return 4 * len(self.decay)

    @property
    def state_limits(self) -> tuple[np.ndarray, np.ndarray]:
        """(4 P,) least and greatest integers of the state."""
        most = np.full(2 * len(self.decay), largest_integer(self.state_bits))
        rest = (np.int64(1) << self.decay_exponent.astype(np.int64)) - 1
        return np.concatenate((-most, 0 * most)), np.concatenate((most, np.repeat(rest, 2)))

    def widest(self, inputs):
        """See Rounded.widest: |q|."""
        return max(self.greatest(inputs), *self._products())

    def _products(self) -> list[int]:
        """Of each state, a bound on |q|, the one sum of more than 32 bits."""
        most, one = largest_integer(self.state_bits), np.int64(1)
        decays = np.abs(self.decay.astype(np.int64)).sum(1).tolist()
        steps = (one << self.decay_exponent.astype(np.int64)).tolist()
        return [decay * most + step for decay, step in zip(decays, steps, strict=True)]

    def sums(self, inputs):
        """See Rounded.sums: of each state, then of what it reads, then of what it makes."""
        most, x = largest_integer(self.state_bits), inputs[0]
        shift = x.exponent - self.state_exponent
        x_most = (with_shift(x.magnitude, shift) >> max(shift, 0)) + 1
        for p, (q, s) in enumerate(zip(self._products(), self.decay_exponent.tolist(), strict=True)):
            self._fit(q, p)
            yield most + (q >> s) + 1 + x_most, 0
        yield x.magnitude, shift
        yield most, self.state_exponent - self.exponent


@dataclass(frozen=True, eq=False)
class MeanPool(FixedNode):
    """y[t] = mean of x[0..t], halves up: floor((2 sum + count) / (2 count))."""

    op: ClassVar[str] = "fixed_mean_pool"
    state_dtype: ClassVar[str] = "int64"
    size: int = field(kw_only=True)  # width of the input

    def width(self, widths):
        """That of its input."""
        self._expect("input width", widths[0], self.size)
        return self.size

    @property
    def state_width(self) -> int:
        """The sum so far and the count of frames."""
        return self.size + 1

    @property
    def state_limits(self) -> tuple[np.ndarray, np.ndarray]:
        """(size + 1,) least and greatest integers of the state: a century of frames fits."""
        most = np.full(self.size + 1, 1 << 60)
        return np.append(-most[:-1], 0), most
