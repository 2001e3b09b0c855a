"""Does sparsity pay? Dense and 90 %-sparse denoisers of several widths, trained alike, beside each other.

    python experiments/pareto.py --data DIR -o experiments/results/pareto

trains what is missing, goes on where a run was stopped, measures every model on the validation clips and
writes the table (.md), the figures (.json) and the picture (.svg). Beside sparse networks of equal steps
stands structured pruning: the dense network of that width, trained, narrowed to the sparse one's cost, and
trained for as many steps again. With --report it only measures what is
there; rows of an earlier report whose models are elsewhere stay. The claim tested is the paper's: at equal
quality sparse models need fewer multiply-accumulates and fewer bytes. Quality between two widths is
interpolated along the logarithm of the cost.
"""

import sys
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from compare import measure
from narrow import network_options, start_of
from study import (
    LOOKS,
    Training,
    call,
    cost_axis,
    fit_command,
    make_parser,
    reported,
    split,
    train_all,
    write_report,
)

from lrnn.cli.console import progress
from lrnn.data.ndns import NdnsFolder, find_validation
from lrnn.train.checkpoint import load_checkpoint

RECIPES = dict.fromkeys(("dense", "structured"), "experiments/denoise-mini-dense.yaml")
RECIPES["sparse"] = "experiments/denoise-mini.yaml"
WIDTHS = {"dense": (0.25, 0.5, 1.0), "sparse": (0.5, 1.0, 2.0)}
NARROWED = (0.5, 1.0)
"""Widths of which there is a dense network and a sparse one."""
FRAMES_PER_SECOND = 125
SPEED = {0.25: 3.6, 0.5: 2.2, 1.0: 1.0, 2.0: 0.33}
"""Optimiser steps, with their clips, in the time of one of k = 1 (198 ms; 55, 91 and 604 at the other widths:
CPU time of one core of an EPYC, Zen 4, dense; masks add a twentieth)."""
AXES = {
    "macs": ("macs_effective", "effective multiply-accumulates"),
    "weights": ("macs_weights", "nonzero-weight multiply-accumulates"),
    "bytes": ("file_bytes", "bytes of the file"),
}


@dataclass(frozen=True)
class Run(Training):
    """One training: `steps` optimiser steps of 16 mixtures of 2 s."""

    kind: str  # "dense", "sparse" or "structured"
    k: float  # of a structured one before it was narrowed
    seed: int
    steps: int

    @property
    def name(self) -> str:
        return f"pareto-{self.kind}-k{self.k:g}-s{self.seed}-{self.steps}"

    def command(self, args) -> list[str]:
        """The `lrnn fit` that makes it, or goes on with it."""
        options = {"--model.k": self.k}
        if self.kind == "structured":
            start = start_of(self, replace(self, kind="dense"), replace(self, kind="sparse"), args.runs)
            options = {
                "--model.init_args.init_from": start,
                **network_options(load_checkpoint(start)[0].config),
            }
        return fit_command([RECIPES[self.kind]], self, args, options)


def main() -> None:
    parser = make_parser(
        __doc__.splitlines()[0],
        data="sources to mix and a validation set",
        steps=6000,
        seeds=2,
        seeds_of="at the widths of the claim; 1 elsewhere",
    )
    parser.add_argument(
        "--equal", choices=("steps", "time"), default="steps", help="time: --steps is that of k = 1"
    )
    parser.add_argument(
        "--also", metavar="FILE.json", help="an earlier report: runs that stand there are not trained again"
    )
    args = parser.parse_args()
    runs = plan(args.steps, args.seeds, args.equal)
    if not args.report:
        known = [] if args.also is None else reported(runs, Path(args.also))
        missing = [run for run in runs if not any(run.is_of(row) for row in known)]
        for structured in (False, True):  # which start from the others
            those = [run for run in missing if (run.kind == "structured") == structured]
            # The longest first, so that none is left over at the end.
            train_all(sorted(those, key=lambda r: -r.k), partial(train, args=args), args.jobs)
    rows = measured(runs, args)
    write(Path(args.out), rows, claims(rows), args)
    print(Path(args.out).with_suffix(".md").read_text())


