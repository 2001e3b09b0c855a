"""The fixed-point nodes that remember."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from lrnn.program.fixed.base import FixedNode, Rounded, with_shift
from lrnn.program.fixed.format import Format
from lrnn.program.node import axes
from lrnn.quant import largest_integer


def shifted_magnitude(x: Format, shift: int) -> int:
    """A bound on |x| once it is shifted, with rounding."""
    return (with_shift(x.magnitude, shift) >> max(shift, 0)) + 1


def excesses(node: Diagonal | Gated) -> Iterator[int]:
    """Of each state, |1 - decay| ** 2 - 1 at the scale of the integers' squares.

    Raises:
        ValueError: a decay_exponent is not from 1 to 30; names the node.
    """
    for p, (re, im) in enumerate(node.decay.tolist()):
        s = int(node.decay_exponent[p])
        if not 1 <= s <= 30:
            raise node.error(f"decay_exponent[{p}] is {s}, expected 1 to 30")
        yield ((1 << s) - re) ** 2 + im**2 - (1 << 2 * s)


def products(node: Diagonal | Gated) -> list[int]:
    """Of each state, a bound on |decay h + rest|."""
    most, one = largest_integer(node.state_bits), np.int64(1)
    decays = np.abs(node.decay.astype(np.int64)).sum(1).tolist()
    steps = (one << node.decay_exponent.astype(np.int64)).tolist()
    return [decay * most + step for decay, step in zip(decays, steps, strict=True)]


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
        for p, over in enumerate(excesses(self)):
            if over >= 0:
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
        return max(self.greatest(inputs), *products(self))

    def sums(self, inputs):
        """See Rounded.sums: of each state, then of what it reads, then of what it makes."""
        most, x = largest_integer(self.state_bits), inputs[0]
        shift = x.exponent - self.state_exponent
        x_most = shifted_magnitude(x, shift)
        for p, (q, s) in enumerate(zip(products(self), self.decay_exponent.tolist(), strict=True)):
            self._fit(q, p)
            yield most + (q >> s) + 1 + x_most, 0
        yield x.magnitude, shift
        yield most, self.state_exponent - self.exponent


@dataclass(frozen=True, eq=False)
class Gated(Rounded):
    """h = (1 - g) u + g x, with u = h or, in complex states, u = rotation h; nothing is rounded away.

    The forget gate is 1 - g. A gate beyond 0 or 1 counts as 0 or 1. With e = gate_exponent, and x shifted to
    the exponent of h,

        u = h - ((D h + turn) >> s),  turn = (D h + turn) mod 2 ** s      complex: D = 1 - rotation
        q = g (u - x) + rest                                              real, for each part; 41 bits
        h = saturate(u - (q >> e))
        rest = q mod 2 ** e

    A real h lies between the last h and x, so that it never saturates where x does not, and is off by less
    than one last bit however long it remembers. A rotation is rounded towards the inside of the circle.

    Attributes:
        size: states N: the width of g. Values x and h are N wide or, with a rotation, 2 N: (re, im) pairs.
        decay: (N, 2) re, im of 1 - rotation; None where states are real.
        decay_exponent: (N,) 1 to 30, s above; None where states are real.
        gate_exponent: of g, 0 to 30.
        state_exponent: of h.
        state_bits: of h.
    """

    op: ClassVar[str] = "fixed_gated"
    arity: ClassVar[int] = 2
    state_dtype: ClassVar[str] = "int32"
    size: int = field(kw_only=True)
    decay: np.ndarray | None = field(
        default=None, kw_only=True, metadata=axes("N", 2, dtypes=("int16", "int32"))
    )
    decay_exponent: np.ndarray | None = field(
        default=None, kw_only=True, metadata=axes("N", dtypes=("int8",))
    )
    gate_exponent: int = field(kw_only=True)
    state_exponent: int = field(kw_only=True)
    state_bits: int = field(kw_only=True)

    def __post_init__(self):
        super().__post_init__()
        self._check_exponent("state_exponent", self.state_exponent)
        self._check_bits("state_bits", self.state_bits)
        if not 0 <= self.gate_exponent <= 30:
            raise self.error(f"gate_exponent is {self.gate_exponent}, expected 0 to 30")
        if (self.decay is None) != (self.decay_exponent is None):
            raise self.error("it has one of decay and decay_exponent, expected both or none")
        if self.decay is None:
            return
        self._expect("rows of decay", len(self.decay), self.size)
        for n, over in enumerate(excesses(self)):
            if over > 0:
                raise self.error(f"state {n} grows: |1 - decay| is above 1")

    @property
    def parts(self) -> int:
        """Numbers of a state: 2 where it is complex."""
        return 1 if self.decay is None else 2

    def width(self, widths):
        """N or 2 N."""
        self._expect("width of the gate", widths[0], self.size)
        self._expect("second input's width", widths[1], self.parts * self.size)
        return widths[1]

    @property
    def state_width(self) -> int:
        """2 N, the last h and rest; of complex states 6 N: h, turn, rest."""
        return 2 * self.size if self.decay is None else 6 * self.size

    @property
    def state_limits(self) -> tuple[np.ndarray, np.ndarray]:
        """Least and greatest integers of the state, as it lies."""
        width = self.parts * self.size
        most = np.full(width, largest_integer(self.state_bits))
        highs = [most, np.full(width, (1 << self.gate_exponent) - 1)]
        if self.decay is not None:
            turn = (np.int64(1) << self.decay_exponent.astype(np.int64)) - 1
            highs.insert(1, np.repeat(turn, 2))
        zeros = np.zeros(self.state_width - width, np.int64)
        return np.concatenate((-most, zeros)), np.concatenate(highs)

    def _format(self, inputs):
        self._expect("exponent of the gate", inputs[0].exponent, self.gate_exponent)
        return super()._format(inputs)

    def widest(self, inputs):
        """See Rounded.widest: |q|."""
        return max(self.greatest(inputs), self._product(inputs), *self._turns())

    def _turns(self) -> list[int]:
        return [] if self.decay is None else products(self)

    def _turned(self) -> int:
        """A bound on |u|."""
        most = largest_integer(self.state_bits)
        if self.decay is None:
            return most
        drops = zip(products(self), self.decay_exponent.tolist(), strict=True)
        return most + max((q >> s) + 1 for q, s in drops)

    def _apart(self, inputs: tuple[Format, ...]) -> int:
        """A bound on |u - x|."""
        return self._turned() + shifted_magnitude(inputs[1], inputs[1].exponent - self.state_exponent)

    def _product(self, inputs: tuple[Format, ...]) -> int:
        return (self._apart(inputs) + 1) << self.gate_exponent

    def sums(self, inputs):
        """See Rounded.sums: of the states, then of what they read, then of what they make."""
        for n, q in enumerate([*self._turns(), self._product(inputs)]):
            self._fit(q, n)
        yield self._turned() + self._apart(inputs) + 1, 0
        yield inputs[1].magnitude, inputs[1].exponent - self.state_exponent
        yield largest_integer(self.state_bits), self.state_exponent - self.exponent


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
