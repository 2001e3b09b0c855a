"""How the sparsity grows over training."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CubicSchedule:
    """Sparsity rises from 0 at iteration `start` to its final value at `end`, fast at first.

    Zhu & Gupta 2017, equation 1. start = end prunes at once.
    """

    start: int = 0
    end: int = 0

    def __post_init__(self):
        if not 0 <= self.start <= self.end:
            raise ValueError(f"start is {self.start} and end is {self.end}, expected 0 <= start <= end")

    def fraction(self, iteration: int) -> float:
        """Part of the final sparsity that is due at an optimiser iteration, 0 to 1."""
        if iteration >= self.end:
            return 1.0
        if iteration <= self.start:
            return 0.0
        progress = (iteration - self.start) / (self.end - self.start)
        return 1.0 - (1.0 - progress) ** 3
