"""Energy counters: read, wrapped around, and missing; ops by name in profiler traces."""

from __future__ import annotations

import pytest
import torch

from lrnn.ops import SparseWeight, scan, sparse_linear
from lrnn.profile import energy


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package's counter, at 900 of 1000 microjoules, and a part of it that is not counted twice."""
    monkeypatch.setattr(energy, "POWERCAP", tmp_path)
    for name in ("intel-rapl:0", "intel-rapl:0:0"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "energy_uj").write_text("900\n")
        (tmp_path / name / "max_energy_range_uj").write_text("999\n")
    return tmp_path / "intel-rapl:0"


def test_joules_go_on_where_the_counter_starts_anew(package):
    counter, reason = energy.processor_energy()
    assert reason == ""
    for text, expected in (("950", 50e-6), ("30", 130e-6), ("30", 130e-6)):
        (package / "energy_uj").write_text(text)
        assert counter.joules() == pytest.approx(expected)


def test_joules_of_a_call(package):
    counter, _ = energy.processor_energy()
    made = 0

    def call(repeats: int) -> float:
        nonlocal made
        made += repeats
        (package / "energy_uj").write_text(str((900 + made) % 1000))  # a microjoule each
        return 0.01

    assert energy.joules_per_call(counter, call, seconds=0.02) == pytest.approx(1e-6, rel=1e-3)


def test_the_reason_is_told_where_there_is_no_counter(tmp_path, monkeypatch, package):
    (package / "energy_uj").unlink()
    assert energy.processor_energy()[0] is None
    assert "RAPL cannot be read" in energy.processor_energy()[1]
    monkeypatch.setattr(energy, "POWERCAP", tmp_path / "none")
    assert "has no RAPL package" in energy.processor_energy()[1]
    counter, reason = energy.device_energy()
    assert (counter is None) == ("NVML" in reason)


def test_ops_are_named_in_traces():
    w = SparseWeight.from_dense(torch.eye(6))
    values, x = w.values.requires_grad_(), torch.ones(2, 5, 6, requires_grad=True)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as trace:
        y = sparse_linear(x, SparseWeight(values, w.pattern))
        scan(torch.full((6,), 0.5), y)[0].sum().backward()
    names = {event.key for event in trace.key_averages()}
    ops = ("scan", "sparse_linear")
    assert {f"lrnn::{op}{suffix}" for op in ops for suffix in ("", "_backward")} <= names
