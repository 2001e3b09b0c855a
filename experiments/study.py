"""What the studies of dense against sparse share: options, trainings in processes of their own, reports."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

from lrnn.files import written_whole


class Training:
    """Base of a study's runs, which are frozen dataclasses of what tells one from another, with a `name`."""

    name: str
    seed: int
    steps: int

    def folder(self, root: str | Path) -> Path:
        """Where `lrnn fit` leaves its files."""
        return Path(root) / self.name / "version_0"

    def is_of(self, row: dict) -> bool:
        """Whether a row of a report is of this run."""
        return asdict(self).items() <= row.items()


Run = TypeVar("Run", bound=Training)
LOOKS = {"dense": ("#8a8a8a", "o"), "structured": ("#b5651d", "^"), "sparse": ("#1b4f8a", "s")}
"""Colour and mark of each kind of network in every study's picture."""


def make_parser(
    description: str, data: str, steps: int, seeds: int, seeds_of: str
) -> argparse.ArgumentParser:
    """The options of every study.

    Args:
        description: of the study.
        data: what the folder of --data holds.
        steps: default number of optimiser steps of a run.
        seeds: default number of seeds.
        seeds_of: what is trained with each.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--data", required=True, metavar="DIR", help=data)
    parser.add_argument(
        "-o", "--out", required=True, metavar="PREFIX", help="of the .md, .json and .svg files"
    )
    parser.add_argument("--runs", default="runs", metavar="DIR", help="where the trainings live")
    parser.add_argument("--steps", type=int, default=steps, help="optimiser steps of every run")
    parser.add_argument("--seeds", type=int, default=seeds, help=seeds_of)
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count(), help="trainings side by side, one core each"
    )
    parser.add_argument("--report", action="store_true", help="train nothing, measure what is there")
    return parser


def fit_command(
    recipes: Sequence[str], run: Training, args: argparse.Namespace, options: dict[str, object]
) -> list[str]:
    """The `lrnn fit` that trains a run with a seed and steps, or goes on with it.

    Args:
        recipes: files; a later one changes those before.
        run: what is trained.
        args: of the study.
        options: of the command, before those that are common to all runs.
    """
    common = {
        "--data.root": args.data,
        "--data.seed": run.seed,
        "--seed_everything": run.seed,
        "--trainer.max_steps": run.steps,
        "--trainer.logger.init_args.save_dir": args.runs,
        "--trainer.logger.init_args.name": run.name,
        "--ckpt_path": "last",
    }
    command = [sys.executable, "-m", "lrnn.cli", "fit", *(word for path in recipes for word in ("-c", path))]
    return command + [str(word) for pair in (common | options).items() for word in pair]


def write_report(out: Path, report: dict, text: str) -> None:
    """Write a study's figures (.json) and tables (.md)."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(out.with_suffix(".json")) as path:
        path.write_text(json.dumps(report, indent=1) + "\n")
    with written_whole(out.with_suffix(".md")) as path:
        path.write_text(text)


def train_all(runs: Sequence[Run], train: Callable[[Run], None], jobs: int) -> None:
    """Train all runs, in order, `jobs` at a time."""
    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(train, runs))


def call(command: list[str], log_path: Path) -> None:
    """Run a command in a process of one thread, its output at the end of a log; RuntimeError if it fails."""
    log_path.parent.mkdir(parents=True, exist_ok=True)
    with open(log_path, "a") as log:
        done = subprocess.run(command, stderr=log, stdout=log, env={**os.environ, "OMP_NUM_THREADS": "1"})
    if done.returncode:
        raise RuntimeError(f"{log_path}: {' '.join(command)} ended with {done.returncode}")


def split(runs: Sequence[Run], root: str, file: str = "model.lrnn") -> tuple[list[Run], list[Run]]:
    """Runs whose file is there, and the others."""
    there = [run for run in runs if (run.folder(root) / file).is_file()]
    return there, [run for run in runs if run not in there]


def reported(runs: Sequence[Training], path: Path) -> list[dict]:
    """The rows of these runs in a report, which may have been trained on another machine."""
    rows = json.loads(path.read_text())["models"] if path.is_file() else []
    return [row for row in rows if any(run.is_of(row) for run in runs)]


def cost_axis(panel, label: str) -> None:
    """Costs along the abscissa of a picture: logarithmic, with ticks at 1, 2 and 5."""
    from matplotlib.ticker import LogLocator

    panel.set_xscale("log", subs=())
    panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panel.xaxis.set_major_formatter("{x:,g}")
    panel.set_xlabel(label)
    panel.spines[["top", "right"]].set_visible(False)
