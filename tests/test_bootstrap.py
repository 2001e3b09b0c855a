"""Bootstrap intervals against the normal approximation, and the same every time."""

from __future__ import annotations

import numpy as np
import pytest

from lrnn.data import bootstrap
from lrnn.data.bootstrap import intervals


def test_intervals_are_those_of_the_central_limit():
    values = np.random.default_rng(0).normal((3.0, -1.0), (2.0, 0.5), (400, 2))
    for found, column in zip(intervals(values), values.T, strict=True):
        half = 1.96 * column.std() / 20
        assert found.mean == pytest.approx(column.mean())
        assert found.low == pytest.approx(column.mean() - half, abs=0.15 * half)
        assert found.high == pytest.approx(column.mean() + half, abs=0.15 * half)


def test_intervals_cover_the_true_mean_as_often_as_they_say():
    rng = np.random.default_rng(1)
    covered = sum(found.low <= 0 <= found.high for found in intervals(rng.standard_normal((60, 300))))
    assert covered / 300 == pytest.approx(0.95, abs=0.05)


def test_rows_stay_together():
    """The interval of a difference is that of pairs: narrow where both sides move together."""
    rng = np.random.default_rng(2)
    before = rng.normal(0, 10, 100)
    after = before + 1
    noisy, _, better = intervals(np.column_stack((before, after, after - before)))
    assert noisy.high - noisy.low > 2
    assert (better.low, better.high) == pytest.approx((1, 1))


def test_the_same_values_give_the_same_intervals_whatever_else_is_measured(monkeypatch):
    values = np.random.default_rng(3).standard_normal((50, 3))
    assert intervals(values) == intervals(values)
    assert intervals(values)[1] == pytest.approx(intervals(values[:, 1:2])[0], abs=1e-12)
    monkeypatch.setattr(bootstrap, "_AT_ONCE", 50 * 7)  # many pieces, as for many clips
    in_pieces = intervals(values)
    for found, whole in zip(in_pieces, intervals(values), strict=True):
        assert found == pytest.approx(whole, abs=1e-12)


def test_one_clip_has_no_spread():
    assert intervals(np.array([[2.0]])) == [(2.0, 2.0, 2.0)]


@pytest.mark.parametrize("values", [np.zeros((0, 2)), np.zeros(3)])
def test_shapes(values):
    with pytest.raises(ValueError, match="values has shape"):
        intervals(values)


def test_nan_is_refused():
    with pytest.raises(ValueError, match="NaN"):
        intervals(np.array([[1.0], [np.nan]]))
