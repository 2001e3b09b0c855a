"""The nodes of a Program: what each computes on a frame, its shapes, and what it carries from frame to frame.

A node makes one value, a vector of fixed width that bears the node's name, from the values named in
`inputs`. Nodes know no batch and no future. Tensors are numpy arrays, declared with `axes`; everything else
is a plain JSON value. A new node is a dataclass with `op`, `width` and, if it remembers, `state_width`; the
file format and the checks follow from its fields.
"""

from __future__ import annotations

import math
from dataclasses import Field, dataclass, field, fields
from typing import TYPE_CHECKING, ClassVar

import numpy as np

if TYPE_CHECKING:
    from lrnn.program.fixed.format import Format


def axes(*lengths: str | int, dtypes: tuple[str, ...] = ("float32",)) -> dict:
    """An array's axes: a number is that length, a name stands for one length all over a node; and what it may
    hold once it is part of a Program.
    """
    return {"axes": lengths, "dtypes": dtypes}


def tensor_fields(kind: type[Node] | Node) -> dict[str, Field]:
    """The fields that hold arrays, by name. One may be None where that is the field's default."""
    return {f.name: f for f in fields(kind) if "axes" in f.metadata}


@dataclass(frozen=True, eq=False)
class Node:
    """Base of all nodes. `name` is the value it makes, `inputs` the values it reads."""

    op: ClassVar[str]
    arity: ClassVar[int] = 1
    state_dtype: ClassVar[str] = "float32"

    name: str
    inputs: tuple[str, ...]

    def __post_init__(self):
        lengths: dict[str, int] = {}  # of the axes named so far
        for name, declared in tensor_fields(self).items():
            value, axes = getattr(self, name), declared.metadata["axes"]
            if value is None and declared.default is None:
                continue
            if not isinstance(value, np.ndarray):
                raise self.error(f"{name} is {type(value).__name__}, expected an array {_text(axes)}")
            if value.ndim != len(axes):
                raise self.error(f"{name} has shape {value.shape}, expected {_text(axes)}")
            for axis, length in zip(axes, value.shape, strict=True):
                if length != (axis if isinstance(axis, int) else lengths.setdefault(axis, length)):
                    known = tuple(lengths.get(a, a) for a in axes)
                    raise self.error(f"{name} has shape {value.shape}, expected {_text(known)}")

    def width(self, widths: tuple[int, ...]) -> int:
        """Width of the value made from inputs of these widths; ValueError where they do not fit."""
        return widths[0]

    @property
    def state_width(self) -> int:
        """Numbers carried from one frame to the next; they start at zero."""
        return 0

    def format(self, inputs: tuple[Format | None, ...]) -> Format | None:
        """What kind of integers the node makes of such inputs, None where it makes floats.

        Raises:
            ValueError: the node does not read such values, or a sum in it could overflow.
        """
        if any(inputs):
            raise self.error("it reads integers, expected floats: see lrnn.program.fixed for integer nodes")
        return None

    def error(self, text: str) -> ValueError:
        """An error, to be raised, that names this node."""
        return ValueError(f"node {self.name!r} ({self.op}): {text}")

    def _expect(self, what: str, found: int, expected: int) -> None:
        if found != expected:
            raise self.error(f"{what} is {found}, expected {expected}")


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


def _text(axes: tuple) -> str:
    return f"({', '.join(map(str, axes))}{',' if len(axes) == 1 else ''})"


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
