"""Two processes on the CPU: the same masks and weights in both without any broadcast of buffers."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch

import lrnn

pytest.importorskip("lightning")
pytest.importorskip("jsonargparse")

import tiny_run

from lrnn.data.metrics import si_snr
from lrnn.data.ndns import NdnsFolder, find_validation
from lrnn.train import load_checkpoint
from lrnn.train.checkpoint import read_checkpoint

pytestmark = pytest.mark.slow

SPY = '''
"""What each process sees and ends with, one file per rank."""
import torch
import lightning as L


class Spy(L.Callback):
    def __init__(self):
        self.batches, self.random, self.validated = [], [], 0

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        self.batches.append(batch[0].clone())
        self.random.append(torch.random.get_rng_state().clone())

    def on_validation_batch_end(self, *_):
        self.validated += 1

    def on_train_end(self, trainer, module):
        state = {"state": module.state_dict(), "batches": torch.cat(self.batches), "random": self.random[-1]}
        torch.save({**state, "validated": self.validated}, f"rank-{trainer.global_rank}.pt")
'''

TWO = [
    "--trainer.devices=2",
    "--trainer.strategy=lightning.pytorch.strategies.DDPStrategy",
    "--trainer.strategy.broadcast_buffers=false",
    "--trainer.callbacks+=spy.Spy",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a fit in two processes."""
    folder = tmp_path_factory.mktemp("ddp")
    (folder / "spy.py").write_text(SPY)
    tiny_run.finish(tiny_run.start(folder, *TWO), folder)
    return folder


@pytest.fixture(scope="module")
def ranks(run):
    return [torch.load(run / f"rank-{rank}.pt", weights_only=True) for rank in (0, 1)]


def test_weights_and_masks_are_the_same(ranks):
    one, other = (rank["state"] for rank in ranks)
    masks = [name for name in one if name.endswith("mask")]
    assert masks
    assert any(not one[name].all() for name in masks)
    for name, value in one.items():
        assert torch.equal(value, other[name]), name  # running statistics too: RecalibrateNorms is the same


def test_data_and_random_numbers_differ(ranks):
    clips = torch.cat([rank["batches"] for rank in ranks])
    assert len(clips) == 2 * 24 * 2
    assert len(torch.unique(clips, dim=0)) == len(clips)
    assert not torch.equal(*(rank["random"] for rank in ranks))


def test_every_validation_clip_counts_once(run, ranks):
    """Three clips on two ranks; the metric is the mean over the three."""
    assert sorted(rank["validated"] for rank in ranks) == [2, 4]  # two validations
    best = run / "runs/tiny/version_0/checkpoints/best.ckpt"
    model, meta = load_checkpoint(best)
    module = lrnn.train.DenoiseModule(network=model.config, init_from=str(best)).eval()
    assert meta["frontend"] == module.stft.to_meta()
    clips = NdnsFolder(find_validation(run / "corpus"))
    noisy_clean = [[torch.as_tensor(x)[None] for x in clips[n][:2]] for n in range(3)]
    with torch.no_grad():
        expected = torch.cat([si_snr(module(noisy), clean) for noisy, clean in noisy_clean]).mean()
    score = next(v for k, v in read_checkpoint(best)["callbacks"].items() if "ModelCheckpoint" in k)
    torch.testing.assert_close(score["best_model_score"], expected, rtol=1e-4, atol=1e-4)


def test_files_are_written_once(run):
    folder = run / "runs" / "tiny"
    assert [p.name for p in folder.iterdir()] == ["version_0"]
    program = lrnn.load(folder / "version_0" / "model.lrnn")
    json.dumps(program.meta)
    with open(folder / "version_0" / "metrics.csv") as file:
        steps = [row["step"] for row in csv.DictReader(file) if row["train_si_snr"]]
    assert steps == [str(n) for n in range(24)]
    assert len(read_checkpoint(sorted(folder.rglob("step-*.ckpt"))[-1])["random_state"]) == 2
    assert not list(Path(run).rglob("*.pending"))


def test_going_on_equals_not_stopping(run, tmp_path):
    again = tmp_path / "again"
    shutil.copytree(run, again)
    for name in ("checkpoints/step-00000023.ckpt", "checkpoints/step-00000024.ckpt", "model.lrnn"):
        (again / "runs/tiny/version_0" / name).unlink()
    tiny_run.finish(tiny_run.start(again, *TWO, "--ckpt_path=last"), again)
    assert "step-00000022.ckpt at step 22" in (again / "fit.log").read_text()
    tiny_run.assert_same_files(run / "runs", again / "runs")
