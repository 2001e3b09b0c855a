"""The study's arithmetic: fronts, and costs at equal quality."""

from __future__ import annotations

import json

import pytest
from scripts import script


@pytest.fixture(scope="module")
def pareto():
    return script("pareto")


def row(kind: str, k: float, cost: float, si_snr: float, seed: int = 0) -> dict:
    costs = dict.fromkeys(("macs", "macs_effective", "macs_weights", "file_bytes"), cost)
    noisy = {"noisy_si_snr": 8.0, "si_snri": si_snr - 8.0, "clips": 38, "steps": 6000}
    return {"kind": kind, "k": k, "seed": seed, "si_snr": si_snr, **costs, **noisy}


DENSE = [row("dense", 0.25, 100, 11.0), row("dense", 0.5, 400, 12.0), row("dense", 1.0, 1600, 12.5)]


def test_the_front_leaves_out_what_a_cheaper_model_beats(pareto):
    worse = [*DENSE, row("dense", 2.0, 6400, 12.4)]
    assert [r["k"] for r in pareto.front(worse, "file_bytes", 0)] == [0.25, 0.5, 1.0]


def test_rows_of_models_that_are_elsewhere_stay(pareto, tmp_path):
    report = tmp_path / "study.json"
    wanted = [pareto.Run("dense", 0.5, 0, 6000), pareto.Run("sparse", 2.0, 0, 6000)]
    assert pareto.reported(wanted, report) == []
    report.write_text(json.dumps({"models": DENSE}))
    assert pareto.reported(wanted, report) == [DENSE[1]]
    assert pareto.reported([pareto.Run("dense", 0.5, 0, 4000)], report) == []


def test_the_front_takes_the_run_of_the_seed_where_there_is_one(pareto):
    again = [row("dense", 0.5, 400, 12.2, seed=1), *DENSE]
    assert [r["si_snr"] for r in pareto.front(again, "file_bytes", 1)] == [11.0, 12.2, 12.5]
    assert [r["si_snr"] for r in pareto.front(again, "file_bytes", 0)] == [11.0, 12.0, 12.5]


@pytest.mark.parametrize(
    ("quality", "ratio", "bound"),
    [
        (12.0, 4.0, ""),
        (11.5, 2.0, ""),  # half way between 100 and 400 along the logarithm: 200
        (12.25, 8.0, ""),
        (13.0, 16.0, ">="),
        (10.0, 1.0, "<="),
    ],
)
def test_cost_at_equal_quality(pareto, quality, ratio, bound):
    found = pareto.equal_quality(row("sparse", 1.0, 100, quality), DENSE, "macs_effective")
    assert found["ratio"] == pytest.approx(ratio)
    assert found["bound"] == bound


def test_the_table_has_every_run_and_every_ratio(pareto):
    rows = [*DENSE, row("sparse", 1.0, 100, 12.0), row("sparse", 1.0, 100, 11.5, seed=1)]
    text = pareto.markdown(rows, pareto.claims(rows), "python experiments/pareto.py")
    assert text.count("| dense |") == 3
    assert text.count("| sparse |") == 2
    assert "| 1 | 0 | 4.00 | 4.00 | 4.00 |" in text
    assert "| 1 | 1 | 2.00 | 2.00 | 2.00 |" in text


def test_the_plan_has_each_run_once_and_says_where_it_lives(pareto):
    runs = pareto.plan(6000, seeds=2)
    assert len({run.name for run in runs}) == len(runs) == 11
    assert {(r.kind, r.k) for r in runs} == {
        *(("dense", k) for k in (0.25, 0.5, 1.0)),
        *(("sparse", k) for k in (0.5, 1.0, 2.0)),
        *(("structured", k) for k in (0.5, 1.0)),
    }


def test_equal_time_gives_small_networks_more_steps(pareto):
    steps = {run.k: run.steps for run in pareto.plan(6000, seeds=1, equal="time")}
    assert steps[1.0] == 6000
    assert steps[0.25] > steps[0.5] > steps[1.0] > steps[2.0]
