"""Keywords: dense narrow networks beside 90 %-sparse wide ones of as many multiply-accumulates.

    python experiments/keywords.py --data DIR -o experiments/results/keywords

trains what is missing (experiments/keywords-mini.yaml at several widths), goes on where a run was stopped,
makes each model's fixed-point program (W8A16, calibrated on training clips, not trained further), measures
all of them on the clips that `lrnn eval keywords` reports on, and writes the table (.md), the figures (.json)
and the picture (.svg). With --report it only measures what is there; rows of an earlier report whose models
are elsewhere stay.
"""

import sys
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
from study import Training, call, fit_command, make_parser, reported, split, train_all, write_report

from lrnn.cli.console import progress
from lrnn.data.bootstrap import intervals
from lrnn.data.evaluate_keywords import score_clips
from lrnn.data.keywords import KeywordClips, find_keywords
from lrnn.data.spotter import KeywordSpotter
from lrnn.profile import count

RECIPE = "experiments/keywords-mini.yaml"
SPARSITY = {"dense": 0.0, "sparse": 0.9}
WIDTHS = {"dense": (0.1875, 0.25, 0.3125), "sparse": (0.5, 0.75, 1.0)}
"""Pairs of about as many multiply-accumulates: 3, 4 and 5 blocks of 16, and 8, 12 and 16."""
FORMS = {"float": "model.lrnn", "fixed": "model-w8a16.lrnn"}
AXES = {"macs": ("macs_weights", 1, "multiply-accumulates per frame, weights not zero")}
AXES |= {"bytes": ("file_bytes", 1e-3, "kB of the file")}
_ACTIVITY_CLIPS = 64


@dataclass(frozen=True)
class Run(Training):
    """One training of `steps` optimiser steps."""

    kind: str  # "dense" or "sparse"
    k: float
    seed: int
    steps: int

    @property
    def name(self) -> str:
        return f"keywords-{self.kind}-k{self.k:g}-s{self.seed}-{self.steps}"

    def command(self, args) -> list[str]:
        """The `lrnn fit` that makes it, or goes on with it."""
        options = {
            "--data.held_out": args.held_out,
            "--model.k": self.k,
            "--trainer.callbacks.sparsity": SPARSITY[self.kind],
        }
        return fit_command(RECIPE, self, args, options)


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
        train_all(runs, partial(train, args=args), args.jobs)
    rows = measured(runs, args)
    if not rows:
        raise SystemExit(f"{args.runs}: no trained models of {args.steps} steps")
    write(Path(args.out), rows, args)
    print(Path(args.out).with_suffix(".md").read_text())


def plan(steps: int, seeds: int) -> list[Run]:
    """Seed by seed, the narrowest first: each sparse width and the dense one beside it."""
    beside = zip(WIDTHS["sparse"], WIDTHS["dense"], strict=True)
    kinds = [(kind, k) for sparse, dense in beside for kind, k in (("sparse", sparse), ("dense", dense))]
    return [Run(kind, k, seed, steps) for seed in range(seeds) for kind, k in kinds]


def train(run: Run, args) -> None:
    """Run `lrnn fit` and `lrnn quantize` in processes of one thread, unless their results are there."""
    folder = run.folder(args.runs)
    floats, fixed = (folder / name for name in FORMS.values())
    if not floats.is_file():
        call(run.command(args), folder.parent / "fit.log")
    if not fixed.is_file():
        command = [sys.executable, "-m", "lrnn.cli", "quantize", str(floats), "-o", str(fixed)]
        call([*command, "--calibrate", args.data], folder.parent / "quantize.log")


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