def plan(steps: int, seeds: int, equal: str = "steps") -> list[Run]:
    """Every width once; sparse k = 1 and the dense widths around it, on which the claim rests, per seed."""
    once = [(kind, k, 0) for kind, widths in WIDTHS.items() for k in widths]
    if equal == "steps":
        once += [("structured", k, 0) for k in NARROWED]
    repeated = (("sparse", 1.0), ("dense", 0.25), ("dense", 0.5))
    again = [(kind, k, seed) for seed in range(1, seeds) for kind, k in repeated]
    count = {k: steps if equal == "steps" else 100 * round(steps * speed / 100) for k, speed in SPEED.items()}
    return [Run(kind, k, seed, count[k]) for kind, k, seed in once + again]


def train(run: Run, args) -> None:
    """Run `lrnn fit` in a process of its own with one thread, unless its result is there."""
    folder = run.folder(args.runs)
    if not (folder / "model.lrnn").is_file():
        call(run.command(args), folder.parent / "fit.log")


def measured(runs: list[Run], args) -> list[dict]:
    """Figures of every model that is there, and of those that an earlier report measured elsewhere."""
    folder = NdnsFolder(find_validation(args.data))
    clips = [folder[i] for i in range(len(folder))]
    there, elsewhere = split(runs, args.runs)
    rows = []
    for report in (Path(args.out).with_suffix(".json"), *([] if args.also is None else [Path(args.also)])):
        left = [run for run in elsewhere if not any(run.is_of(row) for row in rows)]
        rows += reported(left, report)
    if not there and not rows:
        raise SystemExit(f"{args.runs}: no trained models of {args.steps} steps")
    for run in progress(there, len(there), "measure"):
        folder = run.folder(args.runs)
        # Last what the run is: the card of a narrowed network says k = 1.
        rows.append({**measure(str(folder / "model.lrnn"), clips), **asdict(run)})
    return rows


def claims(rows: list[dict]) -> dict[str, list[dict]]:
    """For each axis and sparse model: how many times its cost the dense model of equal quality has."""
    sparse = [row for row in rows if row["kind"] == "sparse"]
    return {
        axis: [
            {
                "k": row["k"],
                "seed": row["seed"],
                **equal_quality(row, front(rows, column, row["seed"]), column),
            }
            for row in sparse
        ]
        for axis, (column, _) in AXES.items()
    }


def front(rows: list[dict], column: str, seed: int) -> list[dict]:
    """Dense models in order of cost, each better than all cheaper ones; the run with this seed if any."""
    chosen = {}
    for row in sorted((r for r in rows if r["kind"] == "dense"), key=lambda r: r["seed"] == seed):
        chosen[row["k"]] = row
    best: list[dict] = []
    for row in sorted(chosen.values(), key=lambda r: r[column]):
        if not best or row["si_snr"] > best[-1]["si_snr"]:
            best.append(row)
    return best


def equal_quality(row: dict, dense: list[dict], column: str) -> dict:
    """Cost of the dense model as good as `row`, over row's: quality is linear in the logarithm of the cost.

    Beyond the dense front nothing is extrapolated: `bound` says that the ratio is at least, or at most, that
    to the front's end.
    """
    quality, costs = [r["si_snr"] for r in dense], [r[column] for r in dense]
    bound = ">=" if row["si_snr"] > quality[-1] else "<=" if row["si_snr"] < quality[0] else ""
    cost = float(np.exp(np.interp(row["si_snr"], quality, np.log(costs))))
    return {"ratio": cost / row[column], "bound": bound}


def write(out: Path, rows: list[dict], found: dict, args) -> None:
    options = f"--steps {args.steps} --equal {args.equal} --seeds {args.seeds} -o {args.out}"
    options += "" if args.also is None else f" --also {args.also}"
    command = f"python experiments/pareto.py --data DIR {options}"
    write_report(
        out, {"command": command, "models": rows, "equal_quality": found}, markdown(rows, found, command)
    )
    plot(out.with_suffix(".svg"), rows)


