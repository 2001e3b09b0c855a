"""The nodes of a fixed-point Program: integers in, integers out, except at its two ends.

Every value is a vector of integers with a static Format: `integer * 2 ** -exponent`, saturated at `bits`. A
node sums in an accumulator that holds every sum (`accumulator_bits` says whether 32 bits are proved), shifts
once with rounding and saturates once. Shifts are not stored: they follow from the exponents of what a node
reads, holds and makes. lrnn.program.fixed.arithmetic says what a shift is, numpy_nodes what each node
computes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar, get_args

import numpy as np

from lrnn.program.fixed.format import Format
from lrnn.program.nodes import Node, axes
from lrnn.quant import Rounding, largest_integer

MOST_EXPONENT = 126  # 2 ** -126 is the smallest normal float32
_WEIGHTS = ("int8", "int16")
_BIASES = ("int32", "int64")


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

    def _fit(self, bound: int, most_bits: int = 64) -> int:
        """Bits, 32 or 64, of an accumulator for sums up to `bound`; ValueError where there is none."""
        if bound >= 1 << (most_bits - 1):
            raise self.error(f"a sum could reach {float(bound):.3g} and overflow {most_bits} bits")
        return 32 if bound < 1 << 31 else 64


@dataclass(frozen=True, eq=False)
class _Rounding(FixedNode):
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
        """32 or 64: what provably holds every sum in any order, with the half that rounds and, where the shift
        is to the left, shifted.
        """
        return max((self._fit(with_shift(*pair)) for pair in self.sums(inputs)), default=32)

    def sums(self, inputs: tuple[Format, ...]) -> Iterable[tuple[int, int]]:
        """Pairs of a bound on a sum of magnitudes, and the shift that follows."""
        raise NotImplementedError


def with_shift(bound: int, shift: int) -> int:
    return bound << -shift if shift <= 0 else bound + (1 << (shift - 1))


@dataclass(frozen=True, eq=False)
class Quantize(_Rounding):
    """From floats to integers: x 2 ** exponent, to the nearest, halves to even, saturated."""

    op: ClassVar[str] = "fixed_quantize"

    def format(self, inputs):
        """See Node.format."""
        if inputs[0]:
            raise self.error("it reads integers, expected floats")
        if self.rounding != "nearest_even":
            raise self.error(f"rounding is {self.rounding!r}, expected 'nearest_even'")
        return Format.saturated(self.exponent, self.bits)


@dataclass(frozen=True, eq=False)
class Dequantize(FixedNode):
    """From integers to floats, exactly."""

    op: ClassVar[str] = "fixed_dequantize"

    def _format(self, inputs):
        if inputs[0].bits > 25:
            raise self.error(f"it reads {inputs[0].bits} bits, expected at most 25: float32 holds no more")
        return None


@dataclass(frozen=True, eq=False)
class Rescale(_Rounding):
    """The same value with another exponent or width."""

    op: ClassVar[str] = "fixed_rescale"

    def sums(self, inputs):
        return [(inputs[0].magnitude, inputs[0].exponent - self.exponent)]


@dataclass(frozen=True, eq=False)
class Linear(_Rounding):
    """y = W x + b. Row r of W is `weight[r] * 2 ** -weight_exponent[r]`; b stands at the scale of the sums."""

    op: ClassVar[str] = "fixed_linear"
    weight: np.ndarray = field(kw_only=True, metadata=axes("rows", "cols", dtypes=_WEIGHTS))
    weight_exponent: np.ndarray = field(kw_only=True, metadata=axes("rows", dtypes=("int8",)))
    bias: np.ndarray = field(kw_only=True, metadata=axes("rows", dtypes=_BIASES))

    def width(self, widths):
        """Rows of the weight."""
        self._expect("input width", widths[0], self.weight.shape[1])
        return self.weight.shape[0]

    def shift(self, x: Format) -> np.ndarray:
        """(rows,) of the sums, to the exponent of the value."""
        return self.weight_exponent.astype(np.int64) + x.exponent - self.exponent

    def bounds(self, x: Format) -> list[int]:
        """Of each row, the greatest sum of magnitudes."""
        weights = np.abs(self.weight.astype(np.int64)).sum(1).tolist()
        biases = [abs(b) for b in self.bias.tolist()]
        return [w * x.magnitude + b for w, b in zip(weights, biases, strict=True)]

    def sums(self, inputs):
        return zip(self.bounds(inputs[0]), self.shift(inputs[0]).tolist(), strict=True)


@dataclass(frozen=True, eq=False)
class Affine(_Rounding):
    """y = scale x + shift, element by element; `scale` and `bias` as in Linear."""

    op: ClassVar[str] = "fixed_affine"
    scale: np.ndarray = field(kw_only=True, metadata=axes("n", dtypes=_WEIGHTS))
    scale_exponent: np.ndarray = field(kw_only=True, metadata=axes("n", dtypes=("int8",)))
    bias: np.ndarray = field(kw_only=True, metadata=axes("n", dtypes=_BIASES))

    def width(self, widths):
        """That of its input."""
        self._expect("input width", widths[0], len(self.scale))
        return len(self.scale)

    def shift(self, x: Format) -> np.ndarray:
        """(n,) of the sums, to the exponent of the value."""
        return self.scale_exponent.astype(np.int64) + x.exponent - self.exponent

    def sums(self, inputs):
        scales, biases = self.scale.tolist(), self.bias.tolist()
        bounds = [abs(s) * inputs[0].magnitude + abs(b) for s, b in zip(scales, biases, strict=True)]
        return zip(bounds, self.shift(inputs[0]).tolist(), strict=True)


@dataclass(frozen=True, eq=False)
class Diagonal(_Rounding):
    """h = lambda h + x, complex and diagonal, with what the shift drops kept for the next frame.

    `decay` is 1 - lambda: a slow state's lambda is so near to 1 that its distance from 1, which is all that
    matters, would be left with few bits. With D = decay and s = decay_exponent,

        q = D h + rest          complex; 39 bits
        h = saturate(h - (q >> s) + x)
        rest = q mod 2 ** s

    so that nothing is rounded away: the state neither drifts nor sticks above the last bit, however slow. h is
    `state_bits` wide; x is shifted to its exponent, as every value is. The node's value is h, shifted.

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

    def sums(self, inputs):
        most, x = largest_integer(self.state_bits), inputs[0]
        shift = x.exponent - self.state_exponent
        yield x.magnitude, shift
        x_most = (with_shift(x.magnitude, shift) >> max(shift, 0)) + 1
        for decay, s in zip(
            np.abs(self.decay.astype(np.int64)).sum(1).tolist(), self.decay_exponent.tolist()
        ):
            q = decay * most + (1 << s)
            self._fit(q)  # the one sum of more than 32 bits; the rest of the node is told by what follows
            yield most + (q >> s) + 1 + x_most, 0
        yield most, self.state_exponent - self.exponent


