"""What matters when a dense denoiser is pruned while it trains on: one choice at a time, over seeds.

    python experiments/prune_ablation.py --data DIR --k 0.5 --steps 800 --batch-size 8 --clip-seconds 1

trains a dense network for every seed, and from it one network for every variant below, as many steps
again. Each run leaves a file in --runs; runs whose file is there are not repeated, so that the command can be
stopped and started again, with more seeds too. The table (.md), the figures (.json) and the picture (.svg)
are made of all of them at the end.
"""

import argparse
import json
import shlex
import statistics
import sys
import time
import warnings
from pathlib import Path

import lightning as L
import torch

import lrnn
from lrnn.cli.console import progress
from lrnn.files import written_whole
from lrnn.prune import ConstantSchedule, Pruner, bake
from lrnn.train.callbacks import RecalibrateNorms
from lrnn.train.datamodule import DenoiseData
from lrnn.train.denoise import DenoiseModule

BASE = {"sparsity": 0.9, "start": 0.05, "end": 0.8, "every": 8}
VARIANTS = {
    "base": {},
    "dense": None,  # goes on without being pruned
    "score magnitude": {"score": "magnitude"},
    "every 1": {"every": 1},
    "every 64": {"every": 64},
    "every 256": {"every": 256},
    "linear": {"schedule": "linear"},
    "constant": {"schedule": "constant"},
    "oneshot at 0.05": {"schedule": "oneshot"},
    "oneshot at 0.5": {"schedule": "oneshot", "start": 0.5},
    "end 0.5": {"end": 0.5},
    "end 0.95": {"end": 0.95},
    "uniform": {"distribution": "uniform"},
    "global": {"distribution": "global"},
    "paper": {"mode": "paper"},
}
PARENT = "dense, half the steps"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, metavar="DIR", help="folder with sources and validation set")
    parser.add_argument("--k", type=float, default=0.5, help="width factor (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=3000, help="of each half (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=16, help="clips (default: %(default)s)")
    parser.add_argument("--clip-seconds", type=float, default=2.0, help="default: %(default)s")
    parser.add_argument("--seeds", type=int, default=2, help="0 to N - 1 (default: %(default)s)")
    parser.add_argument(
        "--only", nargs="+", choices=VARIANTS, default=list(VARIANTS), help="variants beside base"
    )
    parser.add_argument("--runs", default="runs/prune-ablation", metavar="DIR", help="default: %(default)s")
    parser.add_argument("-o", "--out", default="experiments/results/prune-ablation", metavar="PREFIX")
    args = parser.parse_args()
    quieten()
    names = [name for name in VARIANTS if name == "base" or name in args.only]
    jobs = [(name, seed) for seed in range(args.seeds) for name in (PARENT, *names)]
    rows = [run(name, seed, args) for name, seed in progress(jobs, len(jobs), "runs")]
    write(Path(args.out), rows, cost_of_masks(args), args)
    print(Path(args.out).with_suffix(".md").read_text())


def settings(args) -> dict:
    """What two results must have in common to stand in one table."""
    return {name: getattr(args, name) for name in ("k", "steps", "batch_size", "clip_seconds")}


def run(name: str, seed: int, args) -> dict:
    """The result of one run: read, where the run was made before with the same settings; else made."""
    folder = Path(args.runs)
    path = folder / f"{name.replace(', ', '-').replace(' ', '-')}-seed{seed}.json"
    own = None if name == PARENT else VARIANTS[name]
    options = None if own is None else BASE | own
    wanted = {"variant": name, "seed": seed, "options": options, **settings(args)}
    if path.is_file():
        found = json.loads(path.read_text())
        if all(found.get(key) == value for key, value in wanted.items()):
            return found
    folder.mkdir(parents=True, exist_ok=True)
    parent = folder / f"dense-seed{seed}.safetensors"
    result = wanted | train(options, seed, None if name == PARENT else parent, args, parent)
    with written_whole(path) as temporary:
        temporary.write_text(json.dumps(result, indent=1) + "\n")
    print(
        f"{name}, seed {seed}: {result['si_snri']:+.2f} dB, {result['cpu_seconds']:.0f} s of CPU",
        file=sys.stderr,
    )
    return result


def train(options: dict | None, seed: int, parent: Path | None, args, out: Path) -> dict:
    """Train from the parent, or from scratch and leave the network at `out`."""
    L.seed_everything(seed)
    module = DenoiseModule(k=args.k, init_from=None if parent is None else str(parent))
    # A network goes on with other clips than its parent saw.
    data = DenoiseData(
        root=args.data,
        batch_size=args.batch_size,
        batches_per_epoch=args.steps,
        clip_seconds=args.clip_seconds,
        seed=2 * seed + (parent is not None),
    )
    callbacks = [RecalibrateNorms(16)] + ([] if options is None else [lrnn.Prune(**options)])
    trainer = L.Trainer(
        max_epochs=1,
        callbacks=callbacks,
        precision="bf16-mixed",
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    begun = time.process_time()
    trainer.fit(module, data)
    bake(module)
    if parent is None:
        module.model.save(out)
    dead = lrnn.prune.dead_units(module.model)
    return {
        "si_snri": float(trainer.callback_metrics["val_si_snri"]),
        "cpu_seconds": round(time.process_time() - begun, 1),
        "sparsity": zeros(module.model),
        "states": [len(alive(dead, i)) for i in range(len(module.model.blocks))],
        "dead": {name: len(units) for name, units in dead.items()},
    }


def zeros(model: torch.nn.Module) -> float:
    weights = [p for p in model.parameters() if p.ndim > 1]
    return sum((p == 0).sum().item() for p in weights) / sum(p.numel() for p in weights)


def alive(dead: dict, block: int) -> set[int]:
    """States of a block that are both fed and read."""
    B, C = dead[f"blocks.{block}.ssm.B"], dead[f"blocks.{block}.ssm.C"]
    return set(range(B.n_outputs)) - set(B.outputs) - set(C.inputs)


def cost_of_masks(args) -> dict:
    """Milliseconds of CPU to choose the masks of this network once, and for a training step; medians."""
    module = DenoiseModule(k=args.k)
    pruner = Pruner(module, 0.9, schedule=ConstantSchedule(0, 10**9)).attach()
    noisy = torch.randn(args.batch_size, round(16000 * args.clip_seconds)) * 0.05
    optimizer = torch.optim.AdamW(module.parameters(), fused=True)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            module(noisy).square().mean().backward()
        optimizer.step()

    choose, step = (median_ms(f) for f in (lambda: pruner._choose(1.0), step))
    return {"choose_ms": choose, "step_ms": step, "threads": torch.get_num_threads()}


def median_ms(function, repeats: int = 20) -> float:
    times = []
    for _ in range(repeats + 3):
        begun = time.process_time()  # which other processes disturb least
        function()
        times.append(1000 * (time.process_time() - begun))
    return statistics.median(times[3:])


def write(out: Path, rows: list[dict], cost: dict, args) -> None:
    words = ["python experiments/prune_ablation.py --data DIR"]
    words += [f"--{name.replace('_', '-')} {value:g}" for name, value in settings(args).items()]
    words.append(f"--seeds {args.seeds}")
    if len(args.only) < len(VARIANTS):
        words.append(shlex.join(["--only", *args.only]))
    report = {"command": " ".join(words), "base": BASE, "cost": cost, "runs": rows}
    with written_whole(out.with_suffix(".json")) as path:
        path.write_text(json.dumps(report, indent=1) + "\n")
    with written_whole(out.with_suffix(".md")) as path:
        path.write_text(markdown(report))
    plot(report, out.with_suffix(".svg"))


def by_variant(rows: list[dict]) -> dict[str, list[dict]]:
    names = dict.fromkeys(row["variant"] for row in rows)
    return {
        name: sorted((r for r in rows if r["variant"] == name), key=lambda r: r["seed"]) for name in names
    }


def markdown(report: dict) -> str:
    groups, cost = by_variant(report["runs"]), report["cost"]
    base = {r["seed"]: r["si_snri"] for r in groups["base"]}
    lines = [
        "# Pruning a denoiser to 90 % while it trains on",
        "",
        f"`{report['command']}`",
        "",
        f"base is {', '.join(f'{k} {v}' for k, v in BASE.items())}, cubic, erk, ste; every other line",
        "changes what its name says. All start from the same dense network of their seed. SI-SNR improvement",
        "on the validation clips in dB: mean, each seed, mean difference to base (paired by seed) and the",
        "standard deviation of these differences; states of each block both fed and read, mean over seeds.",
        "",
        "| variant | SI-SNRi | seeds | to base | sd | sparsity | states alive |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, rows in groups.items():
        gains = [r["si_snri"] for r in rows]
        differences = [r["si_snri"] - base[r["seed"]] for r in rows]
        spread = f"{statistics.stdev(differences):.2f}" if len(rows) > 1 and name != "base" else ""
        states = ", ".join(
            f"{statistics.mean(s):.0f}" for s in zip(*(r["states"] for r in rows), strict=True)
        )
        lines.append(
            f"| {name} | **{statistics.mean(gains):.2f}** | {', '.join(f'{g:.2f}' for g in gains)} | "
            f"{statistics.mean(differences):+.2f} | {spread} | {rows[0]['sparsity']:.3f} | {states} |"
        )
    every_1, every_8 = (cost["choose_ms"] / (n * cost["step_ms"] + cost["choose_ms"]) for n in (1, 8))
    lines += [
        "",
        f"Choosing all masks once takes {cost['choose_ms']:.1f} ms of CPU, a training step "
        f"{cost['step_ms']:.0f} ms (torch threads: {cost['threads']}):",
        f"{100 * every_1:.1f} % of the time with every 1, {100 * every_8:.1f} % with every 8.",
    ]
    return "\n".join(lines) + "\n"


def plot(report: dict, path: Path) -> None:
    from lrnn.profile.plot import pyplot, save

    plt = pyplot()
    groups = by_variant(report["runs"])
    figure, axes = plt.subplots(figsize=(7, 0.3 * len(groups) + 1.2), layout="constrained")
    for row, runs in enumerate(groups.values()):
        gains = [r["si_snri"] for r in runs]
        colour = "#8a8a8a" if runs[0]["options"] is None else "#1b4f8a"
        axes.scatter(gains, [row] * len(gains), s=14, color=colour, alpha=0.6)
        axes.plot([statistics.mean(gains)] * 2, [row - 0.3, row + 0.3], color=colour, linewidth=2)
    axes.axvline(statistics.mean(r["si_snri"] for r in groups["base"]), color="#d8d8d8", zorder=0)
    axes.set_yticks(range(len(groups)), groups)
    axes.invert_yaxis()
    axes.set_xlabel("SI-SNR improvement, dB (dots: seeds, bars: means)")
    axes.spines[["top", "right"]].set_visible(False)
    save(figure, path)


def quieten() -> None:
    import logging

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message=".*(does not have many workers|LeafSpec|units died)")


if __name__ == "__main__":
    sys.exit(main())
