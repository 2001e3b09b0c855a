"""The nodes of a Program: what each computes on a frame, its shapes, and what it carries from frame to frame.

A node makes one value, a vector of fixed width that bears the node's name, from the values named in
`inputs`. Nodes know no batch and no future. Tensors are numpy arrays, declared with `axes`; everything else
is a plain JSON value. A new node is a dataclass with `op`, `width` and, if it remembers, `state_width`; the
file format and the checks follow from its fields.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from lrnn.program.node import Node, axes

MOST_TOKENS = 1 << 24
"""A token's number is a float32, which holds integers up to here."""


@dataclass(frozen=True, eq=False)
class Linear(Node):
    """y = W x + b. Masked weights are plain zeros in W."""

    op: ClassVar[str] = "linear"
    weight: np.ndarray = field(metadata=axes("rows", "cols"))
    bias: np.ndarray | None = field(default=None, metadata=axes("rows"))

    def width(self, widths):
        """Rows of the weight."""
        self._expect("input width", widths[0], self.weight.shape[1])
        return self.weight.shape[0]


@dataclass(frozen=True, eq=False)
class Affine(Node):
    """y = scale * x + shift, element by element (D of an S5; a batch norm that folds into no matrix)."""

    op: ClassVar[str] = "affine"
    scale: np.ndarray = field(metadata=axes("n"))
    shift: np.ndarray = field(metadata=axes("n"))

    def width(self, widths):
        """That of its input."""
        self._expect("input width", widths[0], len(self.scale))
        return len(self.scale)


@dataclass(frozen=True, eq=False)
class Diagonal(Node):
    """h = a h + x, complex and diagonal. Values hold (re, im) pairs side by side: 2 P numbers."""

    op: ClassVar[str] = "diagonal"
    a: np.ndarray = field(metadata=axes("P", 2))  # re, im

    def width(self, widths):
        """2 P."""
        self._expect("input width", widths[0], 2 * len(self.a))
        return 2 * len(self.a)

    @property
    def state_width(self) -> int:
        """2 P: the last h."""
        return 2 * len(self.a)


@dataclass(frozen=True, eq=False)
class Gated(Node):
    """h = u + g (x - u), u the last h, or that turned by `rotation`: reads g = 1 - f, then x.

    g (N,) lies in [0, 1]: what is written, f what is kept. Real: x, h are (N,). With a rotation they hold
    (re, im) pairs side by side, 2 N numbers, u = rotation * h is a complex product, and g counts for both
    parts. An HGRN's recurrence, f exp(j theta) h + (1 - f) x.
    """

    op: ClassVar[str] = "gated"
    arity: ClassVar[int] = 2
    size: int = 0  # N
    rotation: np.ndarray | None = field(default=None, metadata=axes("N", 2))  # cos, sin

    def width(self, widths):
        """N, or 2 N with a rotation."""
        if self.rotation is not None:
            self._expect("rows of its rotation", len(self.rotation), self.size)
        self._expect("first input's width", widths[0], self.size)
        self._expect("second input's width", widths[1], self.state_width)
        return self.state_width

    @property
    def state_width(self) -> int:
        """That of the value: the last h."""
        return self.size if self.rotation is None else 2 * self.size


@dataclass(frozen=True, eq=False)
class Embedding(Node):
    """y = weight[token]. Reads the program's input: one number per frame, a token's."""

    op: ClassVar[str] = "embedding"
    weight: np.ndarray = field(metadata=axes("V", "n"))

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


@dataclass(frozen=True, eq=False)
class Relu(Node):
    """y = max(x, 0), element by element: on a complex value, by parts."""

    op: ClassVar[str] = "relu"


@dataclass(frozen=True, eq=False)
class PairRelu(Node):
    """The paper's ReLU of complex numbers: the pair where re > 0, or re = 0 and im > 0; else zeros."""

    op: ClassVar[str] = "pair_relu"

    def width(self, widths):
        """That of its input, which is even."""
        self._expect("input width modulo 2", widths[0] % 2, 0)
        return widths[0]