def markdown(rows: list[dict], found: dict, command: str) -> str:
    first, steps = rows[0], sorted({r["steps"] for r in rows})
    length = f"{steps[0]:,} steps each" if len(steps) == 1 else "equal times"
    structured = [
        "Structured: the dense network of that k, narrowed to the sparse cost, after as many steps more."
    ] * any(r["kind"] == "structured" for r in rows)
    lines = [
        f"# Dense, structured and 90 %-sparse denoisers after {length}",
        "",
        f"`{command}`",
        "",
        f"{first['clips']} validation clips, noisy {first['noisy_si_snr']:.2f} dB SI-SNR. MMAC/s: millions",
        "of multiply-accumulates per second of audio: of all weights, of nonzero weights, and of nonzero",
        "weights on nonzero inputs.",
        *structured,
        "",
        "| | k | seed | steps | SI-SNR | SI-SNRi | MMAC/s | nonzero | effective | kB |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in sorted(rows, key=lambda r: (r["kind"], r["k"], r["seed"])):
        rates = (r[c] * FRAMES_PER_SECOND / 1e6 for c in ("macs", "macs_weights", "macs_effective"))
        cells = [r["kind"], f"{r['k']:g}", str(r["seed"]), f"{r['steps']:,}"]
        cells += [f"**{r['si_snr']:.2f}**", f"{r['si_snri']:+.2f}"]
        cells += [f"{rate:.2f}" for rate in rates]
        lines.append(f"| {' | '.join([*cells, format(r['file_bytes'] / 1000, '.0f')])} |")
    lines += [
        "",
        "Cost of the dense model of equal quality over that of the sparse one, interpolated along the",
        "logarithm of the cost between dense widths; a bound where no dense width is as good, or as bad:",
        "",
        f"| sparse k | seed | {' | '.join(label for _, label in AXES.values())} |",
        "|---|---|" + "---|" * len(AXES),
    ]
    for cells in zip(*found.values(), strict=True):
        ratios = [f"{c['bound']} {c['ratio']:.2f}".strip() for c in cells]
        lines.append(f"| {' | '.join([format(cells[0]['k'], 'g'), str(cells[0]['seed']), *ratios])} |")
    return "\n".join(lines) + "\n"


def plot(path: Path, rows: list[dict]) -> None:
    from lrnn.profile.plot import pyplot, save

    plt = pyplot()
    figure, panels = plt.subplots(1, 2, figsize=(9, 4), layout="constrained", sharey=True)
    axes = {
        "macs_effective": (FRAMES_PER_SECOND / 1e6, "effective MMAC/s"),
        "file_bytes": (1e-3, "kB of the file"),
    }
    for panel, (column, (unit, label)) in zip(panels, axes.items(), strict=True):
        for kind, (colour, mark) in LOOKS.items():
            draw(panel, [r for r in rows if r["kind"] == kind], column, unit, kind, colour, mark)
        cost_axis(panel, label)
        panel.margins(0.12)
    panels[0].set_ylabel("SI-SNR improvement, dB")
    panels[0].legend(loc="lower right", fontsize=8)
    save(figure, path)


def draw(panel, rows: list[dict], column: str, unit: float, kind: str, colour: str, mark: str) -> None:
    """Points of all runs, a line through the means of each width."""
    if not rows:
        return
    widths = sorted({r["k"] for r in rows})
    means = [np.mean([(r[column] * unit, r["si_snri"]) for r in rows if r["k"] == k], axis=0) for k in widths]
    panel.plot(*np.transpose(means), color=colour, linewidth=1)
    label = "90 % sparse" if kind == "sparse" else kind
    panel.scatter(
        [r[column] * unit for r in rows], [r["si_snri"] for r in rows], c=colour, marker=mark, label=label
    )
    for k, (x, y) in zip(widths, means, strict=True):
        panel.annotate(f"k={k:g}", (x, y), xytext=(5, -9), textcoords="offset points", fontsize=7)


if __name__ == "__main__":
    sys.exit(main())
