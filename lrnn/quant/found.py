"""What of a model is quantised: weights, and those values that an integer program rounds to few bits.

Such a value, a *message*, is one that a matrix, a diagonal map, a table, a product, a norm or a mean reads.
What only sums and recurrences read stays wider and is left alone. Before a ReLU a value saturates where it
does after it, so that rounding after it is enough.

Names are those of the values of the Program that `lrnn.compile` makes of a model.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from torch import nn

from lrnn.nn import BatchNorm

Kind = Literal["message", "carried", "state", "sigmoid", "before_sigmoid", "opening", "gate"]
Role = Literal["matrix", "input", "output", "diagonal", "decay", "scale", "bounds", "rotation"]


@dataclass(frozen=True)
class Site:
    """One place where a value can be had.

    Attributes:
        name: of the value.
        owner: a module that it enters or leaves.
        side: which of the two.
        kind: "message" is rounded; so is "carried", what a recurrence carries or reads, and "sigmoid" and
            "before_sigmoid", whose ranges are bounded by that function; "state" is only bounded. Of a gated
            recurrence "opening" is the sigmoid that makes its gate and "gate" what a bound leaves of it.
        narrow: matrices read it here, see Scheme.message_bits.
        again: it was rounded at another site already, and differs here at most by being narrow.
    """

    name: str
    owner: nn.Module
    side: Literal["input", "output"]
    kind: Kind = "message"
    narrow: bool = False
    again: bool = False


@dataclass(frozen=True)
class Target:
    """One weight.

    Attributes:
        owner: the module.
        attribute: the parameter's name there.
        role: "matrix"; of an S5 "input" (B), "output" (C), "diagonal" (D), "decay" (Lambda_re and Lambda_im);
            "scale" of a batch norm that is folded into nothing and runs as a diagonal map; of an HGRN
            "rotation" (theta), of a stack of them "bounds".
        norm: a batch norm that is folded into it, or that it is part of, or None.
    """

    owner: nn.Module
    attribute: str
    role: Role
    norm: BatchNorm | None = None


@dataclass
class Found:
    """What is quantised below a module."""

    sites: list[Site] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)


def join(path: str, name: str) -> str:
    """A name below a path, which may be empty."""
    return f"{path}.{name}" if path else name
