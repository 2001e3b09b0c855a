"""How sure a mean over clips is: percentile intervals from resampling the clips."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

RESAMPLES, SEED, LEVEL = 2000, 0, 0.95
_AT_ONCE = 1 << 16  # draws at a time: few enough for the cache, however many clips there are


class Interval(NamedTuple):
    """A mean and the central `LEVEL` of its bootstrap distribution."""

    mean: float
    low: float
    high: float


def intervals(values: np.ndarray) -> list[Interval]:
    """The mean of each column and its interval (Efron and Tibshirani 1993, section 13.3).

    Rows are drawn with replacement, whole: columns stay paired. The same values give the same intervals.

    Args:
        values: (n, k) finite, n >= 1, a row for each clip.

    Returns:
        k intervals.
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 2 or not len(values):
        raise ValueError(f"values has shape {values.shape}, expected (n, k) with n >= 1")
    if not np.isfinite(values).all():
        raise ValueError("values has NaN or infinity, expected finite numbers")
    rng = np.random.default_rng(SEED)
    n, means = len(values), []
    at_once = max(1, _AT_ONCE // n)
    for first in range(0, RESAMPLES, at_once):
        rows = rng.integers(n, size=(min(at_once, RESAMPLES - first), n))
        rows += n * np.arange(len(rows))[:, None]
        counts = np.bincount(rows.ravel(), minlength=rows.size).reshape(rows.shape)  # how often each is drawn
        means.append(counts @ values / n)
    low, high = np.quantile(np.concatenate(means), ((1 - LEVEL) / 2, (1 + LEVEL) / 2), axis=0)
    return [Interval(*map(float, found)) for found in zip(values.mean(0), low, high, strict=True)]