@dataclass(frozen=True, eq=False)
class Relu(FixedNode):
    """y = max(x, 0), element by element: on a complex value, by parts."""

    op: ClassVar[str] = "fixed_relu"

    def _format(self, inputs):
        (x,) = inputs
        return Format(x.exponent, x.bits, max(x.low, 0), max(x.high, 0))


@dataclass(frozen=True, eq=False)
class PairRelu(FixedNode):
    """The pair where re > 0, or re = 0 and im > 0; else zeros."""

    op: ClassVar[str] = "fixed_pair_relu"

    def width(self, widths):
        """That of its input, which is even."""
        self._expect("input width modulo 2", widths[0] % 2, 0)
        return widths[0]

    def _format(self, inputs):
        (x,) = inputs
        return Format(x.exponent, x.bits, min(x.low, 0), max(x.high, 0))


@dataclass(frozen=True, eq=False)
class Table(FixedNode):
    """A function of one number: 2 ** m + 1 values over the range of the input, linear in between.

    Attributes:
        table: entry i belongs to x = -2 ** (bits - 1) + i 2 ** (bits - m), with the bits of the input.
        function: its name, "sigmoid", "silu" or "gelu".
        max_error: greatest distance from the function over all inputs, in units of the function.
        exponent: of the entries.
        bits: of the entries.
    """

    op: ClassVar[str] = "fixed_table"
    table: np.ndarray = field(kw_only=True, metadata=axes("entries", dtypes=("int16", "int32")))
    function: str = field(kw_only=True)
    max_error: float = field(kw_only=True)
    exponent: int = field(kw_only=True)
    bits: int = field(kw_only=True)

    def __post_init__(self):
        super().__post_init__()
        self._check_exponent("exponent", self.exponent)
        self._check_bits("bits", self.bits)
        segments = len(self.table) - 1
        if segments < 2 or segments & (segments - 1):
            raise self.error(f"table has {segments + 1} entries, expected a power of two and one more")
        if np.abs(self.table.astype(np.int64)).max() > largest_integer(self.bits):
            raise self.error(f"table has an entry beyond {self.bits} bits")

    def _format(self, inputs):
        m = (len(self.table) - 1).bit_length() - 1
        if not m <= inputs[0].bits <= 16:
            raise self.error(f"it reads {inputs[0].bits} bits, expected {m} to 16")
        return Format(self.exponent, self.bits, int(self.table.min()), int(self.table.max()))


