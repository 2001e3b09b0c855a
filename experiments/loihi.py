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
from pareto import Run, draw, equal_quality, front

import lrnn
from lrnn.data.audio import read
from lrnn.data.denoiser import Denoiser
from lrnn.files import written_whole
from lrnn.models import DEMO_CLIP
from lrnn.profile.loihi import activity, placement_report
from lrnn.profile.loihi.lower import lower
from lrnn.profile.loihi.published import NOTES, PUBLISHED, validate
from lrnn.program import Program
from lrnn.prune import prune_once
from lrnn.train.denoise import PAPER_NETWORK

STEPS = 4000
COSTS = {
    "latency": "latency, fewest cores",
    "fastest": "latency, fastest placement",
    "interval": "time between frames, pipelined, fewest cores",
    "energy": "energy, fewest cores",
    "fastest_energy": "energy, fastest placement",
}
FINDING = """\
On the fewest cores nearly every step is bound by synaptic operations, and sparsity shortens it. Spread over
the chip, messages bind instead, by these coefficients, and a sparse network of equal quality is wider: more of
its neurons send. Its lead in latency is smaller there. What a message takes (time_message, Loihi 1's over
Intel's ratio) decides by how much, and nobody has published that of Loihi 2. Of the fastest placement only
rows of trained networks count: random masks join every neuron to every core, trained ones do not, and what
stands in takes 1.5 to 1.7 times as long. The energy of a frame is lower for sparse networks either way."""
CLAIMS = """\
The paper reports 42 times lower latency and 149 times lower energy. These are the authors' chip measurements,
of a sparse network in fixed point on Loihi 2 against a dense one of equal quality in float32 on another
machine, a Jetson Orin Nano. What is above compares dense with sparse on the same chip, is estimated, and says
nothing for or against them."""


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
    wanted = json.loads(Path(args.pareto).read_text())["models"]
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


def same(row: dict, other: dict) -> bool:
    return all(row[key] == other[key] for key in ("kind", "k", "seed"))


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


def markdown(result: dict) -> str:
    lines = [
        "# Dense and 90 %-sparse denoisers on Loihi 2: estimate, not a measurement",
        "",
        f"`{result['command']}`",
        "",
        "The networks of pareto.md (4,000 steps each) on the demo's clip; in place of those marked * random",
        "weights, as many of them zero, see below. 8 bits. Intervals span the coefficients of",
        "lrnn/profile/loihi/coefficients.yaml and two ways to cut layers into cores. Times are lower",
        "bounds. Energy is dynamic, with Loihi 1's figures: none of Loihi 2 is public.",
        "",
        "us: latency in fall-through mode, on the fewest cores and with the fastest placement that was found",
        "on one chip; us a frame: pipelined, on the fewest cores; uJ: fall-through.",
        "",
        "| | k | seed | SI-SNR | synops | cores | us | us a frame | uJ | fastest: cores | us | uJ |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in sorted(result["models"], key=lambda r: (r["kind"], r["k"], r["seed"])):
        cells = [
            row["kind"] + ("" if "rates" in row else " *"),
            f"{row['k']:g}",
            str(row["seed"]),
            f"{row['si_snr']:.2f}",
            f"{row['synops']:,.0f}",
            span(row["cores"], ".0f"),
            span(row["latency"], ",.0f"),
            span(row["interval"], ",.1f"),
            span(row["energy"], ",.2f"),
            span(row["fastest_cores"], ".0f"),
            span(row["fastest"], ",.0f"),
            span(row["fastest_energy"], ",.2f"),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        "Cost of the dense network of equal quality over that of the sparse one, interpolated along the",
        "logarithm of the cost between dense widths, at both ends of the coefficients:",
        "",
        f"| sparse k | seed | {' | '.join(COSTS.values())} |",
        "|---|---|" + "---|" * len(COSTS),
    ]
    for row in result["equal_quality"]:
        cells = [f"{row[cost]['bound']} {span(row[cost]['ratio'], '.2f')}".strip() for cost in COSTS]
        lines.append(f"| {' | '.join([format(row['k'], 'g'), str(row['seed']), *cells])} |")
    lines += ["", FINDING, "", CLAIMS, *_stand_ins(result), *_published(result["published"])]
    return "\n".join(lines) + "\n"


def _stand_ins(result: dict) -> list[str]:
    lines = [
        "",
        "## What standing in does",
        "",
        "Figures of trained networks over those of what would have stood in for them, at both ends of the",
        "coefficients:",
        "",
        f"| | k | seed | {' | '.join(COSTS.values())} |",
        "|---|---|---|" + "---|" * len(COSTS),
    ]
    for row in result["stand_ins"]:
        own = next(r for r in result["models"] if same(r, row))
        cells = [row["kind"], f"{row['k']:g}", str(row["seed"])]
        for cost in COSTS:
            pairs = zip(own[cost], row[cost], strict=True)
            cells.append(span(sorted(trained / other for trained, other in pairs), ".2f"))
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _published(found: list[dict]) -> list[str]:
    lines = [
        "",
        "## The placement against published numbers of cores",
        "",
        "S4D networks on Loihi 2 (Meyer et al., arXiv 2409.15022). Assumed: "
        + "; ".join(NOTES)
        + "; four layers, H = N = "
        + " and ".join(
            f"{s.channels} ({s.parameters / 1e3:.1f} k parameters, published {s.parameters_k} k)"
            for s in PUBLISHED
        )
        + ".",
        "",
        "| | published | by published limits | with states_per_core | that drawn from the other network |",
        "|---|---|---|---|---|",
    ]
    for row in found:
        missed = 100 * (row["predicted"] / row["published"] - 1)
        cells = [row["name"], str(row["published"]), span(row["limits"], "d"), span(row["cores"], "d")]
        cells.append(f"{row['predicted']} ({missed:+.0f} %)")
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        "Published limits alone allow far fewer cores than were used: they are limits, and the authors may",
        "have spread neurons to gain time. What they used grows with the states: 342 to 410 of them in a",
        "core. The unfavourable end takes the 342, and so holds for these two by construction; the last",
        "column is the test, each network from the other.",
    ]
    return lines


def plot(path: Path, rows: list[dict]) -> None:
    from lrnn.profile.plot import pyplot, save

    plt = pyplot()
    figure, panels = plt.subplots(1, 2, figsize=(9, 4), layout="constrained", sharey=True)
    axes = {
        "fastest": "us a frame, fall-through, fastest placement",
        "energy": "dynamic uJ a frame, fewest cores",
    }
    for panel, (cost, label) in zip(panels, axes.items(), strict=True):
        for kind, colour, mark in (("dense", "#8a8a8a", "o"), ("sparse", "#1b4f8a", "s")):
            mine = [{**r, "middle": float(np.sqrt(np.prod(r[cost])))} for r in rows if r["kind"] == kind]
            draw(panel, mine, "middle", 1.0, kind, colour, mark)
            for r in mine:
                panel.plot(r[cost], (r["si_snri"],) * 2, color=colour, linewidth=0.8, alpha=0.6)
        panel.set_xscale("log")
        panel.set_xlabel(label, fontsize=9)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("SI-SNR improvement, dB")
    panels[0].legend(loc="lower right", fontsize=8)
    figure.suptitle("Loihi 2: estimate, not a measurement; lines are intervals", fontsize=10)
    save(figure, path)


def span(ends: list, form: str) -> str:
    low, high = (format(end, form) for end in ends)
    return low if low == high else f"{low} to {high}"


if __name__ == "__main__":
    sys.exit(main())
