"""What experiments/loihi.py found, as a table and a picture."""

from pathlib import Path

import numpy as np
from pareto import draw

from lrnn.profile.loihi.published import NOTES, PUBLISHED

COSTS = {
    "latency": "latency, fewest cores",
    "fastest": "latency, fastest placement",
    "interval": "time between frames, pipelined, fewest cores",
    "energy": "energy, fewest cores",
    "fastest_energy": "energy, fastest placement",
}
FINDING = """\
On the fewest cores nearly every step is bound by synaptic operations, and sparsity shortens it. Spread over
the chip, messages bind instead, by these coefficients, and a sparse network of equal quality is wider: more
of its neurons send. Its lead in latency is smaller there. What a message takes (time_message, Loihi 1's over
Intel's ratio) decides by how much, and nobody has published that of Loihi 2. Of the fastest placement only
rows of trained networks count: random masks join every neuron to every core, trained ones do not, and what
stands in takes 1.5 to 1.7 times as long. The energy of a frame is lower for sparse networks either way."""
CLAIMS = """\
The paper reports 42 times lower latency and 149 times lower energy. These are the authors' chip measurements,
of a sparse network in fixed point on Loihi 2 against a dense one of equal quality in float32 on another
machine, a Jetson Orin Nano. What is above compares dense with sparse on the same chip, is estimated, and says
nothing for or against them."""


def same(row: dict, other: dict) -> bool:
    return all(row[key] == other[key] for key in ("kind", "k", "seed"))


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
