"""The fixed-point nodes that need a table: functions of one number, norms, and rows of tokens."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from lrnn.program.fixed.base import BIASES, WEIGHTS, FixedNode, Rounded
from lrnn.program.fixed.format import Format
from lrnn.program.node import axes
from lrnn.program.nodes import MOST_TOKENS
from lrnn.quant import largest_integer


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
class Norm(Rounded):
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
    scale: np.ndarray = field(kw_only=True, metadata=axes("n", dtypes=WEIGHTS))
    scale_exponent: np.ndarray = field(kw_only=True, metadata=axes("n", dtypes=("int8",)))
    bias: np.ndarray = field(kw_only=True, metadata=axes("n", dtypes=BIASES))
    eps: int = field(kw_only=True)
    centred: bool = field(kw_only=True)

    NORMAL_EXPONENT: ClassVar[int] = 16  # of t

    def __post_init__(self):
        super().__post_init__()
        self._check_symmetric("scale", self.scale)
        if self.eps < 1:
            raise self.error(f"eps is {self.eps}, expected at least 1")

    def width(self, widths):
        """That of its input."""
        self._expect("input width", widths[0], len(self.scale))
        return len(self.scale)

    def shift(self) -> np.ndarray:
        """(n,) of scale t + bias, to the exponent of the value."""
        return self.scale_exponent.astype(np.int64) + self.NORMAL_EXPONENT - self.exponent

    def sums(self, inputs):
        """See Rounded.sums."""
        n, x = len(self.scale), inputs[0].magnitude
        self._fit(n * n * x * x + self.eps)
        normal = int(np.sqrt(n) + 2) << self.NORMAL_EXPONENT
        self._fit(2 * n * x << 17)
        for scale, bias, shift in zip(
            self.scale.tolist(), self.bias.tolist(), self.shift().tolist(), strict=True
        ):
            yield abs(scale) * normal + abs(bias), shift


@dataclass(frozen=True, eq=False)
class Embedding(Rounded):
    """y = row number x of a table. Row r is `weight[r] * 2 ** -weight_exponent[r]`.

    A program whose frames are tokens begins with it: x is one float, a whole number from 0 to V - 1.
    """

    op: ClassVar[str] = "fixed_embedding"
    weight: np.ndarray = field(kw_only=True, metadata=axes("V", "n", dtypes=WEIGHTS))
    weight_exponent: np.ndarray = field(kw_only=True, metadata=axes("V", dtypes=("int8",)))

    def __post_init__(self):
        super().__post_init__()
        self._check_symmetric("weight", self.weight)

    def width(self, widths):
        """n."""
        self._expect("input width", widths[0], 1)
        if len(self.weight) > MOST_TOKENS:
            raise self.error(f"it knows {len(self.weight)} tokens, expected at most {MOST_TOKENS}")
        return self.weight.shape[1]

    @property
    def tokens(self) -> int:
        """V."""
        return len(self.weight)

    def format(self, inputs):
        """See Node.format."""
        if inputs[0]:
            raise self.error("it reads integers, expected floats: a token's number")
        return self._format(inputs)

    def shift(self) -> np.ndarray:
        """(V,) of each row, to the exponent of the value."""
        return self.weight_exponent.astype(np.int64) - self.exponent

    def sums(self, inputs):
        """See Rounded.sums."""
        if not self.weight.size:
            return ()
        peaks = np.abs(self.weight.astype(np.int64)).max(1).tolist()
        return zip(peaks, self.shift().tolist(), strict=True)
