"""Dense against sparse denoisers of equal quality on Loihi 2, estimated, beside what the paper measured.

    python experiments/loihi.py -o experiments/results/loihi

takes quality, width and activity of every network from experiments/results/pareto.json, which trained them,
and writes a table (.md), the figures (.json) and a picture (.svg). The networks themselves need not be there:
random weights stand in for the trained ones, as many of them zero. How often each value is not
zero is the mean of those trained networks of the same kind that --runs DIR has, on the demo's clip, times a
factor by which the network's matrices find it as often on average as pareto.json says; without --runs the
means are those of an earlier report. No figure here was measured on a chip.
"""

import argparse
import copy
import json
import sys
from pathlib import Path

import numpy as np
import torch
from loihi_report import COSTS, markdown, plot, same
from pareto import Run, equal_quality, front

import lrnn
from lrnn.data.audio import read
from lrnn.data.denoiser import Denoiser
from lrnn.files import written_whole
from lrnn.models import DEMO_CLIP
from lrnn.profile.loihi import activity, placement_report
from lrnn.profile.loihi.lower import lower
from lrnn.profile.loihi.published import validate
from lrnn.program import Program
from lrnn.prune import prune_once
from lrnn.train.denoise import PAPER_NETWORK

STEPS = 4000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "-o", "--out", required=True, metavar="PREFIX", help="of the .md, .json and .svg files"
    )
    parser.add_argument("--pareto", default="experiments/results/pareto.json", help="what was trained")
    parser.add_argument("--runs", metavar="DIR", help="where trained networks of pareto.py are")
    args = parser.parse_args()
    out = Path(args.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    wanted = networks(Path(args.pareto))
    if args.runs:
        trained = [found for row in wanted if (found := on_the_clip(row, Path(args.runs)))]
    else:
        trained = reported(out.with_suffix(".json"))
    rates = mean_rates(trained)
    others = [estimated(row, rates[row["kind"]]) for row in wanted]
    rows = [next((r for r in trained if same(r, row)), row) for row in others]
    result = {
        "command": f"python experiments/loihi.py -o {args.out} --runs DIR",
        "models": rows,
        "equal_quality": ratios(rows),
        "stand_ins": [row for row in others if any(same(row, r) for r in trained)],
        "published": validate(),
    }
    with written_whole(out.with_suffix(".json")) as path:
        path.write_text(json.dumps(result, indent=1) + "\n")
    with written_whole(out.with_suffix(".md")) as path:
        path.write_text(markdown(result))
    plot(out.with_suffix(".svg"), rows)
    print(out.with_suffix(".md").read_text())


def networks(pareto: Path) -> list[dict]:
    """The dense and the sparse networks of a report; the sizes of structured ones' layers stand in no row."""
    return [row for row in json.loads(pareto.read_text())["models"] if row["kind"] in ("dense", "sparse")]


def on_the_clip(row: dict, runs: Path) -> dict | None:
    """Figures of the trained network itself, and how often its values are not zero on the demo's clip."""
    path = Run(row["kind"], row["k"], row["seed"], STEPS).folder(runs) / "model.lrnn"
    if not path.is_file():
        return None
    program = lrnn.load(path)
    frames = Denoiser(program).features(*read(DEMO_CLIP))
    found = activity(program, frames)
    rates = {name: float(found[name].mean()) for name in sent(program)}
    return {**kept(row), "rates": rates, **figures(placement_report(program, found))}


def kept(row: dict) -> dict:
    return {key: row[key] for key in ("kind", "k", "seed", "si_snr", "si_snri")}


def sent(program: Program) -> dict[str, int]:
    """Widths of the values that groups of neurons send, by name."""
    network = lower(program)
    return {c.value: network.widths[c.source] for g in network.groups for c in g.connections}


def mean_rates(trained: list[dict]) -> dict[str, dict[str, float]]:
    """Of all trained networks of a kind, how often a value is not zero."""
    rates = {}
    for kind in ("dense", "sparse"):
        mine = [found["rates"] for found in trained if found["kind"] == kind]
        if not mine:
            raise SystemExit(f"--runs: it has no {kind} network of {STEPS} steps, expected one at least")
        rates[kind] = {name: float(np.mean([found[name] for found in mine])) for name in mine[0]}
    return rates


def reported(path: Path) -> list[dict]:
    """The trained networks of an earlier report."""
    if not path.is_file():
        raise SystemExit(f"{path}: no earlier report, expected one or --runs DIR with trained networks")
    return [row for row in json.loads(path.read_text())["models"] if "rates" in row]


def estimated(row: dict, rates: dict[str, float]) -> dict:
    """Figures of one trained network by its stand-in."""
    program = stand_in(row)
    rest = diagonals(row)
    active = (row["macs_effective"] - rest) / (row["macs_weights"] - rest)
    return {**kept(row), **figures(placement_report(program, scaled(program, rates, active)))}


def diagonals(row: dict) -> int:
    """Multiply-accumulates of a frame that are no matrix's: of recurrences, D and gates."""
    config = PAPER_NETWORK.scaled(row["k"])
    return config.n_layers * (2 * config.d_state + 2 * config.d_model)


def scaled(program: Program, rates: dict[str, float], wanted: float) -> dict[str, np.ndarray]:
    """Rates of all values times a factor, so that nonzero weights find that part of their inputs not zero."""
    network = lower(program)
    matrices = [(c.value, c.synapses(0)) for g in network.groups for c in g.connections if c.mask is not None]
    total = sum(count for _, count in matrices)

    def excess(factor: float) -> float:
        return sum(count * min(1.0, factor * rates[name]) for name, count in matrices) / total - wanted

    low, high = 0.0, 100.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) < 0 else (low, middle)
    return {name: np.full(width, min(1.0, high * rates[name])) for name, width in sent(program).items()}


