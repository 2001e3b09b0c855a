"""Folders of runs: the checkpoint to go on from, and one continuous log."""

from __future__ import annotations

import csv
import os
import re
import sys
import warnings
from pathlib import Path

import lightning as L
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from lrnn.files import written_whole
from lrnn.train.checkpoint import read_checkpoint
from lrnn.train.resume import RESUME_POINT


def take_up(trainer: L.Trainer, wanted: str) -> Path | None:
    """Make `trainer` go on with an earlier run: in its folder, with its log.

    A checkpoint from elsewhere than a folder of the trainer's logger starts a new folder.

    Args:
        trainer: before its fit.
        wanted: a checkpoint, or "last" for the newest of the newest run.

    Returns:
        The checkpoint, or None where "last" finds none: the run starts anew.
    """
    path = newest_checkpoint(trainer) if wanted == "last" else Path(wanted)
    if path is None:
        _say("no checkpoint yet: starting anew")
        return None
    step = read_checkpoint(path).get("global_step", 0)
    version = _version(trainer, path)
    for logger in trainer.loggers:
        if version is not None and getattr(logger, "_version", 0) is None:  # else the recipe has named one
            logger._version = version
        if isinstance(logger, CSVLogger) and Path(logger.log_dir).resolve() in path.resolve().parents:
            keep_log(logger, step)
    _say(f"going on from {path} at step {step}")
    return path


def newest_checkpoint(trainer: L.Trainer) -> Path | None:
    """The newest of ResumePoints' checkpoints in the newest run, else the newest that can be resumed.

    Broken files are passed over, and said.
    """
    run = _newest_run(trainer)
    files = [] if run is None else [path for path in run.rglob("*.ckpt") if not path.name.startswith(".")]
    files.sort(key=lambda path: (path.name.startswith(RESUME_POINT), path.stat().st_mtime_ns), reverse=True)
    for path in files:
        try:
            checkpoint = read_checkpoint(path)
        except ValueError as error:
            _say(f"passed over: {error}")
            continue
        if "optimizer_states" in checkpoint:
            return path
    return None


@rank_zero_only
def keep_log(logger: CSVLogger, step: int) -> None:
    """Go on with metrics.csv, but for rows from `step` on, which will be logged again.

    CSVLogger deletes the file of a version it is given; it is moved aside until the rows are back.
    """
    path = Path(logger.log_dir) / "metrics.csv"
    aside = path.with_name("metrics-before.csv")
    if path.exists() and not aside.exists():
        os.replace(path, aside)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Experiment logs directory")
        experiment = logger.experiment
    if not aside.exists():
        return
    with open(aside, newline="") as file:
        reader = csv.DictReader(file)
        names = list(reader.fieldnames or [])
        rows = [row for row in reader if (row["step"] or "").isdigit() and int(row["step"]) < step]
    with written_whole(path) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)
    experiment.metrics_keys = names
    aside.unlink()


def _runs(trainer: L.Trainer) -> Path:
    """The folder in which each run has its own."""
    logger = trainer.logger
    if logger is None or logger.save_dir is None:
        return Path(trainer.default_root_dir)
    return Path(logger.save_dir) / (logger.name or "")


def _newest_run(trainer: L.Trainer) -> Path | None:
    runs = _runs(trainer)
    if trainer.logger is None:
        return runs / "checkpoints"
    if getattr(trainer.logger, "_version", None) is not None:
        return Path(trainer.log_dir)
    numbered = [path for path in runs.glob("version_*") if isinstance(_number(path.name), int)]
    return max(numbered, key=lambda path: _number(path.name), default=None)


def _version(trainer: L.Trainer, checkpoint: Path) -> int | str | None:
    """What the logger calls the run that wrote `checkpoint`; None where that run is none of its own."""
    root, path = _runs(trainer).resolve(), checkpoint.resolve()
    if root not in path.parent.parents:
        return None
    return _number(path.relative_to(root).parts[0])


def _number(name: str) -> int | str:
    """What a logger calls the version whose folder is `name`: version_3 is 3, others are named in full."""
    match = re.fullmatch(r"version_(\d+)", name)
    return int(match[1]) if match else name


@rank_zero_only
def _say(message: str) -> None:
    print(message, file=sys.stderr)
