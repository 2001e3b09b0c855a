"""The placement as a picture: every core a tile, coloured by how full it is, by layer and on the chip."""

from __future__ import annotations

import os
from collections.abc import Mapping

from lrnn.profile.loihi.coefficients import coefficients
from lrnn.profile.loihi.mesh import position
from lrnn.profile.loihi.place import RESOURCES, Core, Placement
from lrnn.profile.plot import pyplot, save

PER_ROW = 16
"""Tiles of a layer in a row."""
_TITLES = {"packed": "packed, fewest cores (favourable)", "halved": "halved until it fits (unfavourable)"}


def plot_placement(report: dict, path: str | os.PathLike) -> None:
    """A column for each placement: the two ends of the smallest, and the fastest on one chip where there is
    one, at its favourable end. Tiles by layer stand above, on the chips below.

    Args:
        report: of placement_report.
        path: the picture; its suffix names the format (.png, .svg, .pdf).
    """
    plt = pyplot()
    placed = _placements(report)
    layers = [layer["name"] for layer in report["layers"]]
    rows = {name: max(-(-len(p.of(name)) // PER_ROW) for p in placed.values()) for name in layers}
    heights = [0.3 * sum(rows.values()) + 0.3, 1.9 * max(placement.chips for placement in placed.values())]
    figure, axes = plt.subplots(
        2,
        len(placed),
        figsize=(1.5 + 4.6 * len(placed), sum(heights) + 1.2),
        layout="constrained",
        height_ratios=heights,
        squeeze=False,
    )
    colours = plt.get_cmap("YlOrRd")
    for column, (title, placement) in enumerate(placed.items()):
        _by_layer(axes[0][column], placement, rows, column == 0, colours)
        _on_chips(axes[1][column], placement, colours)
        axes[0][column].set_title(f"{title}: {len(placement.cores)} cores", fontsize=9)
    scale = plt.cm.ScalarMappable(plt.Normalize(0, 100), colours)
    bar = figure.colorbar(scale, ax=axes, shrink=0.6, pad=0.01)
    bar.set_label("% used of the resource that is used most", fontsize=8)
    bar.ax.tick_params(labelsize=8)
    figure.suptitle(f"Placement on Loihi 2: {report['title']}", fontsize=11)
    save(figure, path)


def _placements(report: dict) -> dict[str, Placement]:
    """By title."""
    known = coefficients()
    values = {"packed": known.favourable, "halved": known.unfavourable}
    found = {_TITLES[p]: _placement(p, cores, values[p]) for p, cores in report["placement"].items()}
    if report["spread"]:
        fastest = report["spread"]["placement"]["packed"]
        found["fastest found on one chip"] = _placement("packed", fastest, known.favourable)
    return found


def _placement(policy: str, cores: list[dict], values: Mapping[str, float]) -> Placement:
    return Placement(policy, tuple(Core(**core) for core in cores), values)


def _by_layer(axis, placement: Placement, rows: dict[str, int], named: bool, colours) -> None:
    at, ticks = 0, []
    for name, lines in rows.items():
        cores = placement.of(name)
        first = (
            at + (lines - -(-len(cores) // PER_ROW)) / 2
        )  # in the middle of what the layer takes elsewhere
        for i, core in enumerate(cores):
            _tile(axis, i % PER_ROW, first + i // PER_ROW, core, placement.values, colours)
        ticks.append(at + (lines - 1) / 2)
        fullest = max(cores, key=lambda core: max(core.loads(placement.values).values()))
        resource = fullest.binds(placement.values)
        used = 100 * fullest.loads(placement.values)[resource]
        text = f"{len(cores)} x, {RESOURCES[resource]} {used:.0f} %"
        axis.text(min(len(cores), PER_ROW) - 0.2, ticks[-1], text, fontsize=7, va="center")
        at += lines
    axis.set_xlim(-0.6, PER_ROW + 7)
    axis.set_ylim(at - 0.4, -0.6)
    axis.set_yticks(ticks, rows if named else [""] * len(rows), fontsize=7)
    _bare(axis)


def _on_chips(axis, placement: Placement, colours) -> None:
    """Routers as frames of four cores, chips below each other, those that are not used in grey."""
    values, per_chip = placement.values, int(placement.values["cores_per_chip"])
    columns, tile = int(values["tile_columns"]), int(values["cores_per_tile"])
    for index in range(placement.chips * per_chip):
        chip, (column, row) = index // per_chip, position(index, values)
        x = 2 * (column % columns) + index % tile % 2 + 0.3 * (column % columns)
        y = 9.6 * chip + 2.3 * row + index % tile // 2
        core = placement.cores[index] if index < len(placement.cores) else None
        _tile(axis, x, y, core, values, colours)
    axis.set_xlim(-0.7, 2.3 * columns)
    axis.set_ylim(9.6 * placement.chips - 0.6, -0.7)
    axis.set_aspect("equal")
    axis.set_yticks([])
    _bare(axis)
    axis.set_xlabel(f"{placement.chips} chip{'s' * (placement.chips > 1)}, routers of four cores", fontsize=8)


def _tile(axis, x: float, y: float, core: Core | None, values: Mapping[str, float], colours) -> None:
    from matplotlib.patches import Rectangle

    face = "#f4f4f4" if core is None else colours(max(core.loads(values).values()))
    axis.add_patch(
        Rectangle((x - 0.45, y - 0.45), 0.9, 0.9, facecolor=face, edgecolor="#8a8a8a", linewidth=0.5)
    )


def _bare(axis) -> None:
    axis.set_xticks([])
    axis.spines[:].set_visible(False)
    axis.tick_params(length=0)
