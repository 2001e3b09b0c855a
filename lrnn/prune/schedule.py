"""How the sparsity grows over training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

ScheduleName = Literal["cubic", "linear", "constant", "oneshot"]


class Schedule(Protocol):
    """What a Pruner asks of a schedule.

    Attributes:
        name: tells schedules apart in checkpoints.
        start: first optimiser iteration with a choice of masks.
        end: iteration of the last choice; from then on the masks are frozen.
    """

    name: ClassVar[str]

    @property
    def start(self) -> int:
        """See above."""
        ...

    @property
    def end(self) -> int:
        """See above."""
        ...

    def fraction(self, iteration: int) -> float:
        """Part of the final sparsity that is due at an optimiser iteration, 0 to 1; 1 from `end` on."""
        ...


@dataclass(frozen=True)
class _Span:
    """From iteration `start` to `end`; start = end prunes at once."""

    start: int = 0
    end: int = 0

    def __post_init__(self):
        if not 0 <= self.start <= self.end:
            raise ValueError(f"start is {self.start} and end is {self.end}, expected 0 <= start <= end")

    def _progress(self, iteration: int) -> float:
        if iteration >= self.end:
            return 1.0
        return 0.0 if iteration <= self.start else (iteration - self.start) / (self.end - self.start)


@dataclass(frozen=True)
class CubicSchedule(_Span):
    """Sparsity rises from 0 at iteration `start` to its final value at `end`, fast at first.

    Zhu & Gupta 2017, equation 1.
    """

    name: ClassVar[str] = "cubic"

    def fraction(self, iteration: int) -> float:
        """1 - (1 - progress)^3."""
        return 1.0 - (1.0 - self._progress(iteration)) ** 3


@dataclass(frozen=True)
class LinearSchedule(_Span):
    """Sparsity rises from 0 at iteration `start` to its final value at `end` by equal steps."""

    name: ClassVar[str] = "linear"

    def fraction(self, iteration: int) -> float:
        """The progress itself."""
        return self._progress(iteration)


@dataclass(frozen=True)
class ConstantSchedule(_Span):
    """The whole sparsity from iteration `start` on; until `end` the choice of masks stays open."""

    name: ClassVar[str] = "constant"

    def fraction(self, iteration: int) -> float:
        """0 before `start`, then 1."""
        return float(iteration >= self.start)


@dataclass(frozen=True)
class OneShotSchedule:
    """The whole sparsity at iteration `start`, and the masks frozen there."""

    start: int = 0
    name: ClassVar[str] = "oneshot"

    def __post_init__(self):
        if self.start < 0:
            raise ValueError(f"start is {self.start}, expected at least 0")

    @property
    def end(self) -> int:
        """The same iteration."""
        return self.start

    def fraction(self, iteration: int) -> float:
        """0 before `start`, then 1."""
        return float(iteration >= self.start)


def make_schedule(name: ScheduleName, start: int, end: int) -> Schedule:
    """The schedule called `name`; "oneshot" has no use for `end`.

    Raises:
        ValueError that names the argument.
    """
    if name == OneShotSchedule.name:
        return OneShotSchedule(start)
    spans = {kind.name: kind for kind in (CubicSchedule, LinearSchedule, ConstantSchedule)}
    if name not in spans:
        expected = ", ".join(map(repr, [*spans, OneShotSchedule.name]))
        raise ValueError(f"schedule is {name!r}, expected one of {expected}")
    return spans[name](start, end)
