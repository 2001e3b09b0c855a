"""The nodes of a fixed-point Program: integers in, integers out, except at its two ends.

Every value is a vector of integers with a static Format: `integer * 2 ** -exponent`, saturated at `bits`. A
node sums in an accumulator that holds every sum (`accumulator_bits` says whether 32 bits are proved), shifts
once with rounding and saturates once. Shifts are not stored: they follow from the exponents of what a node
reads, holds and makes. lrnn.program.fixed.arithmetic says what a shift is, numpy_nodes what each node
computes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from lrnn.program.fixed.base import BIASES, WEIGHTS, FixedNode, Rounded
from lrnn.program.fixed.format import Format
from lrnn.program.fixed.functions import Embedding, Norm, Table
from lrnn.program.fixed.memory import Diagonal, Gated, MeanPool
from lrnn.program.node import Node, axes


@dataclass(frozen=True, eq=False)
class Quantize(Rounded):
    """From floats to integers: x 2 ** exponent, to the nearest, halves to even, saturated."""

    op: ClassVar[str] = "fixed_quantize"

    def format(self, inputs):
        """See Node.format."""
        if inputs[0]:
            raise self.error("it reads integers, expected floats")
        if self.rounding != "nearest_even":
            raise self.error(f"rounding is {self.rounding!r}, expected 'nearest_even'")
        return Format.saturated(self.exponent, self.bits)

    def sums(self, inputs):
        """See Rounded.sums: none."""
        return ()


@dataclass(frozen=True, eq=False)
class Dequantize(FixedNode):
    """From integers to floats, exactly."""

    op: ClassVar[str] = "fixed_dequantize"

    def _format(self, inputs):
        if inputs[0].bits > 25:
            raise self.error(f"it reads {inputs[0].bits} bits, expected at most 25: float32 holds no more")
        if inputs[0].bits - 1 - inputs[0].exponent > 128:
            raise self.error(
                f"it reads {inputs[0].bits} bits of exponent {inputs[0].exponent}, which float32 cannot hold"
            )
        return None


@dataclass(frozen=True, eq=False)
class Rescale(Rounded):
    """The same value with another exponent or width."""

    op: ClassVar[str] = "fixed_rescale"

    def sums(self, inputs):
        """See Rounded.sums."""
        return [(inputs[0].magnitude, inputs[0].exponent - self.exponent)]


@dataclass(frozen=True, eq=False)
class Linear(Rounded):
    """y = W x + b. Row r of W is `weight[r] * 2 ** -weight_exponent[r]`; b is at the scale of the sums."""

    op: ClassVar[str] = "fixed_linear"
    weight: np.ndarray = field(kw_only=True, metadata=axes("rows", "cols", dtypes=WEIGHTS))
    weight_exponent: np.ndarray = field(kw_only=True, metadata=axes("rows", dtypes=("int8",)))
    bias: np.ndarray = field(kw_only=True, metadata=axes("rows", dtypes=BIASES))

    def __post_init__(self):
        super().__post_init__()
        self._check_symmetric("weight", self.weight)

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
        """See Rounded.sums."""
        return zip(self.bounds(inputs[0]), self.shift(inputs[0]).tolist(), strict=True)


@dataclass(frozen=True, eq=False)
class Affine(Rounded):
    """y = scale x + shift, element by element; `scale` and `bias` as in Linear."""

    op: ClassVar[str] = "fixed_affine"
    scale: np.ndarray = field(kw_only=True, metadata=axes("n", dtypes=WEIGHTS))
    scale_exponent: np.ndarray = field(kw_only=True, metadata=axes("n", dtypes=("int8",)))
    bias: np.ndarray = field(kw_only=True, metadata=axes("n", dtypes=BIASES))

    def __post_init__(self):
        super().__post_init__()
        self._check_symmetric("scale", self.scale)

    def width(self, widths):
        """That of its input."""
        self._expect("input width", widths[0], len(self.scale))
        return len(self.scale)

    def shift(self, x: Format) -> np.ndarray:
        """(n,) of the sums, to the exponent of the value."""
        return self.scale_exponent.astype(np.int64) + x.exponent - self.exponent

    def sums(self, inputs):
        """See Rounded.sums."""
        scales, biases = self.scale.tolist(), self.bias.tolist()
        bounds = [abs(s) * inputs[0].magnitude + abs(b) for s, b in zip(scales, biases, strict=True)]
        return zip(bounds, self.shift(inputs[0]).tolist(), strict=True)


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
class Add(Rounded):
    """y = x0 + x1, the coarser of them shifted to the exponent of the finer."""

    op: ClassVar[str] = "fixed_add"
    arity: ClassVar[int] = 2

    def width(self, widths):
        """The common width."""
        self._expect("second input's width", widths[1], widths[0])
        return widths[0]

    def sums(self, inputs):
        """See Rounded.sums."""
        finest = max(x.exponent for x in inputs)
        for x in inputs:
            self._check_shift(x.exponent - finest)
        yield sum(x.magnitude << (finest - x.exponent) for x in inputs), finest - self.exponent


@dataclass(frozen=True, eq=False)
class Product(Rounded):
    """y = x0 x1, element by element (the gate)."""

    op: ClassVar[str] = "fixed_product"
    arity: ClassVar[int] = 2

    def width(self, widths):
        """The common width."""
        self._expect("second input's width", widths[1], widths[0])
        return widths[0]

    def sums(self, inputs):
        """See Rounded.sums."""
        x0, x1 = inputs
        yield x0.magnitude * x1.magnitude, x0.exponent + x1.exponent - self.exponent


FIXED_NODES: dict[str, type[Node]] = {
    kind.op: kind
    for kind in (
        Quantize,
        Dequantize,
        Rescale,
        Linear,
        Affine,
        Embedding,
        Diagonal,
        Gated,
        Relu,
        PairRelu,
        Table,
        Norm,
        Add,
        Product,
        MeanPool,
    )
}
