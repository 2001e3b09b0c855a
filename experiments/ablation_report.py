"""Table, figures and picture of the ablation grid."""

import json
from collections.abc import Callable
from pathlib import Path
from textwrap import wrap

import numpy as np

from lrnn.data.bootstrap import intervals
from lrnn.files import written_whole

WIDTH = 110
COSTS = ("macs_weights", "macs_effective", "file_bytes")


def write(out: Path, report: dict) -> None:
    """`out`.json, .md and .svg, each whole."""
    out.parent.mkdir(parents=True, exist_ok=True)
    if not report["cells"]:
        raise SystemExit("no network of the grid has been trained yet")
    with written_whole(out.with_suffix(".json")) as path:
        path.write_text(json.dumps(report, indent=1) + "\n")
    with written_whole(out.with_suffix(".md")) as path:
        path.write_text(markdown(report))
    plot(report, out.with_suffix(".svg"))


class Grid:
    """Cells by level and format.

    Args:
        report: what `write` takes.
    """

    def __init__(self, report: dict):
        self.cells = {(c["level"], c["format"]): c for c in report["cells"] if not c["trained"]}
        self.trained = {(c["level"], c["format"]): c for c in report["cells"] if c["trained"]}
        self.levels = sorted({level for level, _ in self.cells})
        self.formats = list(dict.fromkeys(form for _, form in self.cells))
        self.microseconds = report["microseconds"]
        first = next(s for c in report["cells"] for s in (c.get("simulated"), c.get("fixed")) if s)
        self.clips, self.noisy = len(first["after"]), first["si_snr"][0] - first["si_snri"]

    def quality(self, level: int, form: str) -> float | None:
        """SI-SNR of what runs, in dB."""
        found = runs(self.cells.get((level, form), {}))
        return found["si_snr"][0] if found else None

    def thousands(self, key: str) -> Callable[[int, str], float | None]:
        """A figure of the cells as a function of level and format."""

        def value(level: int, form: str) -> float | None:
            found = self.cells.get((level, form), {}).get(key)
            return None if found is None else found / 1000

        return value

    def time(self, level: int, form: str) -> list[float] | None:
        """Microseconds per frame, median and minimum."""
        return self.microseconds.get(f"{level} {form}")

    def to_float(self, cell: dict) -> list[float] | None:
        """Mean difference over clips, with interval, to the level's float network with as much training."""
        same = self.trained if cell["trained"] else self.cells
        reference, found = same.get((cell["level"], "float32")), runs(cell)
        if reference is None or found is None:
            return None
        loss = np.array(found["after"]) - np.array(reference["simulated"]["after"])
        return list(intervals(loss[:, None])[0])

    def trained_levels(self) -> list[int]:
        return [level for level in self.levels if any(at == level for at, _ in self.trained)]


def runs(cell: dict) -> dict | None:
    """The quality of what runs: fixed point where there is a form, else floats; None where it was refused."""
    return None if "refused" in cell else cell.get("fixed", cell.get("simulated"))


def markdown(report: dict) -> str:
    grid = Grid(report)
    sections = [_head(report, grid), _grid_table(grid), _training_table(grid), _all_cells(grid)]
    return "\n\n".join("\n".join(lines) for lines in sections if lines) + "\n"


def _head(report: dict, grid: Grid) -> list[str]:
    dense, pruning, last = report["steps"]
    size = f"{report['batch_size']} x {report['clip_seconds']:g} s"
    about = (
        f"One denoiser at k = {report['k']:g} trained dense for {dense:,} steps of {size}, from it one "
        f"network for each level in {pruning:,} more (ERK, masks frozen at 70 % of them; 0 % only trains "
        f"on), seed {report['seed']}: short runs, to compare with each other only. Each network is rounded to"
        f" every format without training, ranges from {report['clips']} training mixtures (minmax; mse where "
        f"activations have 8 bits). What is called trained had {last:,} more steps with its masks frozen, as "
        f"it runs quantised; in float32 as many in float. SI-SNR in dB on {grid.clips} validation clips, "
        f"noisy {grid.noisy:.2f} dB."
    )
    lines = ["# Sparsity levels x number formats", "", f"`{report['command']}`", "", *wrap(about, WIDTH)]
    if report["missing"]:
        lines += ["", f"Not yet there, and completed by the command: {', '.join(report['missing'])}."]
    return lines


