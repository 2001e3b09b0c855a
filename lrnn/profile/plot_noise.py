"""A picture of a fixed-point program: MACs, bits and noise of every node, side by side."""

from __future__ import annotations

import os

from lrnn.profile.measure import Report
from lrnn.profile.noise import ValueFormat, loses_most, output_sqnr
from lrnn.profile.plot import draw_macs, pyplot, save


def plot_noise(report: Report, path: str | os.PathLike) -> None:
    """Three columns with a row for each node: multiply-accumulates, bits held and used, signal over noise.

    Args:
        report: of a program in fixed point.
        path: the picture; its suffix names the format (.png, .svg, .pdf).
    """
    plt = pyplot()
    values = report.values
    costs = {node.name: node for node in report.nodes}
    figure, (macs, bits, noise) = plt.subplots(
        1, 3, sharey=True, figsize=(11, 0.21 * len(values) + 1.9), layout="constrained"
    )
    draw_macs(macs, [costs[v.name] for v in values])
    _draw_bits(bits, values)
    _draw_noise(noise, values)
    macs.set_yticks(range(len(values)), [v.name for v in values], fontsize=8)
    macs.invert_yaxis()
    macs.margins(y=0.01)
    macs.locator_params(axis="x", nbins=4)
    for axes in (macs, bits, noise):
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), frameon=False)
    worst, output = loses_most(values), output_sqnr(values)
    if worst is not None and output is not None:
        figure.suptitle(f"{worst.name} loses most; SQNR of the output {output:.1f} dB", fontsize=10)
    save(figure, path)


def _draw_bits(axes, values: list[ValueFormat]) -> None:
    rows = range(len(values))
    axes.barh(rows, [v.bits for v in values], color="#d8d8d8", label="held")
    if all(v.bits_used is not None for v in values):
        axes.barh(rows, [v.bits_used for v in values], color="#1b4f8a", height=0.4, label="used")
    limited = [(row, v) for row, v in enumerate(values) if v.saturated]
    if limited:
        marks = [v.bits for _, v in limited]
        axes.plot(marks, [row for row, _ in limited], "|", color="#c0392b", ms=9, mew=2.5, label="saturated")
    axes.set_xlabel("bits, with the sign")


def _draw_noise(axes, values: list[ValueFormat]) -> None:
    levels = (
        ("sqnr", "o", "#6a9fd4", "SQNR of the value"),
        ("alone", "D", "#1b4f8a", "of the output, this node alone"),
    )
    for field, marker, color, label in levels:
        found = [(row, getattr(v, field)) for row, v in enumerate(values) if getattr(v, field) is not None]
        if found:
            axes.plot(
                [x for _, x in found], [row for row, _ in found], marker, color=color, ms=4, label=label
            )
    worst = loses_most(values)
    if worst is not None:
        axes.plot(worst.alone, values.index(worst), "D", color="#c0392b", ms=6, label="loses most")
    axes.grid(axis="x", color="#eeeeee")
    axes.set_axisbelow(True)
    axes.set_xlabel("signal over quantisation noise, dB")
