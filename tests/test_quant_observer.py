"""Observers against plain numpy, and the calibration of programs against a direct computation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import lrnn
from lrnn.program import nodes as op
from lrnn.program.calibrate import calibrate
from lrnn.program.torch_executor import TorchExecutor
from lrnn.quant import Histogram, Range, Ranges, exponent_for_range, largest_integer

RNG = np.random.default_rng(0)
SAMPLES = {
    "normal": RNG.standard_normal(200_000),
    "laplace": RNG.laplace(size=200_000) * 1e-3,
    "rectified": np.maximum(RNG.standard_normal(200_000), 0) * 40,
    "outliers": np.append(RNG.standard_normal(200_000), [50.0, -80.0]),
    "uniform": RNG.uniform(-1, 1, 200_000),
}


def seen(values: np.ndarray, parts: int = 5) -> Histogram:
    histogram = Histogram("x")
    for part in np.array_split(values.astype(np.float32), parts):
        histogram.see(torch.from_numpy(part))
    return histogram


@pytest.mark.parametrize("name", SAMPLES)
def test_extremes_are_exact(name):
    values = SAMPLES[name].astype(np.float32)
    expected = Range(float(abs(values).max()), float(values.min()), float(values.max()), values.size)
    assert seen(values).range() == expected
    assert seen(values, 1).range() == seen(values, 17).range()


@pytest.mark.parametrize("percentile", [50, 99, 99.9, 100])
@pytest.mark.parametrize("name", SAMPLES)
def test_percentiles_to_a_bin(name, percentile):
    values = abs(SAMPLES[name].astype(np.float32))
    expected = np.percentile(values[values > 0], percentile, method="inverted_cdf")
    got = seen(values).range("percentile", percentile=percentile).max_abs
    assert expected <= got <= expected * (1 + 1 / 128)


def clipping_error(values: np.ndarray, exponent: int, bits: int) -> float:
    most = largest_integer(bits)
    return float(
        np.square(np.clip(np.rint(values * 2.0**exponent), -most, most) * 2.0**-exponent - values).mean()
    )


@pytest.mark.parametrize("bits", [2, 4, 6, 8, 12])
@pytest.mark.parametrize("name", SAMPLES)
def test_the_best_power_of_two_is_found(name, bits):
    """By trying them all on the numbers themselves; where two are all but equal, either will do."""
    values = SAMPLES[name].astype(np.float32).astype(np.float64)
    finest = exponent_for_range(abs(values).max(), bits)
    errors = {e: clipping_error(values, e, bits) for e in range(finest - 2, finest + 12)}
    got = exponent_for_range(seen(values).range("mse", bits).max_abs, bits)
    assert errors[got] <= 1.01 * min(errors.values())


def test_clipping_pays_where_there_are_outliers():
    histogram = seen(SAMPLES["outliers"])
    assert histogram.range("minmax").max_abs == 80
    assert histogram.range("mse", 4).max_abs < 8
    assert histogram.range("mse", 16).max_abs == 80  # enough bits: nothing is clipped


def test_an_empty_observer_refuses():
    histogram = Histogram("blocks.0.relu")
    histogram.see(torch.empty(0, 4))
    for observer in ("minmax", "percentile", "mse"):
        with pytest.raises(ValueError, match=r"value 'blocks\.0\.relu' was not observed"):
            histogram.range(observer)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_what_is_no_number_is_refused_and_not_counted(bad):
    histogram = seen(np.ones(3), 1)
    with pytest.raises(ValueError, match="value 'x' has NaN or infinite numbers on the calibration data"):
        histogram.see(torch.tensor([1.0, bad]))
    assert histogram.range() == Range(1.0, 1.0, 1.0, 3)


def test_extremes_of_the_type_and_zeros():
    tiny, huge = 1e-45, float(np.finfo(np.float32).max)
    histogram = seen(np.array([0.0, tiny, huge]), 1)
    assert histogram.range("percentile", percentile=100).max_abs == huge
    zeros = seen(np.zeros(4), 1)
    assert [zeros.range(o).max_abs for o in ("minmax", "percentile", "mse")] == [0.0] * 3
    with pytest.raises(ValueError, match="percentile is 0, expected above 0"):
        zeros.range("percentile", percentile=0)
    with pytest.raises(ValueError, match="observer is 'median'"):
        zeros.range("median")


# Programs


def program() -> lrnn.Program:
    torch.manual_seed(0)
    config = lrnn.SequenceModelConfig(
        d_in=5, d_out=3, d_model=12, d_state=16, blocks=2, n_layers=2, relu="parts"
    )
    return lrnn.compile(lrnn.SequenceModel(config))


def batches() -> list[np.ndarray]:
    rng = np.random.default_rng(2)
    return [rng.standard_normal(shape).astype(np.float32) for shape in ((2, 30, 5), (40, 5), (3, 1500, 5))]


@pytest.mark.parametrize("observer", ["minmax", "percentile", "mse"])
def test_calibrate_equals_a_direct_computation(observer):
    """All values of all clips at once; chunks of long clips carry their state on."""
    prog = program()
    found = calibrate(prog, batches(), observer, bits=6, percentile=99)
    assert (found.observer, found.clips) == (observer, 6)
    assert list(found.values) == list(prog.widths)
    traces = [TorchExecutor(prog).trace(torch.from_numpy(np.atleast_3d(b.T).T))[0] for b in batches()]
    wide = ["ssm.B", "ssm.state", "ssm.C", "ssm.D", "gate"]
    never_clipped = {f"blocks.{i}.{name}" for i in (0, 1) for name in wide} | {"decoder"}
    for name in prog.widths:
        values = np.concatenate([trace[name].numpy().ravel() for trace in traces])
        chosen = "minmax" if name in never_clipped else observer
        expected = seen(values).range(chosen, 6, 99)
        got = found[name]
        assert got.count == expected.count
        for field in ("min", "max", "max_abs"):
            assert getattr(got, field) == pytest.approx(getattr(expected, field), rel=0.01, abs=1e-6), name
    assert found["blocks.0.ssm.state"].min < 0 == found["blocks.0.ssm.relu"].min


def test_known_ranges_are_kept():
    kept = Range(123.0, -1.0, 1.0, 7)
    known = Ranges({"relu": kept, "of another program": kept}, "mse", 3)
    found = calibrate(program(), batches(), known=known)
    assert found["relu"] == kept
    assert "of another program" not in found.values
    assert found["input"].max_abs == max(abs(b).max() for b in batches())


def test_bad_data_is_named():
    prog = program()
    with pytest.raises(ValueError, match="batches is empty"):
        calibrate(prog, [])
    with pytest.raises(ValueError, match=r"batch 1 has shape \(30, 4\), expected \(frames, 5\)"):
        calibrate(prog, [np.zeros((30, 5)), np.zeros((30, 4))])
    with pytest.raises(ValueError, match=r"batch 0 has shape \(0, 5\)"):
        calibrate(prog, [np.zeros((0, 5))])
    with pytest.raises(ValueError, match="batch 0 has NaN or infinite values"):
        calibrate(prog, [np.full((3, 5), np.nan)])
    with pytest.raises(ValueError, match="observer is 'median', expected one of minmax, percentile, mse"):
        calibrate(prog, batches(), "median")
    with pytest.raises(ValueError, match="percentile is 101"):
        calibrate(prog, batches(), "percentile", percentile=101)


def test_a_value_that_overflows_is_named():
    big = op.Affine("big", ("input",), np.full(2, 1e30, np.float32), np.zeros(2, np.float32))
    bigger = op.Affine("bigger", ("big",), np.full(2, 1e30, np.float32), np.zeros(2, np.float32))
    prog = lrnn.Program("input", 2, (big, bigger), "bigger")
    with pytest.raises(ValueError, match="value 'bigger' has NaN or infinite numbers"):
        calibrate(prog, [np.ones((1, 2), np.float32)])


def test_memory_does_not_grow_with_the_data():
    histogram = seen(SAMPLES["normal"])
    before = histogram._counts.numel()
    for _ in range(3):
        histogram.see(torch.randn(100_000))
    assert histogram._counts.numel() == before
    assert histogram.count == 500_000
