"""What calibration found: the range of every value of a Program."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Literal, get_args

Observer = Literal["minmax", "percentile", "mse"]


@dataclass(frozen=True)
class Range:
    """Of one value, over all frames and its whole width.

    Args:
        max_abs: the range chosen by the observer; what lies beyond it saturates.
        min: smallest number seen.
        max: largest number seen.
        count: how many numbers were seen, at least 1.
    """

    max_abs: float
    min: float
    max: float
    count: int

    def __post_init__(self):
        for name in ("max_abs", "min", "max"):
            if not math.isfinite(getattr(self, name)):
                raise ValueError(f"{name} is {getattr(self, name)}, expected a finite number")
        if self.max_abs < 0:
            raise ValueError(f"max_abs is {self.max_abs}, expected at least 0")
        if self.min > self.max:
            raise ValueError(f"min is {self.min}, above max, {self.max}")
        if self.count < 1:
            raise ValueError(f"count is {self.count}, expected at least 1: an observer that saw nothing")


@dataclass(frozen=True)
class Ranges:
    """Of every value of a Program, by the value's name (that of its node, or of the input).

    Args:
        values: a Range by name.
        observer: how max_abs was chosen.
        clips: on how many clips.
    """

    values: Mapping[str, Range]
    observer: Observer
    clips: int

    def __post_init__(self):
        if not self.values:
            raise ValueError("ranges are empty")
        if self.observer not in get_args(Observer):
            raise ValueError(
                f"observer is {self.observer!r}, expected one of {', '.join(get_args(Observer))}"
            )
        if self.clips < 1:
            raise ValueError(f"clips is {self.clips}, expected at least 1")

    def __getitem__(self, name: str) -> Range:
        if name not in self.values:
            raise KeyError(f"value {name!r} was not calibrated")
        return self.values[name]

    def to_json(self) -> dict:
        """Plain values, for a file's header."""
        return {
            "observer": self.observer,
            "clips": self.clips,
            "values": {name: asdict(value) for name, value in self.values.items()},
        }

    @classmethod
    def from_json(cls, values: dict) -> Ranges:
        """The inverse of `to_json`; ValueError names what does not fit."""
        expected = sorted(f.name for f in fields(cls))
        if sorted(values) != expected:
            raise ValueError(f"ranges have fields {sorted(values)}, expected {expected}")
        read = {}
        for name, entry in values["values"].items():
            try:
                read[name] = Range(**entry)
            except (TypeError, ValueError) as error:
                raise ValueError(f"range of value {name!r}: {error}") from None
        return cls(read, values["observer"], values["clips"])