@dataclass(frozen=True, eq=False)
class Norm(_Rounding):
    """y = (x - mean) / sqrt(var + eps) * scale + bias over the vector; with `centred` false the mean is taken
    as zero: an RMS norm.

        S = sum(x) or 0,  V = n sum(x x) - S S + eps,  m 2 ** -(31 + j) = 1 / sqrt(V)   (a table's)
        t = (n x - S) m 2 ** -(15 + j)      shifted with rounding: 16 bits after the point
        y = scale t + bias

    Attributes:
        scale: (n,) `scale * 2 ** -scale_exponent`.
        bias: (n,) at the scale of scale t.
        eps: at the scale of V, at least 1.
    """

    op: ClassVar[str] = "fixed_norm"
    scale: np.ndarray = field(kw_only=True, metadata=axes("n", dtypes=_WEIGHTS))
    scale_exponent: np.ndarray = field(kw_only=True, metadata=axes("n", dtypes=("int8",)))
    bias: np.ndarray = field(kw_only=True, metadata=axes("n", dtypes=_BIASES))
    eps: int = field(kw_only=True)
    centred: bool = field(kw_only=True)

    NORMAL_EXPONENT: ClassVar[int] = 16  # of t

    def width(self, widths):
        """That of its input."""
        self._expect("input width", widths[0], len(self.scale))
        return len(self.scale)

    def shift(self) -> np.ndarray:
        """(n,) of scale t + bias, to the exponent of the value."""
        return self.scale_exponent.astype(np.int64) + self.NORMAL_EXPONENT - self.exponent

    def sums(self, inputs):
        n, x = len(self.scale), inputs[0].magnitude
        if self.eps < 1:
            raise self.error(f"eps is {self.eps}, expected at least 1")
        self._fit(n * n * x * x + self.eps)
        normal = int(np.sqrt(n) + 2) << self.NORMAL_EXPONENT
        self._fit(2 * n * x << 17)
        for scale, bias, shift in zip(self.scale.tolist(), self.bias.tolist(), self.shift().tolist()):
            yield abs(scale) * normal + abs(bias), shift


@dataclass(frozen=True, eq=False)
class Add(_Rounding):
    """y = x0 + x1, the coarser of them shifted to the exponent of the finer."""

    op: ClassVar[str] = "fixed_add"
    arity: ClassVar[int] = 2

    def width(self, widths):
        """The common width."""
        self._expect("second input's width", widths[1], widths[0])
        return widths[0]

    def sums(self, inputs):
        finest = max(x.exponent for x in inputs)
        yield sum(x.magnitude << (finest - x.exponent) for x in inputs), finest - self.exponent


@dataclass(frozen=True, eq=False)
class Product(_Rounding):
    """y = x0 x1, element by element (the gate)."""

    op: ClassVar[str] = "fixed_product"
    arity: ClassVar[int] = 2

    def width(self, widths):
        """The common width."""
        self._expect("second input's width", widths[1], widths[0])
        return widths[0]

    def sums(self, inputs):
        x0, x1 = inputs
        yield x0.magnitude * x1.magnitude, x0.exponent + x1.exponent - self.exponent


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


FIXED_NODES: dict[str, type[Node]] = {
    kind.op: kind
    for kind in (
        Quantize,
        Dequantize,
        Rescale,
        Linear,
        Affine,
        Diagonal,
        Relu,
        PairRelu,
        Table,
        Norm,
        Add,
        Product,
        MeanPool,
    )
}
