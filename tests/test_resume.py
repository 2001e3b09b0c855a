"""Stopping and going on equals not stopping: random numbers, places to stop, logs, a killed run."""

from __future__ import annotations

import csv
import os
import random
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch

L = pytest.importorskip("lightning")
pytest.importorskip("jsonargparse")

import tiny_run  # noqa: E402
from lightning.pytorch.callbacks import ModelCheckpoint  # noqa: E402
from lightning.pytorch.loggers import CSVLogger  # noqa: E402
from regression import Data, Regression  # noqa: E402
from tiny_run import differences  # noqa: E402

from lrnn.train import AverageWeights, Prune, RecalibrateNorms, Resumable, ResumePoints, WholeCheckpointIO  # noqa: E402
from lrnn.train.checkpoint import read_checkpoint  # noqa: E402
from lrnn.train.random_state import random_state, set_random_state, untouched_random_state  # noqa: E402
from lrnn.train.runs import take_up  # noqa: E402

# Random numbers


def draws():
    return random.random(), np.random.normal(), torch.rand(2).tolist(), random.gauss(0, 1), np.random.rand()


def test_random_state_is_plain_and_complete(tmp_path):
    random.gauss(0, 1)  # Python and numpy keep every second Gaussian for later
    np.random.normal()
    torch.save(random_state(), tmp_path / "state")
    expected = draws()
    assert draws() != expected
    set_random_state(torch.load(tmp_path / "state", weights_only=True))
    assert draws() == expected
    with untouched_random_state():
        draws()
    before = random_state()
    assert not differences(before, random_state())


class Draws(Regression):
    """Its validation draws random numbers."""

    def validation_step(self, batch, batch_idx):
        draws()
        super().validation_step(batch, batch_idx)


def fit(folder, module=None, ckpt_path=None, callbacks=(), version=0, **options):
    torch.manual_seed(1)
    module = module or Regression()
    trainer = L.Trainer(
        callbacks=[Resumable(), *callbacks],
        plugins=[WholeCheckpointIO()],
        **{
            "logger": CSVLogger(folder, "runs", version, flush_logs_every_n_steps=1000),
            "log_every_n_steps": 1,
            "accelerator": "cpu",
            "num_sanity_val_steps": 0,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "enable_checkpointing": bool(callbacks),
            **options,
        },
    )
    if ckpt_path is not None:
        ckpt_path = take_up(trainer, str(ckpt_path))
    trainer.fit(module, Data(), ckpt_path=ckpt_path)
    return trainer, module


def test_validation_does_not_move_the_generators(tmp_path):
    _, plain = fit(tmp_path, Draws(), max_epochs=2, logger=False, limit_val_batches=0)
    _, validated = fit(tmp_path, Draws(), max_epochs=2, logger=False, val_check_interval=2)
    assert len(validated.seen) == 8
    for a, b in zip(plain.parameters(), validated.parameters(), strict=True):
        assert torch.equal(a, b)


# Where checkpoints are taken

MODES = {
    "steps": {"max_steps": 20},
    "epochs": {"max_steps": -1, "max_epochs": 3},
    "accumulated": {"max_steps": 11, "accumulate_grad_batches": 2, "precision": "bf16-mixed"},
    "validated-in-mid-epoch": {"max_steps": 20, "val_check_interval": 3},
    "not-validated": {"max_steps": 20, "limit_val_batches": 0},
}


