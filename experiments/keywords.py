"""Keywords: 90 %-sparse wide networks beside dense and structured ones of as many multiply-accumulates.

    python experiments/keywords.py --data DIR -o experiments/results/keywords

trains what is missing (experiments/keywords-mini.yaml at several widths), goes on where a run was stopped,
narrows the dense networks of the sparse ones' widths to their cost and trains them on, makes each model's
fixed-point program (W8A16) without and with a short training as it will run, measures all of them on the
clips that `lrnn eval keywords` reports on, and writes the table (.md), the figures (.json) and the picture
(.svg). With --report it only measures what is there; rows of an earlier report whose models are elsewhere
stay.
"""

import sys
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from keywords_report import NARROW, markdown, plot
from narrow import network_options, start_of
from study import Training, call, fit_command, make_parser, reported, split, train_all, write_report

from lrnn.cli.console import progress
from lrnn.data.evaluate_keywords import score_clips
from lrnn.data.keywords import KeywordClips, find_keywords
from lrnn.data.spotter import KeywordSpotter
from lrnn.profile import count
from lrnn.train.checkpoint import load_checkpoint

RECIPE = "experiments/keywords-mini.yaml"
QUANTIZED = "experiments/keywords-mini-w8a16.yaml"
TUNING = 5
"""Of so many steps in float, one more is trained quantised."""
SPARSITY = {"dense": 0.0, "sparse": 0.9, "structured": 0.0}
FORMS = {
    "float": "model.lrnn",
    "calibrated": "model-w8a16.lrnn",
    "trained": "../w8a16/version_0/model-w8a16.lrnn",
}
"""Files in a run's folder: in float32, and in W8A16 without and with training."""
_ACTIVITY_CLIPS = 64


@dataclass(frozen=True)
class Run(Training):
    """One training of `steps` optimiser steps."""

    kind: str  # "dense", "sparse", or "structured": dense, narrowed, trained for as many steps again
    k: float  # of a structured one before it was narrowed
    seed: int
    steps: int

    @property
    def name(self) -> str:
        return f"keywords-{self.kind}-k{self.k:g}-s{self.seed}-{self.steps}"

    def command(self, args) -> list[str]:
        """The `lrnn fit` that makes it, or goes on with it."""
        options = {"--trainer.callbacks.sparsity": SPARSITY[self.kind]}
        if self.kind == "structured":
            options["--model.init_from"] = self.start(args)
        return fit_command([RECIPE], self, args, options | self.common(args))

    def tuning(self, args) -> list[str]:
        """The `lrnn fit` that trains it on, quantised."""
        options = {
            "--model.init_from": self.folder(args.runs) / "model.safetensors",
            "--data.seed": self.seed + 1,
            "--trainer.max_steps": self.steps // TUNING,
            "--trainer.logger.init_args.save_dir": Path(args.runs) / self.name,
            "--trainer.logger.init_args.name": "w8a16",
        }
        return fit_command([RECIPE, QUANTIZED], self, args, options | self.common(args))

    def common(self, args) -> dict[str, object]:
        """Options of both trainings: data, and sizes of the network."""
        sizes = {"--model.k": self.k}
        if self.kind == "structured":
            sizes = network_options(load_checkpoint(self.start(args))[0].config)
        return {"--data.held_out": args.held_out} | sizes

    def start(self, args) -> Path:
        """What a structured one starts from: the dense one of its width at the cost of the sparse one."""
        return start_of(self, replace(self, kind="dense"), replace(self, kind="sparse"), args.runs)


def main() -> None:
    parser = make_parser(
        __doc__.splitlines()[0],
        data="keywords, noise and speech",
        steps=3000,
        seeds=1,
        seeds_of="of every width",
    )
    parser.add_argument(
        "--held-out", type=float, default=0.0, metavar="SHARE", help="of training speakers, see KeywordData"
    )
    args = parser.parse_args()
    runs = plan(args.steps, args.seeds)
    if not args.report:
        for those in (("dense", "sparse"), ("structured",)):  # which start from those before
            train_all([run for run in runs if run.kind in those], partial(train, args=args), args.jobs)
    rows = measured(runs, args)
    if not rows:
        raise SystemExit(f"{args.runs}: no trained models of {args.steps} steps")
    write(Path(args.out), rows, args)
    print(Path(args.out).with_suffix(".md").read_text())