def markdown(rows: list[dict], command: str) -> str:
    first = rows[0]
    lines = [
        f"# Keywords: dense narrow and 90 %-sparse wide networks after {first['steps']:,} steps each",
        "",
        f"`{command}`",
        "",
        f"{first['clips']} {first['split']} clips. Accuracy among the words, and its 95 % interval over the",
        f"clips. MACs: multiply-accumulates per frame ({first['frames_per_second']:g} frames a second):",
        "of all weights, of weights that are not zero, and of those on inputs that are not zero. W8A16 is",
        "calibrated, not trained quantised.",
        "",
        "| | k | seed | accuracy | interval | W8A16 | MACs | nonzero | effective | kB | kB W8A16 |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in sorted((r for r in rows if r["form"] == "float"), key=lambda r: (r["kind"], r["k"], r["seed"])):
        fixed = next((f for f in rows if f["form"] == "fixed" and same(f, r)), None)
        cells = [r["kind"], f"{r['k']:g}", str(r["seed"]), f"**{100 * r['accuracy']:.1f}**"]
        cells += [f"{100 * r['low']:.1f} to {100 * r['high']:.1f}"]
        cells += [f"{100 * fixed['accuracy']:.1f}" if fixed else "-"]
        cells += [f"{r[c]:,}" for c in ("macs", "macs_weights", "macs_effective")]
        cells += [f"{r['file_bytes'] / 1000:.0f}", f"{fixed['file_bytes'] / 1000:.0f}" if fixed else "-"]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        "Sparse less dense of about as many nonzero multiply-accumulates, on the same clips, in per cent:",
        "",
        "| sparse k | dense k | seed | form | MACs, sparse to dense | bytes | difference | 95 % interval |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [f"| {' | '.join(cells)} |" for cells in pairs(rows)]
    return "\n".join(lines) + "\n"


def pairs(rows: list[dict]) -> list[list[str]]:
    """Cells of every pair of models that are both there."""
    found = []
    for wide, narrow in zip(WIDTHS["sparse"], WIDTHS["dense"], strict=True):
        for sparse in (r for r in rows if (r["kind"], r["k"]) == ("sparse", wide)):
            wanted = {"kind": "dense", "k": narrow} | {n: sparse[n] for n in ("seed", "steps", "form")}
            dense = next((r for r in rows if all(r[n] == v for n, v in wanted.items())), None)
            if dense is None:
                continue
            difference = 100.0 * (np.array(sparse["right"]) - np.array(dense["right"]))
            mean, low, high = intervals(difference[:, None])[0]
            ratios = (sparse[c] / dense[c] for c in ("macs_weights", "file_bytes"))
            cells = [f"{wide:g}", f"{narrow:g}", str(sparse["seed"]), sparse["form"]]
            cells += [f"{ratio:.2f}" for ratio in ratios]
            found.append([*cells, f"{mean:+.1f}", f"{low:+.1f} to {high:+.1f}"])
    return found


def same(a: dict, b: dict) -> bool:
    return all(a[name] == b[name] for name in ("kind", "k", "seed", "steps"))


def plot(path: Path, rows: list[dict]) -> None:
    from lrnn.profile.plot import pyplot, save

    plt = pyplot()
    figure, panels = plt.subplots(1, len(AXES), figsize=(9, 4), layout="constrained", sharey=True)
    for panel, (column, unit, label) in zip(panels, AXES.values(), strict=True):
        for kind, colour, mark in (("dense", "#8a8a8a", "o"), ("sparse", "#1b4f8a", "s")):
            for form, line in (("float", "-"), ("fixed", ":")):
                chosen = [r for r in rows if (r["kind"], r["form"]) == (kind, form)]
                draw(panel, chosen, column, unit, f"{kind}, {form}", colour, mark, line)
        panel.set_xscale("log", subs=())
        panel.xaxis.set_major_locator(plt.matplotlib.ticker.LogLocator(subs=(1, 2, 5)))
        panel.xaxis.set_major_formatter("{x:,g}")
        panel.set_xlabel(label)
        panel.spines[["top", "right"]].set_visible(False)
        panel.margins(0.12)
    panels[0].set_ylabel("accuracy, %")
    panels[0].legend(loc="lower right", fontsize=8)
    save(figure, path)


def draw(panel, rows: list[dict], column: str, unit: float, label: str, colour: str, mark: str, line: str):
    """Points of all runs, a line through the means of each width."""
    if not rows:
        return
    widths = sorted({r["k"] for r in rows})
    points = [[(r[column] * unit, 100 * r["accuracy"]) for r in rows if r["k"] == k] for k in widths]
    means = [np.mean(p, axis=0) for p in points]
    hollow = "white" if line == ":" else colour
    panel.plot(*np.transpose(means), color=colour, linewidth=1, linestyle=line)
    x, y = np.transpose([p for width in points for p in width])
    panel.scatter(x, y, edgecolors=colour, facecolors=hollow, marker=mark, label=label, zorder=2)


if __name__ == "__main__":
    sys.exit(main())
