"""What sparsity costs a language model, and what it buys: byte-level HGRNs on text, trained alike.

    python experiments/language.py --data DIR -o experiments/results/language

trains what is missing, goes on where a run was stopped, measures every model on the validation text byte by
byte and writes the tables (.md), the figures (.json) and the picture (.svg). With --report it only measures
what is there. First table: one width, dense and pruned to 50, 80 and 90 %, in the form of Pierro et al.'s for
their HGRN of 370 million parameters. Second: each pruned network beside two that cost as many
multiply-accumulates per byte: one that was narrow and dense from the start, and the wide dense one narrowed
by structured pruning after its training and trained for as many steps again.
"""

import sys
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import yaml
from narrow import start_of
from study import LOOKS, Training, call, cost_axis, make_parser, reported, split, train_all, write_report

import lrnn
from lrnn.cli.console import progress
from lrnn.data.text import documents, find_text
from lrnn.data.text_program import Scorer, bits_per_byte
from lrnn.profile import count
from lrnn.train.checkpoint import load_checkpoint

RECIPE = "experiments/language-mini.yaml"
WIDE = 256
NARROW = {0.5: 184, 0.8: 120, 0.9: 88}
"""Width of the dense network with as many multiply-accumulates per byte as WIDE at a sparsity: 40 width^2 in
four layers (4 in each HGRN, 6 in each gated linear unit), and 256 width in the head, which stays dense."""
COLUMNS = "width, sparsity, seed, bits per byte, 95 % interval, parameters, nonzero, MACs, effective, kB"
EFFECTIVE_ON = 16384
"""Bytes on which zeros among the activations are counted."""


@dataclass(frozen=True)
class Run(Training):
    """One training: `steps` optimiser steps of the recipe's rows."""

    width: int  # of a structured one before it was narrowed
    sparsity: float  # of a structured one that of the network whose cost it has
    seed: int
    steps: int
    structured: bool = False

    @property
    def name(self) -> str:
        kind = "structured-" if self.structured else ""
        return f"language-{self.width}-{kind}{round(100 * self.sparsity)}-s{self.seed}-{self.steps}"

    def recipe(self, args) -> dict:
        """RECIPE at this width and sparsity; dense networks have no masks."""
        recipe = yaml.safe_load(Path(RECIPE).read_text())
        recipe["seed_everything"] = recipe["data"]["init_args"]["seed"] = self.seed
        recipe["data"]["init_args"]["root"] = args.data
        model = recipe["model"]["init_args"]
        block = model["network"]["block"]
        if self.structured:
            model["init_from"] = str(self.start(args))
            config = load_checkpoint(model["init_from"])[0].config.block.to_dict()
            block |= {name: config[name] for name in ("d_model", "d_state", "d_hidden")}
        else:
            block |= {"d_model": self.width, "d_state": self.width, "d_hidden": 2 * self.width}
        trainer = recipe["trainer"]
        trainer["max_steps"] = self.steps
        trainer["logger"]["init_args"] |= {"save_dir": args.runs, "name": self.name}
        masks = next(c for c in trainer["callbacks"] if c["class_path"].endswith(".Prune"))
        if self.sparsity and not self.structured:
            masks["init_args"]["sparsity"] = self.sparsity
        else:
            trainer["callbacks"].remove(masks)
        return recipe

    def start(self, args) -> Path:
        """What a structured one is trained from: the dense one narrowed to the cost of the sparse one."""
        sparse = replace(self, structured=False)
        return start_of(self, replace(sparse, sparsity=0.0), sparse, args.runs)


def main() -> None:
    parser = make_parser(
        __doc__.splitlines()[0],
        data="text of both splits, such as text-mini",
        steps=4000,
        seeds=1,
        seeds_of="trainings of each network",
    )
    args = parser.parse_args()
    runs = plan(args.steps, args.seeds)
    if not args.report:
        for structured in (False, True):  # which start from the others
            those = [run for run in runs if run.structured == structured]
            train_all(those, partial(train, args=args), args.jobs)
    rows = measured(runs, args)
    write(Path(args.out), rows, args)
    print(Path(args.out).with_suffix(".md").read_text())