def plan(steps: int, seeds: int) -> list[Run]:
    """Seed by seed: each sparse width and the dense one of its cost, then the baselines of its own width."""
    pairs = ((("sparse", wide), ("dense", NARROW[wide])) for wide in NARROW)
    kinds = [each for pair in pairs for each in pair]
    kinds += [(kind, wide) for kind in ("dense", "structured") for wide in NARROW]
    return [Run(kind, k, seed, steps) for seed in range(seeds) for kind, k in kinds]


def train(run: Run, args) -> None:
    """Train in float and quantised, and make both fixed-point programs, where they are not there yet.

    Every command runs in a process of one thread.
    """
    folder = run.folder(args.runs)
    floats, calibrated, trained = (folder / name for name in FORMS.values())
    log = folder.parent
    if not floats.is_file():
        call(run.command(args), log / "fit.log")
    if not calibrated.is_file():
        quantize(floats, calibrated, args, log / "quantize.log")
    if not trained.is_file():
        call(run.tuning(args), log / "fit-w8a16.log")
        quantize(trained.with_name("model.lrnn"), trained, args, log / "quantize.log")


def quantize(floats: Path, fixed: Path, args, log: Path) -> None:
    """`lrnn quantize`: with the grids and ranges of the training, where it was quantised."""
    command = [sys.executable, "-m", "lrnn.cli", "quantize", str(floats), "-o", str(fixed)]
    call([*command, "--calibrate", args.data], log)


def measured(runs: list[Run], args) -> list[dict]:
    """Figures of both forms of every model that is there, or that an earlier report measured elsewhere."""
    folder = find_keywords(args.data)
    clips_of, listed = folder.to_report()
    clips = KeywordClips(folder, listed)
    rows, there = [], []
    for form, file in FORMS.items():
        here, elsewhere = split(runs, args.runs, file)
        there += [(run, form) for run in here]
        rows += rows_elsewhere(elsewhere, form, Path(args.out).with_suffix(".json"))
    for run, form in progress(there, len(there), "measure"):
        found = measure(run.folder(args.runs) / FORMS[form], clips)
        rows.append({**asdict(run), "form": form, "split": clips_of, **found})
    return rows


def rows_elsewhere(runs: list[Run], form: str, path: Path) -> list[dict]:
    """The rows of these runs in one form that an earlier report has."""
    return [row for row in reported(runs, path) if row["form"] == form]


def measure(path: Path, clips: KeywordClips) -> dict:
    """Accuracy, costs per frame, bytes."""
    spotter = KeywordSpotter.load(path)
    scored = score_clips(spotter, clips)
    found = scored.report()
    audio = np.stack([clips[i] for i in range(min(len(clips), _ACTIVITY_CLIPS))]).astype(np.float32) / 32768
    frames = spotter.features(audio.reshape(-1), spotter.sample_rate)
    costs = count(spotter.program, frames)
    return {
        **{name: found[name] for name in ("clips", "accuracy", "low", "high", "accuracy_all_labels")},
        "frames_per_second": spotter.sample_rate / spotter.frontend.step,
        "density": sum(c.nonzero for c in costs) / sum(c.parameters for c in costs),
        "macs": sum(c.macs for c in costs),
        "macs_weights": sum(c.macs_weights for c in costs),
        "macs_effective": round(sum(c.macs_effective for c in costs)),
        "file_bytes": path.stat().st_size,
        "right": scored.right.astype(int).tolist(),
    }


def write(out: Path, rows: list[dict], args) -> None:
    command = (
        f"python experiments/keywords.py --data DIR --steps {args.steps} --seeds {args.seeds} -o {args.out}"
    )
    write_report(out, {"command": command, "models": rows}, markdown(rows, command))
    plot(out.with_suffix(".svg"), rows)


if __name__ == "__main__":
    sys.exit(main())
