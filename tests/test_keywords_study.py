"""The study of keywords: its plan, its table, its pairs, its picture."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from scripts import script

pytest.importorskip("soundfile")


@pytest.fixture(scope="module")
def study():
    return script("keywords")


def row(kind: str, k: float, right: list[int], form: str = "float", macs: int = 1000, seed: int = 0) -> dict:
    costs = {"macs": 10 * macs, "macs_weights": macs, "macs_effective": macs // 2, "file_bytes": 4 * macs}
    share = sum(right) / len(right)
    quality = {"accuracy": share, "low": share - 0.05, "high": share + 0.05, "accuracy_all_labels": share}
    run = {"kind": kind, "k": k, "seed": seed, "steps": 3000, "form": form}
    common = {"split": "validation", "clips": len(right), "frames_per_second": 50.0, "density": 0.1}
    return {**run, **common, **quality, **costs, "right": right}


ROWS = [
    row("dense", 0.25, [1, 0, 0, 1], macs=1000),
    row("dense", 0.25, [1, 0, 0, 0], "fixed", macs=1000),
    row("sparse", 0.75, [1, 1, 0, 1], macs=900),
    row("sparse", 1.0, [1, 1, 1, 1], macs=1500),
]


def test_the_plan_has_each_run_once_the_narrowest_first(study):
    runs = study.plan(3000, seeds=2)
    assert len({run.name for run in runs}) == len(runs) == 12
    assert (runs[0].kind, runs[0].k, runs[0].seed) == ("sparse", 0.5, 0)
    args = SimpleNamespace(data="D", held_out=0.0, runs="R")
    command = " ".join(runs[1].command(args))
    assert "--model.k 0.1875" in command
    assert "--trainer.callbacks.sparsity 0.0" in command
    assert "--ckpt_path last" in command


def test_the_table_has_every_model_and_every_pair(study):
    text = study.markdown(ROWS, "python experiments/keywords.py")
    assert text.count("\n| dense |") == 1
    assert text.count("\n| sparse |") == 2
    assert "| dense | 0.25 | 0 | **50.0** | 45.0 to 55.0 | 25.0 | 10,000 | 1,000 | 500 | 4 | 4 |" in text
    assert [cells[:7] for cells in study.pairs(ROWS)] == [
        ["0.75", "0.25", "0", "float", "0.90", "0.90", "+25.0"]
    ]


def test_rows_of_models_that_are_elsewhere_stay(study, tmp_path):
    report = tmp_path / "study.json"
    wanted = [study.Run("sparse", 0.75, 0, 3000)]
    assert study.rows_elsewhere(wanted, "float", report) == []
    report.write_text(json.dumps({"models": ROWS}))
    assert study.rows_elsewhere(wanted, "float", report) == [ROWS[2]]
    assert study.rows_elsewhere(wanted, "fixed", report) == []


def test_the_picture_is_drawn(study, tmp_path):
    pytest.importorskip("matplotlib")
    study.plot(tmp_path / "x.svg", ROWS)
    assert "<svg" in (tmp_path / "x.svg").read_text()
