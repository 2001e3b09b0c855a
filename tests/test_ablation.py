"""The ablation grid, whole and in small: trainings, cells, times, report; what is there is not done again."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from scripts import script

import lrnn
from lrnn.data.denoiser import Denoiser
from lrnn.data.evaluate import scores
from lrnn.data.ndns import NdnsFolder
from lrnn.data.synthetic import write_synthetic_corpus
from lrnn.ops.libraries import core_library

SMALL = "--k 0.0625 --steps 3 3 3 --batch-size 2 --clip-seconds 0.5 --clips 8 --levels 90 --jobs 2"
FORMATS = "--formats float32 w8a16 w4a8 fp8 --trained w8a16 --trained-levels 90"


@pytest.fixture(scope="module")
def ablation():
    return script("ablation")


def run(ablation, folder: Path, *more: str) -> None:
    """The command in a folder, on the corpus that is there."""
    words = ["--data", "corpus", "-o", "results/ablation", *SMALL.split(), *FORMATS.split(), *more]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["ablation.py", *words])
        patch.chdir(folder)
        ablation.main()


@pytest.fixture(scope="module")
def study(ablation, tmp_path_factory):
    """A folder in which the command has run to its end."""
    folder = tmp_path_factory.mktemp("ablation")
    write_synthetic_corpus(folder / "corpus", training=1, validation=2, clip_seconds=1.0, minutes=0.2)
    run(ablation, folder)
    return folder


@pytest.fixture
def report(study):
    return json.loads((study / "results" / "ablation.json").read_text())


def made(folder: Path) -> dict[str, int]:
    """All files of trainings and cells, with the time of their last change."""
    return {str(p): p.stat().st_mtime_ns for p in (folder / "runs").rglob("*") if p.is_file()}


def test_every_cell_is_there(report):
    cells = {(c["format"], c["trained"]): c for c in report["cells"]}
    assert set(cells) == {*((f, False) for f in ("float32", "w8a16", "w4a8", "fp8")), ("w8a16", True)}
    for (form, _), cell in cells.items():
        assert len(cell["simulated"]["after"]) == 2
        assert ("fixed" in cell) == (form in ("w8a16", "w4a8"))
        assert ("file_bytes" in cell) == (form != "fp8")
        assert 0 < cell["macs_effective"] <= cell["macs_weights"] < 0.2 * cell["macs"]  # of 90 % zeros
    assert cells["w8a16", True]["macs_weights"] <= cells["float32", False]["macs_weights"]  # and masks held


@pytest.mark.parametrize("name", ["dense-3-s90-3.w8a16", "dense-3-s90-3.w4a8", "dense-3-s90-3-w8a16-3.w8a16"])
def test_a_cell_holds_the_score_of_its_program(study, name):
    path = next((study / "runs").rglob(f"{name}.lrnn"))
    program = lrnn.load(path)
    assert program.is_fixed
    assert program.meta["scheme"]["name"] == name.split(".")[1]
    clips = NdnsFolder(study / "corpus" / "validation_set")
    found = [s.denoised["si_snr"] for s in scores(Denoiser(program), [clips[i] for i in range(len(clips))])]
    cell = json.loads(path.with_suffix(".json").read_text())
    np.testing.assert_allclose(cell["fixed"]["after"], found, atol=2e-3)  # streamed there, whole here
    assert cell["file_bytes"] == path.stat().st_size


@pytest.mark.skipif(core_library()[0] is None, reason="the native engine is not built here")
def test_what_runs_is_timed(report):
    times = report["microseconds"]
    assert set(times) == {"90 float32", "90 w8a16", "90 w4a8"}
    assert all(0 < minimum <= median for median, minimum in times.values())


def test_table_and_picture(study):
    text = (study / "results" / "ablation.md").read_text()
    assert text.count("| 90 % | w8a16 |") == 2
    assert "Not yet there" not in text
    assert (study / "results" / "ablation.svg").read_text().rstrip().endswith("</svg>")


def test_what_is_there_is_not_done_again(ablation, study):
    before, table = made(study), (study / "results" / "ablation.md").read_text()
    run(ablation, study)
    assert made(study) == before
    assert (study / "results" / "ablation.md").read_text() == table


def test_another_network_is_measured_anew(ablation, study):
    model = study / "runs/ablation/k0.0625-b2-0.5s-seed0/dense-3-s90-3/version_0/model.lrnn"
    content, before = model.read_bytes(), made(study)
    program = lrnn.load(model)
    program.meta["note"] = "another"
    program.save(model)
    try:
        run(ablation, study)
    finally:
        model.write_bytes(content)
    changed = {Path(name).name for name, time in made(study).items() if before.get(name) != time}
    assert {f"dense-3-s90-3.{form}.json" for form in ("float32", "w8a16", "w4a8", "fp8")} < changed
    assert "dense-3-s90-3-w8a16-3.w8a16.json" not in changed


def test_what_is_missing_is_named_and_what_is_there_is_shown(ablation, study, capsys):
    run(ablation, study, "--formats", "float32", "w2a8", "--trained", "w2a8", "--no-training", "-o", "other")
    table = capsys.readouterr().out
    assert "Not yet there, and completed by the command: dense-3-s90-3-w2a8-3." in table
    assert "| 90 % | w2a8 |" in table


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--levels", "100"], "--levels has 100, expected 0 to 99 per cent"),
        (["--trained-levels", "50"], "--trained-levels is [50], expected some of --levels [90]"),
        (["--trained", "fp8"], "--trained has fp8, expected some of --formats, without fp8"),
        (["--clips", "9"], "--clips is 9, expected a multiple of 8"),
    ],
)
def test_wrong_options_are_named(ablation, tmp_path, capsys, options, message):
    with pytest.raises(SystemExit, match="2"):
        run(ablation, tmp_path, *options)
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def cell(level: int, form: str, trained: bool = False, **more) -> dict:
    return {"run": "", "level": level, "format": form, "trained": trained, **more}


def quality(mean: float) -> dict:
    return {"si_snr": [mean, mean - 1, mean + 1], "si_snri": mean - 8, "after": [mean - 0.5, mean + 0.5]}


WORK = {"macs_weights": 2000, "macs_effective": 1000, "file_bytes": 1000}
WHY = "the sum of row 3 could reach 9"
CELLS = [
    cell(0, "float32", simulated=quality(12.0), **WORK),
    cell(0, "loihi2", refused=WHY),
    cell(0, "w4a8", simulated=quality(9.0), fixed=quality(9.25), **WORK),
    cell(0, "float32", True, simulated=quality(12.5)),
    cell(0, "w4a8", True, simulated=quality(11.0), fixed=quality(11.25)),
]


def test_the_table_says_what_was_refused_and_compares_what_was_trained_alike(ablation, tmp_path):
    times = {"0 float32": [6.0, 5.0], "0 w4a8": [3.0, 2.0]}
    about = {"command": "", "k": 1.0, "steps": [3, 2, 1], "batch_size": 2, "clip_seconds": 1.0, "clips": 8}
    about |= {"seed": 0, "missing": [], "cells": CELLS, "microseconds": times}
    ablation.write(tmp_path / "grid", about)
    lines = (tmp_path / "grid.md").read_text().splitlines()
    assert "| loihi2 | - |" in lines
    assert f"loihi2 refused at 0 %: {WHY}." in lines
    assert "| 0 % | w4a8 | 9.00 | 9.25 | 11.00 | 11.25 | -1.25 (-1.25 to -1.25) |" in lines
    figures = "9.25 (8.25 to 10.25) | -2.75 (-2.75 to -2.75)"
    assert f"| 0 % | w4a8 | {figures} | 2.0 | 1.0 | 1.0 | 3.00 (2.00) | 2.00 |" in lines
    assert "refused" in (tmp_path / "grid.svg").read_text()
    ablation.write(tmp_path / "untimed", about | {"microseconds": {}})
    assert (tmp_path / "untimed.svg").is_file()