@pytest.mark.parametrize("mode", MODES)
def test_going_on_from_any_resume_point_equals_not_stopping(tmp_path, monkeypatch, mode):
    """Final checkpoints agree in every entry, loops and random state included; logs agree in every byte."""

    def run(folder, ckpt_path=None):
        prune = Prune(0.5, start=2, end=15, every=2)
        best = ModelCheckpoint(
            filename="best-{step}",
            monitor="val_loss",
            save_on_train_epoch_end=False,
            enable_version_counter=False,  # files of the stopped run's future are there
        )
        points = ResumePoints(every=1, keep=99)
        callbacks = [prune, AverageWeights(0.8), RecalibrateNorms(2), best, points]
        if MODES[mode].get("limit_val_batches") == 0:
            callbacks.remove(best)
        trainer, _ = fit(folder, None, ckpt_path, callbacks, **{"max_epochs": -1, **MODES[mode]})
        last = sorted(Path(trainer.log_dir, "checkpoints").glob("step-*.ckpt"))[-1]
        return last, (Path(trainer.log_dir) / "metrics.csv").read_text()

    monkeypatch.chdir(tmp_path)  # paths in checkpoints are relative then
    last, log = run("a")
    whole = read_checkpoint(last)
    shutil.move("a", "whole")
    points = sorted(Path("whole/runs/version_0/checkpoints").glob("step-*.ckpt"))
    assert len(points) > 8
    epoch = 4 if mode == "accumulated" else 8
    for step in (1, epoch, epoch + 1, len(points) - 1):
        point = f"runs/version_0/checkpoints/step-{step:08d}.ckpt"
        if not Path("whole", point).exists():
            continue  # the end of an epoch without validation is no place to stop
        shutil.copytree("whole", "a")
        again, again_log = run("a", Path("a", point))
        assert again == last
        assert not differences(whole, read_checkpoint(again)), step
        assert again_log == log, step
        shutil.rmtree("a")


def test_no_resume_point_between_accumulated_batches(tmp_path):
    with pytest.warns(UserWarning, match="between accumulated batches"):
        fit(
            tmp_path,
            callbacks=[
                ModelCheckpoint(save_on_train_epoch_end=False),
                points := ResumePoints(every=1, keep=99),
            ],
            max_epochs=1,
            accumulate_grad_batches=3,
            val_check_interval=2,
        )
    found = sorted(points._folder.glob("step-*.ckpt"))
    assert [
        read_checkpoint(p)["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"]["ready"] for p in found
    ] == [
        3,
        6,
        8,
    ]


def test_the_newest_resume_points_are_kept(tmp_path):
    trainer, _ = fit(tmp_path, callbacks=[ResumePoints(every=3, keep=2)], max_epochs=2)
    names = sorted(p.name for p in Path(trainer.log_dir, "checkpoints").iterdir())
    assert names == ["step-00000015.ckpt", "step-00000016.ckpt"]


@pytest.mark.parametrize("options", [{"every": 0}, {"keep": 0}])
def test_resume_points_name_bad_options(options):
    with pytest.raises(ValueError, match="every, keep are"):
        ResumePoints(**options)


def test_resume_points_come_last(tmp_path):
    with pytest.raises(ValueError, match="ModelCheckpoint after ResumePoints"):
        fit(tmp_path, callbacks=[ResumePoints(), ModelCheckpoint()], max_epochs=1)


# The run's folder and its log


def make_trainer(folder, version=None):
    return L.Trainer(logger=CSVLogger(folder, "x", version), accelerator="cpu", enable_checkpointing=False)


def write(path, step, **entries):
    WholeCheckpointIO().save_checkpoint(
        {"state_dict": {}, "global_step": step, "optimizer_states": [], **entries}, path
    )
    os.utime(path, (step, step))


def test_last_is_the_newest_whole_checkpoint_of_the_newest_run(tmp_path, capsys):
    assert take_up(make_trainer(tmp_path), "last") is None
    assert "starting anew" in capsys.readouterr().err
    runs = [tmp_path / "x" / f"version_{n}" / "checkpoints" for n in (2, 10)]
    write(runs[0] / "step-00000009.ckpt", 90)
    write(runs[1] / "step-00000003.ckpt", 3)
    write(runs[1] / "step-00000005.ckpt", 5)
    write(runs[1] / "best.ckpt", 8)
    (runs[1] / "step-00000006.ckpt").write_bytes(b"PK\x03\x04 cut")
    (runs[1] / ".step-00000007-abcdefgh.ckpt").write_bytes(b"")
    trainer = make_trainer(tmp_path)
    assert take_up(trainer, "last") == runs[1] / "step-00000005.ckpt"
    assert trainer.logger.version == 10
    said = capsys.readouterr().err
    assert "passed over" in said
    assert "step-00000006.ckpt" in said
    for path in runs[1].glob("step*"):
        path.unlink()
    assert take_up(make_trainer(tmp_path), "last") == runs[1] / "best.ckpt"
    (runs[1] / "best.ckpt").unlink()
    weights_only = runs[1] / "weights.ckpt"
    torch.save({"state_dict": {}, "global_step": 9}, weights_only)
    assert take_up(make_trainer(tmp_path), "last") is None