def plan(steps: int, seeds: int) -> list[Run]:
    """In the order of what they tell: 90 % and its dense counterpart, dense, then what lies between."""
    pairs = [(WIDE, 0.9), (NARROW[0.9], 0.0), (WIDE, 0.0)]
    pairs += [(WIDE, 0.8), (NARROW[0.8], 0.0), (WIDE, 0.5), (NARROW[0.5], 0.0)]
    runs = [Run(width, sparsity, seed, steps) for seed in range(seeds) for width, sparsity in pairs]
    narrowed = [replace(run, structured=True) for run in runs if run.sparsity]
    return runs + narrowed


def train(run: Run, args) -> None:
    """Run `lrnn fit` in a process of its own with one thread, unless its result is there."""
    folder = run.folder(args.runs)
    if (folder / "model.lrnn").is_file():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    recipe = folder.parent / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(run.recipe(args), sort_keys=False))
    command = [sys.executable, "-m", "lrnn.cli", "fit", "-c", str(recipe), "--ckpt_path", "last"]
    call(command, folder.parent / "fit.log")


def measured(runs: list[Run], args) -> list[dict]:
    """Figures of every model that is there, and of those that an earlier report measured elsewhere."""
    texts = {path.name: list(documents(path)) for path in find_text(args.data, "val")}
    there, elsewhere = split(runs, args.runs)
    rows = reported(elsewhere, Path(args.out).with_suffix(".json"))
    if not there and not rows:
        raise SystemExit(f"{args.runs}: no trained models of {args.steps} steps")
    for run in progress(there, len(there), "measure"):
        rows.append({**asdict(run), **measure(run.folder(args.runs) / "model.lrnn", texts)})
    return sorted(rows, key=lambda row: (row["seed"], row["structured"], row["sparsity"], -row["width"]))


def measure(path: Path, texts: dict[str, list[bytes]]) -> dict:
    program = lrnn.load(path)
    scorer = Scorer(program)
    scores = {name: [scorer(document) for document in found] for name, found in texts.items()}
    total = bits_per_byte([score for found in scores.values() for score in found])
    (tokens,) = scorer.tokenizer.encode([next(iter(texts.values()))[0][:EFFECTIVE_ON]])
    costs = count(program, tokens[:, None].astype(np.float32))
    return {
        "bits_per_byte": total.mean,
        "low": total.low,
        "high": total.high,
        "by_file": {name: bits_per_byte(found).mean for name, found in scores.items()},
        "parameters": sum(c.parameters for c in costs),
        "nonzero": sum(c.nonzero for c in costs),
        "macs": sum(c.macs for c in costs),
        "macs_weights": sum(c.macs_weights for c in costs),
        "macs_effective": round(sum(c.macs_effective for c in costs)),
        "file_bytes": path.stat().st_size,
    }


def write(out: Path, rows: list[dict], args) -> None:
    options = f"--steps {args.steps} --seeds {args.seeds} -o {args.out}"
    command = f"python experiments/language.py --data DIR {options}"
    write_report(out, {"command": command, "models": rows}, markdown(rows, command))
    plot(out.with_suffix(".svg"), rows)


def markdown(rows: list[dict], command: str) -> str:
    lines = [
        f"# Byte-level HGRNs after {rows[0]['steps']:,} steps",
        "",
        f"`{command}`",
        "",
        "Bits per byte of the validation text, each document streamed from the state zero. MACs: thousands",
        "of multiply-accumulates per byte of nonzero weights; effective: where the input is not zero either.",
        "",
        *at_one_width(rows),
        *at_equal_cost(rows),
        "Every model:",
        "",
        f"| {COLUMNS.replace(', ', ' | ')} |",
        "|---" * len(COLUMNS.split(", ")) + "|",
    ]
    for r in rows:
        cells = [str(r["width"]), level(r), str(r["seed"]), f"**{r['bits_per_byte']:.3f}**"]
        cells += [f"{r['low']:.3f} to {r['high']:.3f}", f"{r['parameters']:,}", f"{r['nonzero']:,}"]
        cells += [f"{r[name] / 1000:,.0f}" for name in ("macs_weights", "macs_effective", "file_bytes")]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def level(row: dict) -> str:
    """How many of its weights are zero, or at whose cost it is dense."""
    return f"as {row['sparsity']:.0%}, structured" if row["structured"] else f"{row['sparsity']:.0%}"


