"""Tables and picture of experiments/keywords.py."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from study import LOOKS, cost_axis

from lrnn.data.bootstrap import intervals

NARROW = {0.5: 0.1875, 0.75: 0.25, 1.0: 0.3125}
"""The width of a sparse network, and of the dense one of about as many multiply-accumulates: 8, 12 and 16
blocks of 16, and 3, 4 and 5."""
LABELS = {"float": "float32", "trained": "W8A16"}
AXES = {"macs": ("macs_weights", 1, "multiply-accumulates per frame, weights not zero")}
AXES |= {"bytes": ("file_bytes", 1e-3, "kB of the file")}
COLUMNS = "network, k, seed, accuracy, interval, W8A16 calibrated, W8A16 trained, "
COLUMNS += "MACs, nonzero, effective, kB, kB W8A16"


def markdown(rows: list[dict], command: str) -> str:
    first = rows[0]
    lines = [
        f"# Keywords: dense, structured and 90 %-sparse networks after {first['steps']:,} steps each",
        "",
        f"`{command}`",
        "",
        f"{first['clips']} {first['split']} clips. Accuracy among the words, and its 95 % interval over the",
        f"clips. MACs: multiply-accumulates per frame ({first['frames_per_second']:g} frames a second):",
        "of all weights, of weights that are not zero, and of those on inputs that are not zero. W8A16:",
        "calibrated, and trained as it runs for a fifth as many steps. Structured: the dense network of that",
        "k, trained, narrowed to the sparse one's multiply-accumulates by the magnitude of whole channels",
        "and states, and trained for as many steps again.",
        "",
        f"| {COLUMNS.replace(', ', ' | ')} |",
        "|---" * len(COLUMNS.split(", ")) + "|",
    ]
    for r in sorted((r for r in rows if r["form"] == "float"), key=lambda r: (r["kind"], r["k"], r["seed"])):
        fixed = {f["form"]: f for f in rows if f["form"] != "float" and same(f, r)}
        cells = [r["kind"], f"{r['k']:g}", str(r["seed"]), f"**{100 * r['accuracy']:.1f}**"]
        cells += [f"{100 * r['low']:.1f} to {100 * r['high']:.1f}"]
        for form in ("calibrated", "trained"):
            cells += [f"{100 * fixed[form]['accuracy']:.1f}" if form in fixed else "-"]
        cells += [f"{r[c]:,}" for c in ("macs", "macs_weights", "macs_effective")]
        cells += [f"{r['file_bytes'] / 1000:.0f}"]
        cells += [f"{fixed['trained']['file_bytes'] / 1000:.0f}" if "trained" in fixed else "-"]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        "Sparse less the other of as many nonzero multiply-accumulates, on the same clips, in per cent:",
        "",
        "| sparse k | beside | seed | form | MACs, sparse to that | bytes | difference | 95 % interval |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [f"| {' | '.join(cells)} |" for cells in pairs(rows)]
    return "\n".join(lines) + "\n"


def pairs(rows: list[dict]) -> list[list[str]]:
    """Cells of every sparse model and each other model of its cost that are both there."""
    found = []
    for wide in NARROW:
        for sparse in (r for r in rows if (r["kind"], r["k"]) == ("sparse", wide)):
            for kind, k in (("dense", NARROW[wide]), ("structured", wide)):
                wanted = {"kind": kind, "k": k} | {n: sparse[n] for n in ("seed", "steps", "form")}
                other = next((r for r in rows if all(r[n] == v for n, v in wanted.items())), None)
                if other is not None:
                    found.append(pair(sparse, other))
    return found


def pair(sparse: dict, other: dict) -> list[str]:
    """Cells of a sparse model beside another: ratios of cost, difference of accuracy and its interval."""
    difference = 100.0 * (np.array(sparse["right"]) - np.array(other["right"]))
    mean, low, high = intervals(difference[:, None])[0]
    ratios = (sparse[c] / other[c] for c in ("macs_weights", "file_bytes"))
    cells = [f"{sparse['k']:g}", f"{other['kind']} {other['k']:g}", str(sparse["seed"]), sparse["form"]]
    return [*cells, *(f"{ratio:.2f}" for ratio in ratios), f"{mean:+.1f}", f"{low:+.1f} to {high:+.1f}"]


def same(a: dict, b: dict) -> bool:
    return all(a[name] == b[name] for name in ("kind", "k", "seed", "steps"))


def plot(path: Path, rows: list[dict]) -> None:
    from lrnn.profile.plot import pyplot, save

    plt = pyplot()
    figure, panels = plt.subplots(1, len(AXES), figsize=(9, 4), layout="constrained", sharey=True)
    for panel, (column, unit, label) in zip(panels, AXES.values(), strict=True):
        for kind, (colour, mark) in LOOKS.items():
            for form, line in (("float", "-"), ("trained", ":")):
                chosen = [r for r in rows if (r["kind"], r["form"]) == (kind, form)]
                draw(panel, chosen, column, unit, f"{kind}, {LABELS[form]}", colour, mark, line)
        cost_axis(panel, label)
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
