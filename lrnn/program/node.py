"""What every node of a Program is: a name, what it reads, its tensors, widths and state."""

from __future__ import annotations

from dataclasses import Field, dataclass, fields
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

    @property
    def tokens(self) -> int:
        """V where it reads a frame of the program that is the number of a token, 0 to V - 1; else 0."""
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


def _text(axes: tuple) -> str:
    return f"({', '.join(map(str, axes))}{',' if len(axes) == 1 else ''})"
