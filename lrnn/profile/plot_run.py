"""A picture of a training run: sparsity of every layer over the steps, learning curves below it.

Drawn from the CSV that Lightning's CSVLogger writes, with what `lrnn.Prune` logs; no logging service is
needed, and a run that is still going on, or was killed, can be drawn as well.
"""

from __future__ import annotations

import csv
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path

from lrnn.profile.plot import pyplot, save

Series = tuple[list[int], list[float]]
"""Steps and the values logged at them."""

_PANELS = 3  # of learning curves, where none are asked for
_NOT_CURVES = re.compile(r"(step|epoch|sparsity|sparsity/.*|dead/.*|lr-.*)$")
_SPLIT = re.compile(r"(train|val|valid|validation|test)[_/]")


def read_log(run: str | os.PathLike) -> dict[str, Series]:
    """What a run logged, by name.

    Args:
        run: the run's folder, or the metrics.csv in it.

    Raises:
        FileNotFoundError, or ValueError that names the file and what was found in it.
    """
    path = Path(run)
    path = path / "metrics.csv" if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file, expected the metrics.csv of Lightning's CSVLogger")
    log: dict[str, Series] = {}
    with open(path, newline="") as file:
        rows = csv.DictReader(file)
        if "step" not in (rows.fieldnames or ()):
            raise ValueError(f"{path}: found no column 'step', expected the metrics.csv of a CSVLogger")
        for number, row in enumerate(rows, start=2):
            try:
                step = int(row["step"])
                values = {name: float(value) for name, value in row.items() if value not in ("", None)}
            except (TypeError, ValueError):
                raise ValueError(f"{path}: line {number} is not a row of numbers") from None
            for name, value in values.items():
                steps, so_far = log.setdefault(name, ([], []))
                steps.append(step)
                so_far.append(value)
    return log


def plot_run(log: dict[str, Series], path: str | os.PathLike, metrics: Sequence[str] = ()) -> None:
    """Draw sparsity, dead units where there are any, and learning curves over the optimiser steps.

    Args:
        log: as `read_log` returns it.
        path: the picture; its suffix names the format (.png, .svg, .pdf).
        metrics: learning curves to draw; none draws those that were logged, with train and val of one name in
            one panel, at most three panels.

    Raises:
        ValueError that names a metric which was not logged, or a log without sparsity.
    """
    layers = {name.removeprefix("sparsity/"): s for name, s in log.items() if name.startswith("sparsity/")}
    if not layers:
        raise ValueError("the log has no sparsity/...: was lrnn.Prune among the callbacks?")
    dead = {name.removeprefix("dead/"): s for name, s in log.items() if name.startswith("dead/")}
    dead = {name: series for name, series in dead.items() if any(series[1])}
    panels = _panels(log, metrics)
    last = max(max(steps) for steps, _ in log.values())
    heights = [3.0, *[1.6] * bool(dead), *[1.6] * len(panels)]
    plt = pyplot()
    figure, axes = plt.subplots(
        len(heights),
        sharex=True,
        squeeze=False,
        figsize=(9, sum(heights) + 0.8),
        height_ratios=heights,
        layout="constrained",
    )
    rest = list(axes[:, 0])
    total = layers.pop("total", None)
    colours = _colours(plt, layers)
    _draw_sparsity(rest.pop(0), layers, total, colours, last)
    if dead:
        _draw_dead(rest.pop(0), dead, colours, last)
    for axis, names in zip(rest, panels, strict=True):
        _draw_curves(axis, {name: log[name] for name in names})
    for axis in axes[:, 0]:
        axis.spines[["top", "right"]].set_visible(False)
        axis.margins(x=0.01)
    axes[-1, 0].set_xlabel("optimiser step")
    save(figure, path)


def _panels(log: dict[str, Series], metrics: Sequence[str]) -> list[list[str]]:
    """Names of the curves of each panel: one quantity, in training and in validation."""
    for name in metrics:
        if name not in log:
            known = ", ".join(name for name in log if not _NOT_CURVES.match(name)) or "no metric"
            raise ValueError(f"the log has no {name!r}; it has {known}")
    panels: dict[str, list[str]] = {}
    for name in metrics or (n for n in log if not _NOT_CURVES.match(n)):
        panels.setdefault(_SPLIT.sub("", name, count=1), []).append(name)
    chosen = list(panels.values())
    if metrics:
        return chosen
    # Those with two curves, of training and validation, say most.
    return sorted(chosen, key=len, reverse=True)[:_PANELS]


def _colours(plt, layers: dict[str, Series]) -> dict[str, tuple]:
    shades = plt.get_cmap("turbo")
    return {name: shades(0.05 + 0.9 * i / max(1, len(layers) - 1)) for i, name in enumerate(layers)}


def _draw_sparsity(axis, layers: dict[str, Series], total: Series | None, colours: dict, last: int) -> None:
    for name, series in layers.items():
        steps, values = _held(series, last)
        label = f"{name}  {values[-1]:.3f}"
        axis.step(steps, values, where="post", color=colours[name], linewidth=1, label=label)
    if total is not None:
        steps, values = _held(total, last)
        label = f"all of these  {values[-1]:.3f}"
        axis.step(steps, values, where="post", color="black", linewidth=2, label=label)
    axis.set_ylabel("sparsity")
    axis.set_ylim(0, 1)
    _legend(axis)


def _draw_dead(axis, dead: dict[str, Series], colours: dict, last: int) -> None:
    for name, series in dead.items():
        steps, values = _held(series, last)
        label = f"{name}  {values[-1]:.0f}"
        axis.step(steps, values, where="post", color=colours.get(name), linewidth=1, label=label)
    axis.set_ylabel("dead units")
    axis.set_ylim(bottom=0)
    _legend(axis)


def _draw_curves(axis, curves: dict[str, Series]) -> None:
    for name, (steps, values) in curves.items():
        held_out = not name.startswith("train")
        style = {"color": "#1b4f8a", "marker": "o", "markersize": 3} if held_out else {"color": "#b0b0b0"}
        finite = [(s, v) for s, v in zip(steps, values, strict=True) if math.isfinite(v)]
        axis.plot(*zip(*finite, strict=True) if finite else ([], []), linewidth=1.2, label=name, **style)
    _legend(axis)


def _held(series: Series, last: int) -> Series:
    """A series that is zero before it begins and holds its last value to the end."""
    steps, values = series
    return [0, *steps, max(last, steps[-1])], [0.0, *values, values[-1]]


def _legend(axis) -> None:
    """Beside the panel, where it hides nothing; in small print where there are many."""
    handles, _ = axis.get_legend_handles_labels()
    axis.legend(
        fontsize=8 if len(handles) <= 12 else 6,
        ncols=1 + len(handles) // 30,
        loc="upper left",
        bbox_to_anchor=(1.0, 1.0),
        frameon=False,
    )