@dataclass(frozen=True, eq=False)
class Sigmoid(Node):
    """y = 1 / (1 + exp(-x))."""

    op: ClassVar[str] = "sigmoid"


@dataclass(frozen=True, eq=False)
class Silu(Node):
    """y = x / (1 + exp(-x))."""

    op: ClassVar[str] = "silu"


@dataclass(frozen=True, eq=False)
class Gelu(Node):
    """GELU in its tanh form: 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))."""

    op: ClassVar[str] = "gelu"


@dataclass(frozen=True, eq=False)
class LayerNorm(Node):
    """y = (x - mean) / sqrt(var + eps) * scale + shift over the vector, biased variance."""

    op: ClassVar[str] = "layer_norm"
    scale: np.ndarray = field(metadata=axes("n"))
    shift: np.ndarray = field(metadata=axes("n"))
    eps: float = 1e-6

    def width(self, widths):
        """That of its input."""
        if not 0 <= self.eps < math.inf:
            raise self.error(f"eps is {self.eps}, expected a finite number >= 0")
        self._expect("input width", widths[0], len(self.scale))
        return len(self.scale)


@dataclass(frozen=True, eq=False)
class RmsNorm(Node):
    """y = x / sqrt(mean(x^2) + eps) * scale over the vector."""

    op: ClassVar[str] = "rms_norm"
    scale: np.ndarray = field(metadata=axes("n"))
    eps: float = 1e-6

    def width(self, widths):
        """That of its input."""
        if not 0 <= self.eps < math.inf:
            raise self.error(f"eps is {self.eps}, expected a finite number >= 0")
        self._expect("input width", widths[0], len(self.scale))
        return len(self.scale)


@dataclass(frozen=True, eq=False)
class Add(Node):
    """y = x0 + x1."""

    op: ClassVar[str] = "add"
    arity: ClassVar[int] = 2

    def width(self, widths):
        """The common width."""
        self._expect("second input's width", widths[1], widths[0])
        return widths[0]


@dataclass(frozen=True, eq=False)
class Product(Node):
    """y = x0 * x1, element by element (the gate)."""

    op: ClassVar[str] = "product"
    arity: ClassVar[int] = 2

    def width(self, widths):
        """The common width."""
        self._expect("second input's width", widths[1], widths[0])
        return widths[0]


@dataclass(frozen=True, eq=False)
class Round(Node):
    """y = round(x * 2^exponent) / 2^exponent, half to even (the paper's quantised input)."""

    op: ClassVar[str] = "round"
    exponent: int = 0

    def width(self, widths):
        """That of its input."""
        if abs(self.exponent) > 126:
            raise self.error(f"exponent is {self.exponent}, expected -126 to 126")
        return widths[0]


@dataclass(frozen=True, eq=False)
class MeanPool(Node):
    """y[t] = mean of x[0..t]: a causal mean over time."""

    op: ClassVar[str] = "mean_pool"
    size: int = 0  # width of the input

    def width(self, widths):
        """That of its input."""
        self._expect("input width", widths[0], self.size)
        return self.size

    @property
    def state_width(self) -> int:
        """The sum so far and the count of frames."""
        return self.size + 1


@dataclass(frozen=True, eq=False)
class LogSoftmax(Node):
    """y = x - log(sum(exp(x))) over the vector."""

    op: ClassVar[str] = "log_softmax"


NODES: dict[str, type[Node]] = {
    kind.op: kind
    for kind in (
        Linear,
        Affine,
        Diagonal,
        Gated,
        Embedding,
        Relu,
        PairRelu,
        Sigmoid,
        Silu,
        Gelu,
        LayerNorm,
        RmsNorm,
        Add,
        Product,
        Round,
        MeanPool,
        LogSoftmax,
    )
}