def test_a_checkpoint_from_elsewhere_starts_a_new_folder(tmp_path):
    (tmp_path / "x" / "version_0").mkdir(parents=True)
    write(tmp_path / "there" / "a.ckpt", 4)
    trainer = make_trainer(tmp_path)
    assert take_up(trainer, str(tmp_path / "there" / "a.ckpt")) == tmp_path / "there" / "a.ckpt"
    assert trainer.logger.version == 1
    with pytest.raises(FileNotFoundError, match="none"):
        take_up(make_trainer(tmp_path), str(tmp_path / "none.ckpt"))


def test_the_log_goes_on_without_rows_that_come_again(tmp_path):
    run = tmp_path / "x" / "version_0"
    write(run / "checkpoints" / "step-00000003.ckpt", 3)
    rows = "loss,step,val\n" + "".join(f"{n / 10},{n},\n" for n in range(5)) + "0.4,,"  # torn at its end
    (run / "metrics.csv").write_text(rows)
    for _ in range(2):  # stopped at once and taken up again
        trainer = make_trainer(tmp_path)
        take_up(trainer, "last")
    trainer.logger.log_metrics({"loss": 0.5, "new": 1.0}, 3)
    trainer.logger.save()
    with open(run / "metrics.csv") as file:
        found = [(row["step"], row["loss"], row["new"]) for row in csv.DictReader(file)]
    assert found == [("0", "0.0", ""), ("1", "0.1", ""), ("2", "0.2", ""), ("3", "0.5", "1.0")]
    assert [p.name for p in run.glob("*.csv")] == ["metrics.csv"]


def test_an_older_log_is_not_touched_by_a_run_of_its_own(tmp_path):
    run = tmp_path / "x" / "version_7"
    write(tmp_path / "x" / "version_0" / "checkpoints" / "a.ckpt", 3)
    run.mkdir()
    trainer = make_trainer(tmp_path, version=8)  # named by the user: stays
    take_up(trainer, str(tmp_path / "x" / "version_0" / "checkpoints" / "a.ckpt"))
    assert trainer.logger.version == 8


# A process that dies


@pytest.mark.slow
def test_a_killed_fit_goes_on_as_if_it_had_not_been(tmp_path):
    """SIGKILL at some step, maybe within a write; then `--ckpt_path last`. Files agree to the last bit."""
    options = [
        "--data.num_workers=2",
        "--trainer.precision=bf16-mixed",
        "--trainer.accumulate_grad_batches=2",
    ]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    first, victim = tiny_run.start(whole, *options), tiny_run.start(killed, *options)
    folder = killed / "runs" / "tiny" / "version_0"
    deadline = time.monotonic() + 900
    while not any(folder.glob("checkpoints/step-000000[01][7-9].ckpt")):
        assert victim.poll() is None, (killed / "fit.log").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(victim.pid, signal.SIGKILL)
    victim.wait()
    assert not (folder / "model.lrnn").exists()
    tiny_run.finish(tiny_run.start(killed, *options, "--ckpt_path=last"), killed)
    tiny_run.finish(first, whole)

    assert "going on from runs/tiny/version_0/checkpoints/step-" in (killed / "fit.log").read_text()
    names = {p.name for p in folder.rglob("*")}
    assert names >= {"model.lrnn", "model.safetensors", "best.ckpt", "step-00000024.ckpt", "metrics.csv"}
    tiny_run.assert_same_files(whole / "runs", killed / "runs")
