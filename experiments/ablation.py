"""Sparsity levels x number formats: what each costs in quality and saves in work, bytes and time.

    python experiments/ablation.py --data DIR -o experiments/results/ablation

trains one dense denoiser, prunes it to every level in a short fine-tune, rounds each network to every format
without training it again, and trains some on as they will run quantised. Float, simulated rounding (static
scales, still in float) and fixed point are scored on the validation clips. What was done before, a training
or a cell of the grid, is not done again: the command can be stopped and started at any time, and with more
levels or formats. Table (.md), figures (.json) and picture (.svg) are written at its end, of all there is.
"""

import argparse
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ablation_cells import Bench, observer
from ablation_report import write

from lrnn.cli.console import progress
from lrnn.quant import SCHEMES

LEVELS = (0, 50, 70, 80, 90, 95)
FORMATS = ("float32", "w16a16", "w8a16", "loihi2", "w8a8", "w4a16", "w4a8", "w2a8", "fp8")
TRAINED = ("float32", "w8a16", "w8a8", "w4a16", "w4a8", "w2a8")
RATES = (6e-3, 6e-3, 2e-3)
"""Peak learning rates: of the dense network, of pruning, of what comes after."""
RECIPE = Path(__file__).with_name("denoise-mini-dense.yaml")


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        steps: of the optimiser.
        parent: whose weights it starts from; None starts from scratch.
        level: per cent of zeros.
        scheme: it is trained in; "float32" is so many more steps with the masks it has, for comparison.
    """

    steps: int
    parent: "Run | None" = None
    level: int = 0
    scheme: str | None = None

    @property
    def name(self) -> str:
        if self.parent is None:
            return f"dense-{self.steps}"
        return f"{self.parent.name}-{self.scheme or f's{self.level}'}-{self.steps}"

    @property
    def generation(self) -> int:
        return 0 if self.parent is None else 1 + self.parent.generation

    def folder(self, root: Path) -> Path:
        return root / self.name / "version_0"

    def done(self, root: Path) -> bool:
        """Whether it has come to its end, which leaves a program."""
        return (self.folder(root) / "model.lrnn").is_file()

    def model(self, root: Path) -> Path:
        """What is measured: the program, or the last checkpoint of what was trained quantised."""
        folder = self.folder(root)
        if self.scheme in (None, "float32"):
            return folder / "model.lrnn"
        return folder / "checkpoints" / f"step-{self.steps:08d}.ckpt"

    def command(self, root: Path, args) -> list[str]:
        """The `lrnn fit` that makes it, or goes on with it; every generation sees clips of its own."""
        options = {
            "--data.root": args.data,
            "--data.seed": args.seed + 100 * self.generation,
            "--data.batch_size": args.batch_size,
            "--data.clip_seconds": args.clip_seconds,
            "--data.batches_per_epoch": self.steps,  # validated once, at the end
            "--seed_everything": args.seed,
            "--model.k": args.k,
            "--model.lr": RATES[self.generation],
            "--trainer.max_steps": self.steps,
            "--trainer.logger.init_args.save_dir": root,
            "--trainer.logger.init_args.name": self.name,
            "--trainer.logger.init_args.version": 0,
            "--ckpt_path": "last",
        }
        if self.parent is not None:
            options["--model.init_from"] = self.parent.folder(root) / "model.safetensors"
        command = [sys.executable, "-m", "lrnn.cli", "fit", "-c", RECIPE]
        command += [word for pair in options.items() for word in pair] + self._callback(args)
        return [str(word) for word in command]

    def _callback(self, args) -> list[str]:
        """What is done to the weights meanwhile."""
        if self.scheme not in (None, "float32"):
            options = {"scheme": self.scheme, "observer": observer(self.scheme), "clips": args.clips}
            return _callback("QuantizationAware", options)
        if self.level == 0:
            return []
        options = {"sparsity": self.level / 100, "start": 0.05, "end": 0.7}
        if self.scheme == "float32":  # the zeros there are, frozen at once
            options = {"sparsity": self.level / 100, "start": 0, "schedule": "oneshot"}
        return _callback("Prune", options)


def _callback(name: str, options: dict) -> list[str]:
    values = [f"--trainer.callbacks.init_args.{key}={value}" for key, value in options.items()]
    return [f"--trainer.callbacks+=lrnn.{name}", *values]


def main() -> None:
    args = parsed()
    root = Path(args.runs) / f"k{args.k:g}-b{args.batch_size}-{args.clip_seconds:g}s-seed{args.seed}"
    plan = planned(args)
    if not args.no_training:
        missing = [run for run in plan if not run.done(root)]
        for _ in progress(trained(missing, root, args), len(missing), "trainings"):
            pass
    bench, rows, programs = Bench(root, args.data, args.clips), [], {}
    cells = [(run, form) for run in plan[1:] for form in formats(run, args.formats)]
    there = [(run, form) for run, form in cells if run.done(root)]
    for run, form in progress(there, len(there), "cells"):
        model = run.model(root)
        row = {"run": run.name, "level": run.level, "format": form, "trained": run.scheme is not None}
        rows.append({**row, **bench.cell(model, run.name, form)})
        if not rows[-1]["trained"] and "file_bytes" in rows[-1]:
            programs[f"{run.level} {form}"] = bench.program(model, run.name, form)
    times = bench.times(programs, args.no_times)
    missing = list(dict.fromkeys(run.name for run, form in cells if (run, form) not in there))
    about = {"command": command(args), **settings(args), "missing": missing}
    write(Path(args.out), {**about, "cells": rows, "microseconds": times})
    print(Path(args.out).with_suffix(".md").read_text())


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--data", required=True, metavar="DIR", help="sources to mix and a validation set")
    add("-o", "--out", required=True, metavar="PREFIX", help="of the .md, .json and .svg files")
    add("--k", type=float, default=0.5, help="width factor (default: %(default)s)")
    add(
        "--steps",
        type=int,
        nargs=3,
        default=[1200, 600, 300],
        metavar="N",
        help="of the dense network, of pruning it, and of training it on quantised (default: 1200 600 300)",
    )
    add("--batch-size", type=int, default=16, help="clips (default: %(default)s)")
    add("--clip-seconds", type=float, default=2.0, help="default: %(default)s")
    add("--clips", type=int, default=64, help="training clips to calibrate on (default: %(default)s)")
    add("--seed", type=int, default=0, help="default: %(default)s")
    add("--levels", type=int, nargs="+", default=list(LEVELS), metavar="P", help="per cent of zeros")
    add("--formats", nargs="+", default=list(FORMATS), choices=("float32", *SCHEMES), metavar="F")
    add("--trained", nargs="*", default=list(TRAINED), metavar="F", help="formats that are trained, too")
    add(
        "--trained-levels", type=int, nargs="*", default=[90, 0], metavar="P", help="levels at which they are"
    )
    add("--runs", default="runs/ablation", metavar="DIR", help="where trainings and cells live")
    add("--jobs", type=int, default=os.cpu_count(), help="trainings side by side, one core each")
    add("--no-training", action="store_true", help="measure what is there")
    add("--no-times", action="store_true", help="time nothing; times that were taken before stay")
    args = parser.parse_args()
    if args.clips < 8 or args.clips % 8:
        parser.error(f"--clips is {args.clips}, expected a multiple of 8")
    wrong = [level for level in args.levels if not 0 <= level < 100]
    if wrong:
        parser.error(f"--levels has {wrong[0]}, expected 0 to 99 per cent")
    if not set(args.trained_levels) <= set(args.levels):
        parser.error(f"--trained-levels is {args.trained_levels}, expected some of --levels {args.levels}")
    unknown = [name for name in args.trained if name not in args.formats or name == "fp8"]
    if unknown:
        parser.error(f"--trained has {unknown[0]}, expected some of --formats, without fp8")
    return args


def settings(args) -> dict:
    names = ("k", "steps", "batch_size", "clip_seconds", "clips", "seed", "trained_levels")
    return {name: getattr(args, name) for name in names}


def command(args) -> str:
    """What makes this report again; options that have their default are left out."""
    defaults = {"k": 0.5, "steps": [1200, 600, 300], "batch_size": 16, "clip_seconds": 2.0, "clips": 64}
    defaults |= {"seed": 0, "levels": list(LEVELS), "formats": list(FORMATS), "trained": list(TRAINED)}
    defaults |= {"trained_levels": [90, 0]}
    words = ["python", "experiments/ablation.py", "--data", "DIR", "-o", args.out]
    for name, default in defaults.items():
        value = getattr(args, name)
        if value != default:
            words += [f"--{name.replace('_', '-')}", *map(str, value if isinstance(value, list) else [value])]
    return shlex.join(words)


def planned(args) -> list[Run]:
    """Every training, parents first."""
    dense_steps, pruning_steps, last_steps = args.steps
    dense = Run(dense_steps)
    pruned = [Run(pruning_steps, dense, level) for level in args.levels]
    parents = [run for level in args.trained_levels for run in pruned if run.level == level]
    return [dense, *pruned, *(Run(last_steps, p, p.level, name) for p in parents for name in args.trained)]


def formats(run: Run, asked: list[str]) -> list[str]:
    """In which a network is measured: all, or the one it was trained in."""
    return asked if run.scheme is None else [run.scheme]


def trained(missing: list[Run], root: Path, args) -> Iterator[Run]:
    """Train, `--jobs` side by side, parents before children; each run when it is done."""
    with ThreadPoolExecutor(args.jobs) as pool:
        for generation in range(3):
            todo = [run for run in missing if run.generation == generation]
            yield from pool.map(lambda run: fit(run, root, args), todo)


def fit(run: Run, root: Path, args) -> Run:
    """Run `lrnn fit` in a process of its own with one thread; RuntimeError names its log."""
    folder = root / run.name
    folder.mkdir(parents=True, exist_ok=True)
    command, log_path = run.command(root, args), folder / "fit.log"
    with open(log_path, "a") as log:
        done = subprocess.run(command, stderr=log, stdout=log, env={**os.environ, "OMP_NUM_THREADS": "1"})
    if done.returncode:
        raise RuntimeError(f"{log_path}: {shlex.join(command)} ended with {done.returncode}")
    return run


if __name__ == "__main__":
    sys.exit(main())
