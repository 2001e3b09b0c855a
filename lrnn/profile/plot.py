"""Pictures of what the profile found."""

from __future__ import annotations

import os
from pathlib import Path

from lrnn.files import written_whole
from lrnn.profile.count import NodeCost
from lrnn.profile.measure import Report


def plot_macs(report: Report, path: str | os.PathLike) -> None:
    """Bars of multiply-accumulates per node: all weights, nonzero weights, nonzero weights on nonzero inputs.

    Args:
        report: what to draw; nodes without MACs are left out.
        path: the picture; its suffix names the format (.png, .svg, .pdf).
    """
    plt = pyplot()
    nodes = [n for n in report.nodes if n.macs]
    figure, axes = plt.subplots(figsize=(8, 0.32 * len(nodes) + 1.4), layout="constrained")
    draw_macs(axes, nodes)
    axes.set_yticks(range(len(nodes)), [n.name for n in nodes])
    axes.invert_yaxis()
    axes.margins(y=0.01)
    total = report.total()
    title = f"{total['macs']:,} in all, {total['macs_weights']:,} with nonzero weights"
    if total["macs_effective"] is not None:
        title += f", {total['macs_effective']:,.0f} on nonzero inputs too"
    figure.suptitle(title, fontsize=10)
    figure.legend(fontsize=8, loc="outside lower center", ncols=3, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    save(figure, path)


def draw_macs(axes, nodes: list[NodeCost]) -> None:
    """Bars of the nodes' multiply-accumulates, a row for each."""
    rows = range(len(nodes))
    axes.barh(rows, [n.macs for n in nodes], color="#d8d8d8", label="all weights")
    axes.barh(rows, [n.macs_weights for n in nodes], color="#6a9fd4", label="nonzero weights")
    if all(n.macs_effective is not None for n in nodes):
        axes.barh(
            rows, [n.macs_effective for n in nodes], color="#1b4f8a", height=0.4, label="nonzero inputs too"
        )
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set_xlabel("multiply-accumulates per frame")


def pyplot():
    """Matplotlib without a display; ImportError names the extra."""
    try:
        import matplotlib
    except ImportError:
        raise ImportError("drawing needs matplotlib: pip install 'lrnn[plot]'") from None
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def check_picture(path: str | os.PathLike) -> None:
    """Raise now what `save` would raise for this path: ImportError, ValueError or FileNotFoundError."""
    known = pyplot().figure().canvas.get_supported_filetypes()
    pyplot().close()
    suffix = Path(path).suffix.removeprefix(".").lower()
    if suffix not in known:
        raise ValueError(f"{path}: found suffix {suffix!r}, expected one of {', '.join(sorted(known))}")
    if not Path(path).parent.is_dir():
        raise FileNotFoundError(f"{path}: the folder {Path(path).parent} does not exist")


def save(figure, path: str | os.PathLike) -> None:
    """Write a figure whole; ValueError names a suffix matplotlib does not know."""
    with written_whole(path) as temporary:
        figure.savefig(temporary, dpi=130)
    pyplot().close(figure)
