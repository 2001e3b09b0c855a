"""The study of dense against sparse on Loihi 2: what stands in for a trained network is like it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scripts import EXPERIMENTS, script

from lrnn.profile.count import count


@pytest.fixture(scope="module")
def loihi():
    return script("loihi")


@pytest.fixture(scope="module")
def trained(loihi) -> list[dict]:
    return loihi.networks(EXPERIMENTS / "results" / "pareto.json")


@pytest.mark.parametrize(("kind", "k"), [("dense", 0.25), ("sparse", 0.5)])
def test_a_stand_in_has_the_trained_networks_weights_and_activity(loihi, trained, kind, k):
    row = next(r for r in trained if r["kind"] == kind and r["k"] == k)
    program = loihi.stand_in(row)
    matrices = sum(c.macs_weights for c in count(program) if c.op == "linear")
    wanted = row["macs_weights"] - loihi.diagonals(row)
    assert matrices == pytest.approx(wanted, rel=0 if kind == "dense" else 0.03)
    found = loihi.scaled(program, dict.fromkeys(loihi.sent(program), 0.5), 0.7)
    effective = sum(
        float(found[node.inputs[0]] @ np.count_nonzero(node.weight, axis=0))
        for node in program.nodes
        if node.op == "linear"
    )
    assert effective == pytest.approx(0.7 * matrices)


def test_the_report_that_is_there_is_of_these_networks(loihi, trained):
    report = json.loads((EXPERIMENTS / "results" / "loihi.json").read_text())
    assert len(report["models"]) == len(trained)
    for row in trained:
        mine = next(r for r in report["models"] if loihi.same(r, row))
        assert mine["si_snr"] == row["si_snr"]
    assert {r["kind"] for r in loihi.reported(EXPERIMENTS / "results" / "loihi.json")} == {"dense", "sparse"}
    text = (EXPERIMENTS / "results" / "loihi.md").read_text()
    assert "authors' chip measurements" in text.replace("\n", " ")
    assert "estimate, not a measurement" in text


def test_without_a_report_the_trained_networks_are_asked_for(loihi, tmp_path):
    with pytest.raises(SystemExit, match="expected one or --runs DIR"):
        loihi.reported(tmp_path / "none.json")
