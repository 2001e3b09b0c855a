"""The study of keywords: its plan, its table, its pairs, its picture."""

from __future__ import annotations

import itertools
import json
import os
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from scripts import script

import lrnn

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
    row("dense", 0.25, [1, 0, 0, 0], "calibrated", macs=1000),
    row("dense", 0.25, [0, 0, 0, 0], "trained", macs=500),
    row("sparse", 0.75, [1, 1, 0, 1], macs=900),
    row("sparse", 1.0, [1, 1, 1, 1], macs=1500),
    row("structured", 0.75, [0, 0, 1, 1], macs=1000),
]


def test_the_plan_has_each_run_once_the_narrowest_first(study):
    runs = study.plan(3000, seeds=2)
    assert len({run.name for run in runs}) == len(runs) == 24
    assert {run.k for run in runs if run.kind == "structured"} == set(study.NARROW)
    assert (runs[0].kind, runs[0].k, runs[0].seed) == ("sparse", 0.5, 0)
    args = SimpleNamespace(data="D", held_out=0.0, runs="R")
    command = " ".join(runs[1].command(args))
    assert "--model.k 0.1875" in command
    assert "--trainer.callbacks.sparsity 0.0" in command
    assert "--ckpt_path last" in command
    tuning = " ".join(runs[1].tuning(args))
    assert f"-c {study.RECIPE} -c {study.QUANTIZED}" in tuning
    assert f"--model.init_from R/{runs[1].name}/version_0/model.safetensors" in tuning
    assert "--trainer.max_steps 600" in tuning
    trained = runs[1].folder("R") / study.FORMS["trained"]
    assert os.path.normpath(trained) == f"R/{runs[1].name}/w8a16/version_0/model-w8a16.lrnn"


def test_a_structured_run_starts_at_the_cost_of_the_sparse_one(study, tmp_path):
    pytest.importorskip("torch_pruning")
    run = study.Run("structured", 0.25, 0, 40)
    args = SimpleNamespace(data="D", held_out=0.0, runs=str(tmp_path))
    torch.manual_seed(0)
    sizes = {"d_model": 48, "d_state": 64, "blocks": 4, "n_layers": 2}
    model = lrnn.SequenceModel(lrnn.SequenceModelConfig(d_in=80, d_out=11, **sizes)).eval()
    for kind in ("dense", "sparse"):
        replace(run, kind=kind).folder(tmp_path).mkdir(parents=True)
    model.save(replace(run, kind="dense").folder(tmp_path) / "model.safetensors")
    lrnn.prune.prune_once(model, 0.5)
    lrnn.compile(model).save(replace(run, kind="sparse").folder(tmp_path) / "model.lrnn")
    words = run.command(args)
    options = dict(itertools.pairwise(words))
    narrow = lrnn.SequenceModel.load(options["--model.init_from"])
    assert str(narrow.config.d_model) == options["--model.network.d_model"]
    assert narrow.config.d_model < 48
    assert options["--model.k"] == "1.0"


def test_the_table_has_every_model_and_every_pair(study):
    text = study.markdown(ROWS, "python experiments/keywords.py")
    assert text.count("\n| dense |") == text.count("\n| structured |") == 1
    assert text.count("\n| sparse |") == 2
    assert (
        "| dense | 0.25 | 0 | **50.0** | 45.0 to 55.0 | 25.0 | 0.0 | 10,000 | 1,000 | 500 | 4 | 2 |" in text
    )
    assert "| 0.75 | dense 0.25 | 0 | float | 0.90 | 0.90 | +25.0 |" in text
    assert "| 0.75 | structured 0.75 | 0 | float | 0.90 | 0.90 | +25.0 |" in text


def test_rows_of_models_that_are_elsewhere_stay(study, tmp_path):
    report = tmp_path / "study.json"
    wanted = [study.Run("sparse", 0.75, 0, 3000)]
    assert study.rows_elsewhere(wanted, "float", report) == []
    report.write_text(json.dumps({"models": ROWS}))
    assert study.rows_elsewhere(wanted, "float", report) == [ROWS[3]]
    assert study.rows_elsewhere(wanted, "trained", report) == []


def test_the_picture_is_drawn(study, tmp_path):
    pytest.importorskip("matplotlib")
    study.plot(tmp_path / "x.svg", ROWS)
    assert "<svg" in (tmp_path / "x.svg").read_text()