def stand_in(row: dict) -> Program:
    """A denoiser with random weights, as many of them zero as in the trained one.

    Training leaves some states without input, and their columns of C are swept; so they are here, as many as
    make the trained network's number of nonzero weights.
    """
    torch.manual_seed(row["seed"])
    model = lrnn.SequenceModel(PAPER_NETWORK.scaled(row["k"])).eval()
    layers = [block.ssm for block in model.blocks]
    if row["kind"] == "sparse":
        pruned = copy.deepcopy(model)
        prune_once(pruned, 0.9, score="magnitude")
        read_out = sum(int(block.ssm.C.count_nonzero()) for block in pruned.blocks)
        entries = sum(
            int(np.count_nonzero(node.weight)) for node in lrnn.compile(pruned).nodes if node.op == "linear"
        )
        live = 1 - (entries - (row["macs_weights"] - diagonals(row))) / read_out
        dead = [torch.rand(len(layer.B)) > live for layer in layers]
        with torch.no_grad():
            for layer, states in zip(layers, dead, strict=True):
                layer.B[states] *= 1e-6  # last to be kept
            prune_once(model, 0.9, score="magnitude")
            for block, states in zip(model.blocks, dead, strict=True):
                block.ssm.B[states] = 0
                block.ssm.C[:, states] = 0
    return lrnn.compile(model)


def figures(report: dict) -> dict:
    modes = report["modes"]
    step = sorted(1e6 / rate for rate in modes["pipelined"]["frames_per_second"])
    return {
        "cores": report["cores"],
        "synapses": report["synapses"],
        "synops": report["synops"],
        "latency": modes["fall_through"]["latency_us"],
        "fastest": report["spread"]["modes"]["fall_through"]["latency_us"],
        "fastest_cores": report["spread"]["cores"],
        "fastest_energy": report["spread"]["modes"]["fall_through"]["energy_uj"],
        "interval": step,
        "energy": modes["fall_through"]["energy_uj"],
        "binds": modes["fall_through"]["binds"],
    }


def ratios(rows: list[dict]) -> list[dict]:
    """For every sparse network: the dense one of equal quality costs so many times as much, at both ends."""
    return [
        {"k": row["k"], "seed": row["seed"], **{cost: _ratio(row, rows, cost) for cost in COSTS}}
        for row in rows
        if row["kind"] == "sparse"
    ]


def _ratio(row: dict, rows: list[dict], cost: str) -> dict:
    ends = []
    for end in (0, 1):
        flat = [{**r, "cost": r[cost][end]} for r in rows]
        mine = {**row, "cost": row[cost][end]}
        ends.append(equal_quality(mine, front(flat, "cost", row["seed"]), "cost"))
    return {"ratio": sorted(end["ratio"] for end in ends), "bound": ends[0]["bound"]}


if __name__ == "__main__":
    sys.exit(main())
