"""experiments/structured.py narrows a dense denoiser, trains it on, measures it; a second run measures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_run import write_corpus

import lrnn
from lrnn.data.stft import Stft
from lrnn.train.checkpoint import load_checkpoint

pytest.importorskip("torch_pruning")
ROOT = Path(__file__).resolve().parents[1]


def run(tmp_path: Path, *options: str) -> str:
    script = [sys.executable, str(ROOT / "experiments" / "structured.py"), "dense.safetensors"]
    command = [*script, "--data", "corpus", "-o", "out", "--steps", "2", *options]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
def test_it_trains_on_and_goes_on(tmp_path):
    write_corpus(tmp_path / "corpus")
    torch.manual_seed(0)
    sizes = {"d_in": 257, "d_out": 257, "d_model": 24, "d_state": 32, "blocks": 2, "n_layers": 2}
    dense = lrnn.SequenceModel(lrnn.SequenceModelConfig(**sizes)).eval()
    dense.save(tmp_path / "dense.safetensors")
    sparse = lrnn.SequenceModel(dense.config).eval()
    lrnn.prune.prune_once(sparse, 0.5)
    lrnn.compile(sparse, {"frontend": Stft().to_meta()}).save(tmp_path / "sparse.lrnn")
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")  # where its recipe is
    said = run(tmp_path, "--like", "sparse.lrnn")
    assert "structured:" in said
    rows = json.loads((tmp_path / "out" / "result.json").read_text())
    budget = rows["sparse"]["macs_weights"]
    assert 0.7 * budget < rows["structured"]["macs"] <= budget
    narrow = load_checkpoint(tmp_path / "out" / "start.safetensors")[0].config
    trained = lrnn.SequenceModel.load(tmp_path / "out" / "fit" / "version_0" / "model.safetensors").config
    assert (trained.d_model, trained.d_state) == (narrow.d_model, narrow.d_state)
    before = (tmp_path / "out" / "fit" / "version_0" / "model.lrnn").stat().st_mtime_ns
    assert run(tmp_path, "--like", "sparse.lrnn") == said
    assert (tmp_path / "out" / "fit" / "version_0" / "model.lrnn").stat().st_mtime_ns == before
