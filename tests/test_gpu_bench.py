"""The GPU's benchmark runs from end to end where there is no GPU, and its arithmetic is right."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

EXPERIMENTS = Path(__file__).resolve().parents[1] / "experiments"
SCRIPT = EXPERIMENTS / "gpu_bench.py"

needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    import gpu_bench

    return gpu_bench


def run(*arguments: str) -> subprocess.CompletedProcess:
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, env=environment
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_it_says_so_in_one_line(tmp_path):
    done = run("-o", str(tmp_path / "gpu.json"))
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "CUDA" in done.stderr
    assert "--dry-run" in done.stderr
    assert not list(tmp_path.iterdir())


@needs_triton
def test_a_dry_run_goes_through_every_part(tmp_path, bench):
    out = tmp_path / "gpu.json"
    done = run("--dry-run", "--json", "-o", str(out))
    assert (done.returncode, done.stderr) == (0, "")
    result = json.loads(done.stdout)
    assert result == json.loads(out.read_text())
    assert result["dry_run"]
    assert "goals" not in result  # no figure of a GPU
    assert all(result[part]["rows"] and "failed" not in result[part] for part in bench.PARTS)
    assert all(row["ok"] for row in result["correctness"]["rows"])
    assert "its times mean nothing" in bench.table(result)
    assert [path.name for path in tmp_path.iterdir()] == ["gpu.json"]


def product(sparsity: float, ratio: float, size: int = 4096, batch: int = 1) -> dict:
    times = {"cold": 1.0, "warm": 1.0}
    packed = {**times, "x dense": {"cold": ratio, "warm": 1 / ratio}}
    row = {"size": size, "batch": batch, "sparsity": sparsity, "float16": packed, "int8": packed}
    return row | {"dense float16": times, "CSR float32": {"not run": "why"}, "2:4": times}


def test_crossover_is_where_it_stays_faster(bench):
    rows = [product(s, r) for s, r in ((0.5, 1.2), (0.6, 0.9), (0.7, 1.0), (0.8, 2.0))]
    assert bench.crossovers(rows, "cold") == {"4096 batch 1 float16": 0.7, "4096 batch 1 int8": 0.7}
    assert bench.crossovers(rows, "warm")["4096 batch 1 int8"] is None


def test_goals_take_the_worst_row(bench):
    rows = [product(0.9, 3.5), product(0.9, 2.5, 8192), product(0.9, 1.0, 1024), product(0.7, 1.5)]
    found = bench.goals({"matvec": {"rows": rows}})
    assert [goal["found"] for goal in found.values()] == [None, None, 2.5, 1.5]
    assert [goal["met"] for goal in found.values()] == [None, None, False, True]


@needs_triton
def test_a_part_that_fails_costs_only_itself(bench, monkeypatch, tmp_path):
    import gpu_measure

    def broken(plan, clock):
        yield {"shape": [1], "kind": "k", "pass": "forward", "of a copy": {"cold": 0.5}, "cold": 1.0}
        raise RuntimeError("no luck")

    for part in bench.PARTS:
        monkeypatch.setattr(gpu_measure, part, lambda *_: iter([{"case": "c", "error": None, "ok": False}]))
    monkeypatch.setattr(gpu_measure, "scan", broken)
    result = bench.run(True, 100, tmp_path / "x.json")
    assert result["scan"]["failed"] == "RuntimeError: no luck"
    assert len(result["scan"]["rows"]) == len(result["step"]["rows"]) == 1
    assert json.loads((tmp_path / "x.json").read_text()) == result
    monkeypatch.setattr(bench, "run", lambda *_: result)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert bench.main(["--dry-run"]) == 1


def test_out_of_time_keeps_what_is_there(bench):
    rows = bench._rows(iter([{"n": 1}, {"n": 2}]), "scan", deadline=0)
    assert rows["rows"] == [{"n": 1}]
    assert "out of time" in rows["failed"]
