"""Dense against sparse denoisers of equal quality on Loihi 2, estimated, beside what the paper measured.

    python experiments/loihi.py -o experiments/results/loihi

takes quality, width and activity of every network from experiments/results/pareto.json, which trained them,
and writes a table (.md), the figures (.json) and a picture (.svg). The networks themselves need not be there:
random weights stand in for the trained ones, pruned by the same rule, and every value is not zero as often
as the trained network's matrices found it on average. With --runs DIR trained ones are used where they are,
to show what that does. No figure here was measured on a chip.
"""

import argparse
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
    "latency": ("fall_through", "latency_us", "latency, fall-through, us"),
    "fastest": ("fall_through", "latency_us", "latency, fall-through, fastest placement, us"),
    "interval": ("pipelined", "step_us", "time between frames, pipelined, us"),
    "energy": ("fall_through", "energy_uj", "dynamic energy of a frame, fall-through, uJ"),
}
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
    parser.add_argument("--runs", metavar="DIR", help="where trained networks are, to compare stand-ins with")
    args = parser.parse_args()
    trained = json.loads(Path(args.pareto).read_text())["models"]
    rows = [estimated(row) for row in trained]
    result = {
        "command": f"python experiments/loihi.py -o {args.out}" + (" --runs DIR" if args.runs else ""),
        "models": rows,
        "equal_quality": ratios(rows),
        "stand_ins": stand_ins(rows, Path(args.runs)) if args.runs else [],
        "published": validate(),
    }
    out = Path(args.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(out.with_suffix(".json")) as path:
        path.write_text(json.dumps(result, indent=1) + "\n")
    with written_whole(out.with_suffix(".md")) as path:
        path.write_text(markdown(result))
    plot(out.with_suffix(".svg"), rows)
    print(out.with_suffix(".md").read_text())


def estimated(row: dict) -> dict:
    """Figures of one trained network by its stand-in."""
    program = stand_in(row["k"], 0.9 if row["kind"] == "sparse" else 0.0, row["seed"])
    rate = row["macs_effective"] / row["macs_weights"]
    network = lower(program)
    sent = {c.value: network.widths[c.source] for g in network.groups for c in g.connections}
    found = placement_report(program, {name: np.full(width, rate) for name, width in sent.items()})
    kept = {key: row[key] for key in ("kind", "k", "seed", "si_snr", "si_snri")}
    return {**kept, "activity": rate, **figures(found)}


def stand_in(k: float, sparsity: float, seed: int) -> Program:
    """A denoiser of this width with random weights, pruned like the trained ones."""
    torch.manual_seed(seed)
    model = lrnn.SequenceModel(PAPER_NETWORK.scaled(k)).eval()
    if sparsity:
        prune_once(model, sparsity)
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


def stand_ins(rows: list[dict], runs: Path) -> list[dict]:
    """Trained networks that are there, on the demo's clip, beside what stood in for them."""
    audio, rate = read(DEMO_CLIP)
    found = []
    for row in rows:
        path = Run(row["kind"], row["k"], row["seed"], STEPS).folder(runs) / "model.lrnn"
        if path.is_file():
            program = lrnn.load(path)
            frames = Denoiser(program).features(audio, rate)
            own = figures(placement_report(program, activity(program, frames)))
            kept = {key: row[key] for key in ("kind", "k", "seed")}
            found.append({**kept, "stand_in": {cost: row[cost] for cost in COSTS}, "trained": own})
    return found


def markdown(result: dict) -> str:
    lines = [
        "# Dense and 90 %-sparse denoisers on Loihi 2: estimate, not a measurement",
        "",
        f"`{result['command']}`",
        "",
        "Quality and activity of the networks of pareto.md (4,000 steps each), random weights in their place,",
        "pruned by the same rule, 8 bits. Intervals span the coefficients of",
        "lrnn/profile/loihi/coefficients.yaml and two ways to cut layers into cores. Times are lower bounds.",
        "Energy is dynamic, with Loihi 1's figures: none of Loihi 2 is public.",
        "",
        "| | k | seed | SI-SNR | cores | synops | us, fall-through | us a frame, pipelined | uJ, fall-through |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in sorted(result["models"], key=lambda r: (r["kind"], r["k"], r["seed"])):
        cells = [
            row["kind"],
            f"{row['k']:g}",
            str(row["seed"]),
            f"{row['si_snr']:.2f}",
            span(row["cores"], ".0f"),
        ]
        cells += [f"{row['synops']:,.0f}", span(row["latency"], ",.0f"), span(row["interval"], ",.1f")]
        lines.append(f"| {' | '.join([*cells, span(row['energy'], ',.2f')])} |")
    lines += [
        "",
        "Cost of the dense network of equal quality over that of the sparse one, interpolated along the",
        "logarithm of the cost between dense widths, at both ends of the coefficients:",
        "",
        "| sparse k | seed | latency, fall-through | time between frames, pipelined | energy, fall-through |",
        "|---|---|---|---|---|",
    ]
    for row in result["equal_quality"]:
        cells = [f"{row[cost]['bound']} {span(row[cost]['ratio'], '.2f')}".strip() for cost in COSTS]
        lines.append(f"| {' | '.join([format(row['k'], 'g'), str(row['seed']), *cells])} |")
    lines += ["", CLAIMS, *_stand_ins(result["stand_ins"]), *_published(result["published"])]
    return "\n".join(lines) + "\n"


def _stand_ins(found: list[dict]) -> list[str]:
    if not found:
        return []
    lines = [
        "",
        "## What standing in does",
        "",
        "Trained networks, with the activity of each value on the demo's clip, beside random ones with one:",
        "",
        "| | k | seed | us, fall-through: stand-in | trained | uJ: stand-in | trained |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in found:
        cells = [row["kind"], f"{row['k']:g}", str(row["seed"])]
        for cost in ("latency", "energy"):
            cells += [span(row[which][cost], ",.2f") for which in ("stand_in", "trained")]
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
        "| | published | by published limits | with states_per_core | states_per_core from the other network |",
        "|---|---|---|---|---|",
    ]
    for row in found:
        missed = 100 * (row["predicted"] / row["published"] - 1)
        cells = [row["name"], str(row["published"]), span(row["limits"], "d"), span(row["cores"], "d")]
        cells.append(f"{row['predicted']} ({missed:+.0f} %)")
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        "Published limits alone allow far fewer cores than were used: they are limits, and the authors may have",
        "spread neurons to gain time. What they used grows with the states: 342 to 410 of them in a core. The",
        "unfavourable end takes the 342, and so holds for these two by construction; the last column is the",
        "test, each network from the other.",
    ]
    return lines


def plot(path: Path, rows: list[dict]) -> None:
    from lrnn.profile.plot import pyplot, save

    plt = pyplot()
    figure, panels = plt.subplots(1, 2, figsize=(9, 4), layout="constrained", sharey=True)
    for panel, cost in zip(panels, ("latency", "energy"), strict=True):
        for kind, colour, mark in (("dense", "#8a8a8a", "o"), ("sparse", "#1b4f8a", "s")):
            mine = [{**r, "middle": float(np.sqrt(np.prod(r[cost])))} for r in rows if r["kind"] == kind]
            draw(panel, mine, "middle", 1.0, kind, colour, mark)
            for r in mine:
                panel.plot(r[cost], (r["si_snri"],) * 2, color=colour, linewidth=0.8, alpha=0.6)
        panel.set_xscale("log")
        panel.set_xlabel(COSTS[cost][2], fontsize=9)
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