def _grid_table(grid: Grid) -> list[str]:
    about = (
        "SI-SNR of what runs, without training: integers, but floats in float32 and in fp8, which rounds "
        "weights only. A dash: the format refuses the network, see below."
    )
    lines = [
        *wrap(about, WIDTH),
        "",
        f"| format | {' | '.join(f'{level} %' for level in grid.levels)} |",
        "|---" * (1 + len(grid.levels)) + "|",
    ]
    for form in grid.formats:
        cells = [_number(grid.quality(level, form), ".2f") for level in grid.levels]
        lines.append(f"| {form} | {' | '.join(cells)} |")
    return lines


def _training_table(grid: Grid) -> list[str]:
    if not grid.trained:
        return []
    about = (
        "Rounding simulated in float with the same static scales, and in fixed point, without and with "
        "training. To float: mean difference, over the same clips, of the last column to the level's float "
        "network that was trained on for as long, with its 95 % bootstrap interval. What was trained "
        "quantised is measured as the checkpoint has it: exporting scales the decoder to match the level and "
        "rounds it anew."
    )
    lines = [
        *wrap(about, WIDTH),
        "",
        "| zeros | format | simulated | fixed point | trained, simulated | trained, fixed point | to float |",
        "|---|---|---|---|---|---|---|",
    ]
    for level in grid.trained_levels():
        for form in grid.formats:
            if (level, form) not in grid.trained:
                continue
            pair = (grid.cells.get((level, form), {}), grid.trained[level, form])
            figures = [_number(_mean(c.get(kind)), ".2f") for c in pair for kind in ("simulated", "fixed")]
            figures.append(_loss(grid, pair[1]))
            lines.append(f"| {level} % | {form} | {' | '.join(figures)} |")
    return lines


