"""Observers: what a value's numbers were, in memory that does not grow with their count."""

from __future__ import annotations

import math
from typing import get_args

import torch
from torch import Tensor

from lrnn.quant.exponent import exponent_for_range, largest_integer
from lrnn.quant.ranges import Observer, Range

_SHIFT = 16
"""Bits of a float32 that a bin does without: bins are 1/128 of an octave wide."""
_BINS = 1 << (31 - _SHIFT)
_FINER = 24  # octaves to look for the best grid in: an outlier may stand that far above the rest
_POINTS = 16  # in a bin, for the error of rounding it


class Histogram:
    """Extremes of a value and a histogram of its magnitudes; empty at first.

    Bins are named by the upper 15 bits of a magnitude in float32 and so cover all of that type, each 0.8 %
    wide or less. 256 kB, on the device of what it sees.

    Args:
        name: of the value, for errors.
    """

    def __init__(self, name: str):
        self.name = name
        self.count = 0
        self._low = self._high = 0.0
        self._counts: Tensor | None = None

    @torch.no_grad()
    def see(self, value: Tensor) -> None:
        """Add the numbers of a tensor of any shape; ValueError where one is NaN or infinite."""
        if value.numel() == 0:
            return
        value = value.detach().float()
        low, high = torch.stack(value.aminmax()).tolist()
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ValueError(f"value {self.name!r} has NaN or infinite numbers on the calibration data")
        self._low = min(self._low, low) if self.count else low
        self._high = max(self._high, high) if self.count else high
        bins = value.abs().flatten().view(torch.int32) >> _SHIFT
        counts = torch.bincount(bins, minlength=_BINS)
        self._counts = counts if self._counts is None else self._counts + counts
        self.count += value.numel()

    def range(self, observer: Observer = "minmax", bits: int = 16, percentile: float = 99.999) -> Range:
        """The range of all that was seen.

        Args:
            observer: what max_abs is. "minmax", the largest magnitude. "percentile", the magnitude that so
                many percent of the numbers do not exceed, zeros apart (a ReLU makes many). "mse", of all
                ranges that end where a power-of-two grid of `bits` bits does, the one with the least mean
                squared error of rounding and clipping.
            bits: of the grid of "mse".
            percentile: above 0, up to 100.

        Raises:
            ValueError: nothing was seen, or an argument is out of range.
        """
        check_observer(observer, percentile)
        if self.count == 0:
            raise ValueError(f"value {self.name!r} was not observed: its observer saw no numbers")
        largest = max(-self._low, self._high)
        if largest > 0 and observer == "percentile":
            largest = min(largest, self._percentile(percentile))
        elif largest > 0 and observer == "mse":
            largest = self._least_error(largest, bits)
        return Range(largest, self._low, self._high, self.count)

    def _percentile(self, percentile: float) -> float:
        """Upper edge of the bin where the share is reached."""
        counts = self._counts.clone()
        counts[0] = 0
        enough = math.ceil(percentile / 100 * counts.sum().item())
        reached = torch.searchsorted(counts.cumsum(0), enough)
        return _edges()[reached + 1].item()

    def _least_error(self, largest: float, bits: int) -> float:
        """The end of the best grid: the one that clips nothing, or one that is finer."""
        counts = self._counts.cpu()
        filled = counts.nonzero().flatten()
        low, high = _edges()[filled, None], _edges()[filled + 1, None].clamp(max=largest)
        points = low + (high - low) * (torch.arange(_POINTS, dtype=torch.float64) + 0.5) / _POINTS
        weights = counts[filled].double()
        finest = exponent_for_range(largest, bits)
        best, least = finest, math.inf
        for exponent in range(finest, finest + _FINER):
            integers = torch.ldexp(points, torch.tensor(exponent)).round().clamp(max=largest_integer(bits))
            error = (torch.ldexp(integers, torch.tensor(-exponent)) - points).square().mean(1) @ weights
            if error < least:
                best, least = exponent, error
        return largest if best == finest else math.ldexp(largest_integer(bits), -best)


def check_observer(observer: str, percentile: float) -> None:
    """Raise ValueError where an observer or its percentile is none."""
    if observer not in get_args(Observer):
        raise ValueError(f"observer is {observer!r}, expected one of {', '.join(get_args(Observer))}")
    if not 0 < percentile <= 100:
        raise ValueError(f"percentile is {percentile}, expected above 0 and up to 100")


def _edges() -> Tensor:
    """(bins + 1,) float64: where each bin begins, and where the last one ends."""
    edges = (torch.arange(_BINS + 1, dtype=torch.int64) << _SHIFT).clamp(max=0x7F7FFFFF)
    return edges.int().view(torch.float32).double()
