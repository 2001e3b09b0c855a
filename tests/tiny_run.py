"""A tiny corpus on disk, a recipe for it, and `lrnn fit` in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from lrnn.data.synthetic import synthetic_noise, synthetic_voice
from lrnn.train.checkpoint import read_checkpoint

RECIPE = """
seed_everything: 3
model:
  class_path: lrnn.train.DenoiseModule
  init_args:
    network: {d_in: 257, d_out: 257, d_model: 16, d_state: 16, blocks: 2, n_layers: 2, dropout: 0.2}
    lr: 1.0e-2
data:
  class_path: lrnn.train.DenoiseData
  init_args: {root: corpus, batch_size: 2, batches_per_epoch: 10, clip_seconds: 0.25}
trainer:
  accelerator: cpu
  max_steps: 24
  num_sanity_val_steps: 0
  log_every_n_steps: 1
  enable_progress_bar: false
  logger:
    class_path: lightning.pytorch.loggers.CSVLogger
    init_args: {save_dir: runs, name: tiny, flush_logs_every_n_steps: 1}
  callbacks:
    - class_path: lrnn.train.Prune
      init_args: {sparsity: 0.5, start: 0.1, end: 0.8, every: 2}
    - class_path: lrnn.train.RecalibrateNorms
      init_args: {batches: 2}
    - class_path: lrnn.train.AverageWeights
      init_args: {decay: 0.9}
    - class_path: lrnn.train.ExportProgram
    - class_path: lightning.pytorch.callbacks.ModelCheckpoint
      init_args: {filename: best, monitor: val_si_snr, mode: max, save_on_train_epoch_end: false,
                  enable_version_counter: false}
    - class_path: lrnn.train.ResumePoints
      init_args: {every: 1, keep: 3}
"""


def write_corpus(folder: Path) -> None:
    """Sources to mix, and three clips to validate on."""
    import soundfile

    rng = np.random.default_rng(0)
    for n in range(3):
        clean, noise = synthetic_voice(rng, 16000), synthetic_noise(rng, 16000)
        places = {"sources/train/clean": clean, "sources/train/noise": noise, "validation_set/clean": clean}
        names = {"validation_set/clean": f"clean_fileid_{n}.wav", "validation_set/noisy": f"a_fileid_{n}.wav"}
        for place, samples in {**places, "validation_set/noisy": (clean + noise) / 2}.items():
            (folder / place).mkdir(parents=True, exist_ok=True)
            soundfile.write(folder / place / names.get(place, f"{n}.wav"), samples, 16000)


def start(folder: Path, *arguments: str, recipe: str = RECIPE) -> subprocess.Popen:
    """`lrnn fit` on a recipe, in `folder`; its stderr is in fit.log."""
    folder.mkdir(exist_ok=True)
    (folder / "tiny.yaml").write_text(recipe)
    if not (folder / "corpus").exists():
        write_corpus(folder / "corpus")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "LRNN_CACHE": str(folder / "cache")}
    command = [sys.executable, "-m", "lrnn.cli", "fit", "-c", "tiny.yaml", *arguments]
    with open(folder / "fit.log", "a") as log:
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)


def finish(process: subprocess.Popen, folder: Path, seconds: float = 900) -> None:
    """Wait for a fit that is expected to succeed."""
    assert process.wait(seconds) == 0, (folder / "fit.log").read_text()[-3000:]


def differences(a, b, name=""):
    """Where two checkpoints differ, bit for bit."""
    if isinstance(a, torch.Tensor):
        same = isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
        return [] if same else [name]
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        keys = [key for key in a if key != "current_score"]  # ModelCheckpoint saves it and does not load it
        return [found for key in keys for found in differences(a[key], b[key], f"{name}/{key}")]
    if isinstance(a, list | tuple) and isinstance(b, list | tuple) and len(a) == len(b):
        return [
            found
            for i, (x, y) in enumerate(zip(a, b, strict=True))
            for found in differences(x, y, f"{name}/{i}")
        ]
    return [] if a == b else [f"{name}: {a!r} is not {b!r}"]


def assert_same_files(one: Path, other: Path) -> None:
    """Two run folders hold the same, to the last bit; config.yaml apart, which has the command line."""
    names = [
        sorted(p.relative_to(folder) for p in folder.rglob("*") if p.is_file() and p.name != "config.yaml")
        for folder in (one, other)
    ]
    assert names[0] == names[1]
    for name in names[0]:
        if name.suffix == ".ckpt":
            found = differences(read_checkpoint(one / name), read_checkpoint(other / name))
            assert not found, (name, found)
        else:
            assert (one / name).read_bytes() == (other / name).read_bytes(), name
