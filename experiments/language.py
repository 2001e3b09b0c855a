"""What sparsity costs a language model, and what it buys: byte-level HGRNs on text, trained alike.

    python experiments/language.py --data DIR -o experiments/results/language

trains what is missing, goes on where a run was stopped, measures every model on the validation text byte by
byte and writes the tables (.md), the figures (.json) and the picture (.svg). With --report it only measures
what is there. First table: one width, dense and pruned to 50, 80 and 90 %, in the form of Pierro et al.'s for
their HGRN of 370 million parameters. Second: each pruned network beside the dense one, narrower, that costs
as many multiply-accumulates per byte.
"""

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml

import lrnn
from lrnn.cli.console import progress
from lrnn.data.text import documents, find_text
from lrnn.data.text_program import Scorer, bits_per_byte
from lrnn.files import written_whole
from lrnn.profile import count

RECIPE = "experiments/language-mini.yaml"
WIDE = 256
LEVELS = (0.0, 0.5, 0.8, 0.9)
NARROW = {0.5: 184, 0.8: 120, 0.9: 88}
"""Width of the dense network with as many multiply-accumulates as WIDE at a sparsity, embedding and head dense:
40 width^2 of 4 layers, each 4 width^2 and 6 width^2 of its gated linear unit, and 256 width of the head."""


@dataclass(frozen=True)
class Run:
    """One training: `steps` optimiser steps of the recipe's rows."""

    width: int
    sparsity: float
    seed: int
    steps: int

    @property
    def name(self) -> str:
        return f"language-{self.width}-{round(100 * self.sparsity)}-s{self.seed}-{self.steps}"

    def folder(self, root: Path) -> Path:
        return root / self.name / "version_0"

    def recipe(self, args) -> dict:
        """RECIPE at this width and sparsity; dense networks have no masks."""
        recipe = yaml.safe_load(Path(RECIPE).read_text())
        recipe["seed_everything"] = recipe["data"]["init_args"]["seed"] = self.seed
        recipe["data"]["init_args"]["root"] = args.data
        block = recipe["model"]["init_args"]["network"]["block"]
        block |= {"d_model": self.width, "d_state": self.width, "d_hidden": 2 * self.width}
        trainer = recipe["trainer"]
        trainer["max_steps"] = self.steps
        trainer["logger"]["init_args"] |= {"save_dir": args.runs, "name": self.name}
        masks = next(c for c in trainer["callbacks"] if c["class_path"].endswith(".Prune"))
        if self.sparsity:
            masks["init_args"]["sparsity"] = self.sparsity
        else:
            trainer["callbacks"].remove(masks)
        return recipe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, metavar="DIR", help="text of both splits, such as text-mini")
    parser.add_argument(
        "-o", "--out", required=True, metavar="PREFIX", help="of the .md, .json and .svg files"
    )
    parser.add_argument("--runs", default="runs", metavar="DIR", help="where the trainings live")
    parser.add_argument("--steps", type=int, default=4000, help="optimiser steps of every run")
    parser.add_argument("--seeds", type=int, default=1, help="trainings of each network")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count(), help="trainings side by side, one core each"
    )
    parser.add_argument("--report", action="store_true", help="train nothing, measure what is there")
    args = parser.parse_args()
    runs = plan(args.steps, args.seeds)
    if not args.report:
        with ThreadPoolExecutor(args.jobs) as pool:
            list(pool.map(lambda run: train(run, args), runs))
    rows = measured(runs, args)
    write(Path(args.out), rows, args)
    print(Path(args.out).with_suffix(".md").read_text())


def plan(steps: int, seeds: int) -> list[Run]:
    """In the order of what they tell: 90 % and its dense counterpart, dense, then what lies between."""
    pairs = [(WIDE, 0.9), (NARROW[0.9], 0.0), (WIDE, 0.0)]
    pairs += [(WIDE, 0.8), (NARROW[0.8], 0.0), (WIDE, 0.5), (NARROW[0.5], 0.0)]
    return [Run(width, sparsity, seed, steps) for seed in range(seeds) for width, sparsity in pairs]


def train(run: Run, args) -> None:
    """Run `lrnn fit` in a process of its own with one thread, unless its result is there."""
    folder = run.folder(Path(args.runs))
    if (folder / "model.lrnn").is_file():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    recipe, log_path = folder.parent / "recipe.yaml", folder.parent / "fit.log"
    recipe.write_text(yaml.safe_dump(run.recipe(args), sort_keys=False))
    command = [sys.executable, "-m", "lrnn.cli", "fit", "-c", str(recipe), "--ckpt_path", "last"]
    with open(log_path, "a") as log:
        done = subprocess.run(command, stderr=log, stdout=log, env={**os.environ, "OMP_NUM_THREADS": "1"})
    if done.returncode:
        raise RuntimeError(f"{log_path}: {' '.join(command)} ended with {done.returncode}")


if __name__ == "__main__":
    sys.exit(main())
