"""Loihi 2: the report's laws, and what others have published to hold it against."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from loihi_cases import SHIPPED
from test_profile_fixed import make_float

import lrnn
from lrnn.models import DENOISER_FLOAT
from lrnn.profile.loihi import activity, ndns, placement_report
from lrnn.profile.loihi import coefficients as known
from lrnn.profile.loihi.lower import lower
from lrnn.profile.loihi.published import PUBLISHED, validate
from lrnn.profile.loihi.report import BATCHES, report
from lrnn.program.torch_executor import TorchExecutor

# The report


@pytest.fixture(scope="module")
def found() -> dict:
    return placement_report(SHIPPED)


def test_intervals_are_ordered(found):
    def check(value, where):
        if isinstance(value, dict):
            for name, inner in value.items():
                if name not in ("coefficients", "placement"):
                    check(inner, f"{where}.{name}")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            for i, inner in enumerate(value):
                check(inner, f"{where}[{i}]")
        elif isinstance(value, list) and len(value) == 2 and not isinstance(value[0], str):
            assert value[0] <= value[1], where

    check(found, "report")
    assert found["title"] == "estimate, not a measurement"


def test_the_pipeline_is_no_faster_to_an_output_and_no_slower_to_the_next_frame(found):
    fall, pipe = found["modes"]["fall_through"], found["modes"]["pipelined"]
    assert all(f <= p * (1 + 1e-9) for f, p in zip(fall["latency_us"], pipe["latency_us"], strict=True))
    assert all(f <= p for f, p in zip(fall["frames_per_second"], pipe["frames_per_second"], strict=True))


def test_the_fastest_placement_is_no_slower_than_the_smallest(found):
    fast, small = found["spread"], found["modes"]
    assert fast["cores"][1] <= 128
    pairs = zip(fast["modes"]["fall_through"]["latency_us"], small["fall_through"]["latency_us"], strict=True)
    assert all(a <= b for a, b in pairs)


def test_bounds_hold_at_replication(found):
    one = found["batch"][0]
    assert one["cores"] == found["cores"]
    assert [row["streams"] for row in found["batch"]] == list(BATCHES)
    for row in found["batch"]:
        n = row["streams"]
        assert row["cores"] == [n * cores for cores in one["cores"]]
        assert row["energy_uj"] == one["energy_uj"]
        for name in ("fall_through_frames_per_second", "pipelined_frames_per_second"):
            assert row[name] == pytest.approx([n * rate for rate in one[name]])
        assert row["chips"][0] * 128 >= row["cores"][0] > (row["chips"][0] - 1) * 128


def test_measured_activity_costs_no_more_than_the_worst_case(found):
    frames = np.random.default_rng(0).standard_normal((40, 257)).astype(np.float32)
    mine = placement_report(SHIPPED, activity(SHIPPED, frames))
    assert mine["synops"] < found["synops"]
    for mode in ("fall_through", "pipelined"):
        for name in ("latency_us", "energy_uj"):
            pairs = zip(mine["modes"][mode][name], found["modes"][mode][name], strict=True)
            assert all(a <= b for a, b in pairs)
    assert mine["cores"] == found["cores"]


def test_activity_of_a_long_recording_is_counted_as_it_passes():
    """A stretch at a time, with the state carried on: as of all values at once."""
    program = SHIPPED
    frames = np.random.default_rng(0).standard_normal((1500, 257)).astype(np.float32)
    with torch.inference_mode():
        whole, _ = TorchExecutor(program).trace(torch.from_numpy(frames)[None])
    found = activity(program, frames)
    assert found.keys() == whole.keys()
    for name, value in whole.items():
        np.testing.assert_array_equal(found[name], (value[0].numpy() != 0).mean(0))


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        ({"encoder": np.ones(3)}, r"activity\['encoder'\] has shape \(3,\), expected"),
        ({"encoder": np.full(12, 2.0)}, r"activity\['encoder'\] leaves 0 to 1"),
    ],
)
def test_a_wrong_activity_is_refused_by_name(rates, message):
    network = lower(make_float(relu="none"))
    values = {c.value for g in network.groups for c in g.connections}
    rates = {next(v for v in values if v == "encoder"): rates["encoder"]}
    with pytest.raises(ValueError, match=message):
        report(network, rates)


def test_an_empty_program_has_nothing_to_place():
    with pytest.raises(ValueError, match="nothing to place"):
        lower(lrnn.Program("x", 3, (), "x"))


def test_fixed_and_float_of_one_network_are_placed_alike():
    floats = placement_report(lrnn.load(DENOISER_FLOAT))
    fixed = placement_report(SHIPPED)
    assert floats["neurons"] == fixed["neurons"]
    assert floats["cores"] == fixed["cores"]
    assert floats["synapses"] >= fixed["synapses"]  # rounding makes zeros


# Against what others published


def test_the_challenges_formula_makes_its_boards_figures():
    """Power times latency, to the digits that the board has; one entry's own figure is for a hop only."""
    found = known.parse(ndns.FILE)
    rows = [dict(zip(found["columns"], row, strict=True)) for row in found["board"]]
    assert len(rows) > 10
    for row in rows:
        if row["entry"] == "XTeam CTDNN_LAVADL":
            continue
        made = ndns.proxies(1e6 * row["power_proxy_mops"], 0, 1.0, row["latency_ms"] / 1e3)
        assert made["pdp_proxy_ops"] / 1e6 == pytest.approx(row["pdp_proxy_mops"], abs=0.011), row["entry"]


def test_a_neuron_counts_for_ten_synaptic_operations():
    made = ndns.proxies(synops=100, neurons=7, frame_seconds=0.008, latency_seconds=0.032)
    assert made["power_proxy_ops_per_second"] == pytest.approx(170 / 0.008)
    assert made["pdp_proxy_ops"] == pytest.approx(680)


def test_published_numbers_of_cores_are_met_within_a_fifth_from_each_other():
    for row, s in zip(validate(), PUBLISHED, strict=True):
        assert s.parameters == pytest.approx(1000 * s.parameters_k, rel=0.01)
        assert row["cores"][0] <= row["published"] <= row["cores"][1]
        assert row["limits"][0] <= row["limits"][1] <= row["published"]
        assert row["predicted"] == pytest.approx(row["published"], rel=0.2)