def kind_of(row: dict) -> str:
    """As LOOKS has it."""
    return "structured" if row["structured"] else "sparse" if row["sparsity"] else "dense"


def at_one_width(rows: list[dict]) -> list[str]:
    """The paper's table: loss and cost of each level of sparsity, and their change from dense."""
    wide = [r for r in rows if r["width"] == WIDE and not r["structured"]]
    chosen = {r["sparsity"]: r for r in reversed(wide)}  # of the first seed
    levels = sorted(chosen)
    if 0.0 not in levels:
        return []
    dense = chosen[0.0]

    def line(label: str, name: str, form: str, unit: float = 1.0) -> str:
        change = [chosen[level][name] / dense[name] - 1 for level in levels]
        cells = [format(chosen[level][name] * unit, form) for level in levels]
        found = [cell + (f" ({by:+.1%})" if by else "") for cell, by in zip(cells, change, strict=True)]
        return f"| {label} | {' | '.join(found)} |"

    return [
        f"Width {WIDE}, pruned by iterative magnitude:",
        "",
        f"| sparsity | {' | '.join(f'{level:.0%}' if level else 'dense' for level in levels)} |",
        "|---" * (1 + len(levels)) + "|",
        line("bits per byte", "bits_per_byte", ".3f"),
        line("MACs", "macs_weights", ",.0f", 1e-3),
        line("bytes of the file, kB", "file_bytes", ",.0f", 1e-3),
        "",
    ]


def at_equal_cost(rows: list[dict]) -> list[str]:
    """Each pruned network beside those that cost as much."""
    chosen = {(r["width"], r["sparsity"], r["structured"]): r for r in reversed(rows)}
    lines = []
    for sparsity in sorted(NARROW, reverse=True):
        sparse = chosen.get((WIDE, sparsity, False))
        others = {f"dense, width {NARROW[sparsity]}": chosen.get((NARROW[sparsity], 0.0, False))}
        others["structured"] = chosen.get((WIDE, sparsity, True))
        for label, other in others.items():
            if sparse and other:
                better = sparse["bits_per_byte"] / other["bits_per_byte"] - 1
                cells = [
                    f"{r['bits_per_byte']:.3f} at {r['macs_weights'] / 1000:,.0f}" for r in (sparse, other)
                ]
                lines.append(f"| {sparsity:.0%} | {cells[0]} | {label} | {cells[1]} | {better:+.1%} |")
    if not lines:
        return []
    head = f"| sparsity of width {WIDE} | bits per byte at MACs | beside | bits per byte at MACs | change |"
    return ["Sparse and wide beside others at equal MACs:", "", head, "|---" * 5 + "|", *lines, ""]


def plot(path: Path, rows: list[dict]) -> None:
    from lrnn.profile.plot import pyplot, save

    plt = pyplot()
    figure, panel = plt.subplots(figsize=(5.5, 4), layout="constrained")
    labels = {"dense": "dense", "structured": "structured", "sparse": f"width {WIDE}, pruned"}
    for kind, (colour, mark) in LOOKS.items():
        found = [r for r in rows if kind_of(r) == kind]
        found.sort(key=lambda r: r["macs_weights"])
        x, y = [r["macs_weights"] / 1000 for r in found], [r["bits_per_byte"] for r in found]
        panel.plot(x, y, color=colour, marker=mark, linewidth=1, label=labels[kind])
        for r, *at in zip(found, x, y, strict=True):
            text = f"{r['sparsity']:.0%}" if r["sparsity"] else str(r["width"])
            beside = (-8, -12) if r["structured"] else (5, 4)
            panel.annotate(text, at, xytext=beside, textcoords="offset points", fontsize=7)
    cost_axis(panel, "thousand multiply-accumulates per byte")
    panel.set_ylabel("bits per byte")
    panel.legend(fontsize=8)
    save(figure, path)


if __name__ == "__main__":
    sys.exit(main())