def _all_cells(grid: Grid) -> list[str]:
    dense = grid.time(0, "float32")
    about = (
        "Every cell without training: SI-SNR with its 95 % bootstrap interval over clips; mean difference to "
        "the level's float network over the same clips; thousands of multiply-accumulates per frame with "
        "nonzero weights, and with nonzero inputs too; size of the file; "
        "microseconds per frame of the native engine's step, median (minimum), all in one process, and times "
        "as fast as the dense network in float32 by medians. fp8 has no file and no engine of its own."
    )
    lines = [
        *wrap(about, WIDTH),
        "",
        "| zeros | format | SI-SNR | to float | kMAC | effective | kB | us | times as fast |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    refused: dict[str, list[str]] = {}
    for level in grid.levels:
        for form in grid.formats:
            if (level, form) not in grid.cells:
                continue
            cell, time = grid.cells[level, form], grid.time(level, form)
            found = runs(cell)
            figures = [
                _interval(found and found["si_snr"], ".2f"),
                _loss(grid, cell),
                *(_number(grid.thousands(key)(level, form), ".1f") for key in COSTS),
                f"{time[0]:.2f} ({time[1]:.2f})" if time else "-",
                f"{dense[0] / time[0]:.2f}" if time and dense else "-",
            ]
            lines.append(f"| {level} % | {form} | {' | '.join(figures)} |")
            if "refused" in cell:
                refused.setdefault(form, []).append(f"{level} %: {cell['refused']}")
    return lines + [f"\n{form} refused at {'; '.join(found)}." for form, found in refused.items()]


def _loss(grid: Grid, cell: dict) -> str:
    return "" if cell["format"] == "float32" else _interval(grid.to_float(cell), "+.2f")


def _mean(quality: dict | None) -> float | None:
    return quality["si_snr"][0] if quality else None


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _interval(values: list[float] | None, form: str) -> str:
    if values is None:
        return "-"
    mean, low, high = (format(v, form) for v in values)
    return f"{mean} ({low} to {high})"


def plot(report: dict, path: Path) -> None:
    """Heat maps of the grid; below them the formats that were trained, level by level."""
    from lrnn.profile.plot import pyplot, save

    grid, levels = Grid(report), Grid(report).trained_levels()
    heights = [0.72 * len(grid.formats) + 2, 3.2][: 2 if levels else 1]
    figure = pyplot().figure(figsize=(10, sum(heights)), layout="constrained")
    parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    panels = parts[0].subplots(2, 2).flat
    maps = {
        "SI-SNR, dB, rounded without training": (grid.quality, "{:.1f}", "viridis"),
        "thousand effective multiply-accumulates per frame": (
            grid.thousands("macs_effective"),
            "{:.0f}",
            "Blues",
        ),
        "kB of the file": (grid.thousands("file_bytes"), "{:.0f}", "Blues"),
        "microseconds per frame, native step": (lambda *at: (grid.time(*at) or [None])[0], "{:.1f}", "Blues"),
    }
    for panel, (title, how) in zip(panels, maps.items(), strict=True):
        _heat(panel, grid, title, *how)
    if levels:
        row = parts[1].subplots(1, len(levels), squeeze=False)[0]
        for panel, level in zip(row, levels, strict=True):
            _training(panel, grid, level)
        parts[1].legend(*row[0].get_legend_handles_labels(), fontsize=7, loc="outside right", frameon=False)
    save(figure, path)


def _heat(panel, grid: Grid, title: str, value, form: str, colours: str) -> None:
    """A number and a colour for each cell, costs along their logarithm; grey where there is none."""
    from matplotlib.colors import LogNorm, Normalize

    table = np.array([[value(level, f) for level in grid.levels] for f in grid.formats], float)
    table = np.ma.masked_invalid(table)
    norm = Normalize(grid.noisy) if colours == "viridis" else LogNorm()  # below the noisy input all is bad
    norm.autoscale_None(table if table.count() else [1, 2])
    norm.vmax = max(norm.vmin, norm.vmax)
    panel.set_facecolor("#e4e4e4")
    panel.imshow(table, cmap=colours, norm=norm, aspect="auto")
    for row, column in np.ndindex(*table.shape):
        number, cell = table[row, column], grid.cells.get((grid.levels[column], grid.formats[row]), {})
        dark = False
        if number is np.ma.masked:
            text = "refused" if "refused" in cell else "-"
        else:
            text, shade = form.format(number), float(norm(number))
            dark = shade < 0.6 if colours == "viridis" else shade > 0.6
        panel.text(column, row, text, ha="center", va="center", fontsize=7, color="w" if dark else "k")
    panel.set_xticks(range(len(grid.levels)), [f"{level} %" for level in grid.levels])
    panel.set_yticks(range(len(grid.formats)), grid.formats)
    panel.tick_params(length=0, labelsize=8)
    panel.set_title(title, fontsize=9)


def _training(panel, grid: Grid, level: int) -> None:
    """Simulated (open) and fixed point (filled), without training (left, grey) and with it (right, blue).

    Far below the noisy input they stand on the lower edge, with their number.
    """
    floor, below = grid.noisy - 1, {"textcoords": "offset points", "ha": "center", "fontsize": 7}
    forms = [f for f in grid.formats if (level, f) in grid.trained and f != "float32"]
    for cells, shift, colour, mark, label in (
        (grid.cells, -0.2, "#8a8a8a", "o", ""),
        (grid.trained, 0.2, "#1b4f8a", "s", "trained, "),
    ):
        if (level, "float32") in cells:
            mean = _mean(cells[level, "float32"]["simulated"])
            panel.axhline(mean, color=colour, linewidth=1, label=f"{label}float")
        for kind, face, size in (("simulated", "none", 60), ("fixed", colour, 14)):
            means = [_mean(cells.get((level, f), {}).get(kind)) for f in forms]
            points = [(i + shift, mean) for i, mean in enumerate(means) if mean is not None]
            for x, y in (point for point in points if kind == "fixed" and point[1] < floor):
                panel.annotate(f"{y:.1f}", (x, floor), xytext=(0, 5), **below, color=colour)
            xy = np.maximum(np.reshape(points, (-1, 2)), (-1, floor)).T
            name = f"{label}{'fixed point' if kind == 'fixed' else 'simulated'}"
            panel.scatter(*xy, s=size, marker=mark, facecolors=face, edgecolors=colour, label=name)
    panel.axhline(grid.noisy, color="#b04a3a", linewidth=1, linestyle=":", label="noisy")
    panel.set_xticks(range(len(forms)), forms)
    panel.set_xlim(-0.5, len(forms) - 0.5)
    panel.tick_params(labelsize=8)
    panel.set_title(f"SI-SNR, dB, {level} % zeros", fontsize=9)
    panel.spines[["top", "right"]].set_visible(False)
