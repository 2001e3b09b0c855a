"""The nodes of a Program: what each computes on one frame, its shapes, and what it carries from frame to frame.

A node makes one value, a vector of fixed width that bears the node's name, from the values named in `inputs`. Nodes know no
batch and no future. Tensors are numpy arrays; everything else is a plain JSON value. A new node is a dataclass with `op`,
`width` and, if it remembers, `state_width`; the file format and the checks follow from its fields.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np


@dataclass(frozen=True, eq=False)
class Node:
    """Base of all nodes. `name` is the value it makes, `inputs` the values it reads."""

    op: ClassVar[str]
    arity: ClassVar[int] = 1

    name: str
    inputs: tuple[str, ...]

    def width(self, widths: tuple[int, ...]) -> int:
        """Width of the value made from inputs of these widths; ValueError where they do not fit."""
        return widths[0]

    @property
    def state_width(self) -> int:
        """Numbers carried from one frame to the next; they start at zero."""
        return 0

    def _expect(self, what: str, found: int, expected: int) -> None:
        if found != expected:
            raise ValueError(f"node {self.name!r} ({self.op}): {what} is {found}, expected {expected}")


@dataclass(frozen=True, eq=False)
class Linear(Node):
    """y = W x + b. Masked weights are plain zeros in W."""

    op: ClassVar[str] = "linear"
    weight: np.ndarray  # (rows, cols)
    bias: np.ndarray | None = None  # (rows,)

    def width(self, widths):
        """Rows of the weight."""
        self._expect("input width", widths[0], self.weight.shape[1])
        if self.bias is not None:
            self._expect("bias length", len(self.bias), self.weight.shape[0])
        return self.weight.shape[0]


@dataclass(frozen=True, eq=False)
class Affine(Node):
    """y = scale * x + shift, element by element (D of an S5; a batch norm that folds into no matrix)."""

    op: ClassVar[str] = "affine"
    scale: np.ndarray  # (n,)
    shift: np.ndarray  # (n,)

    def width(self, widths):
        """That of its input."""
        self._expect("input width", widths[0], len(self.scale))
        self._expect("shift length", len(self.shift), len(self.scale))
        return len(self.scale)


@dataclass(frozen=True, eq=False)
class Diagonal(Node):
    """h = a h + x, complex and diagonal. Values hold (re, im) pairs side by side: 2 P numbers for P states."""

    op: ClassVar[str] = "diagonal"
    a: np.ndarray  # (P, 2) re, im

    def width(self, widths):
        """2 P."""
        self._expect("input width", widths[0], 2 * len(self.a))
        return 2 * len(self.a)

    @property
    def state_width(self) -> int:
        """2 P: the last h."""
        return 2 * len(self.a)


@dataclass(frozen=True, eq=False)
class Relu(Node):
    """y = max(x, 0), element by element: on a complex value, by parts."""

    op: ClassVar[str] = "relu"


@dataclass(frozen=True, eq=False)
class PairRelu(Node):
    """The paper's ReLU of a complex number: the whole (re, im) pair where re > 0, or re = 0 and im > 0; else zeros."""

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
class Gelu(Node):
    """GELU in its tanh form: 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))."""

    op: ClassVar[str] = "gelu"


@dataclass(frozen=True, eq=False)
class LayerNorm(Node):
    """y = (x - mean) / sqrt(var + eps) * scale + shift over the vector, biased variance."""

    op: ClassVar[str] = "layer_norm"
    scale: np.ndarray  # (n,)
    shift: np.ndarray  # (n,)
    eps: float = 1e-6

    def width(self, widths):
        """That of its input."""
        self._expect("input width", widths[0], len(self.scale))
        self._expect("shift length", len(self.shift), len(self.scale))
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
        Relu,
        PairRelu,
        Sigmoid,
        Gelu,
        LayerNorm,
        Add,
        Product,
        Round,
        MeanPool,
        LogSoftmax,
    )
}
