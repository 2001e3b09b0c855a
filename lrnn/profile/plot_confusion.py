"""A picture of what a classifier takes for what."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from lrnn.profile.plot import pyplot, save


def plot_confusion(counts: Sequence[Sequence[int]], labels: Sequence[str], path: str | os.PathLike) -> None:
    """A table of shares in each row, shaded; beside a row's name the number of its clips.

    Args:
        counts: (labels, labels), row by what was said, column by what was heard; rows without clips are left
            out.
        labels: their names.
        path: the picture; its suffix names the format.
    """
    table = np.asarray(counts)
    said = table.sum(1) > 0
    shares = 100 * table[said] / table[said].sum(1, keepdims=True)
    plt = pyplot()
    rows, columns = shares.shape
    figure, axes = plt.subplots(figsize=(0.55 * columns + 2, 0.45 * rows + 1.6), layout="constrained")
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=100, aspect="auto")
    for (i, j), share in np.ndenumerate(shares):
        if share:
            colour = "white" if share > 50 else "black"
            axes.text(j, i, f"{share:.0f}", ha="center", va="center_baseline", fontsize=8, color=colour)
    names = [label.strip("_") for label in labels]
    axes.set_xticks(range(columns), names, rotation=45, ha="right")
    counted = [f"{name} ({n})" for name, n in zip(names, table.sum(1), strict=True) if n]
    axes.set_yticks(range(rows), counted)
    axes.set_xlabel("heard, % of the row's clips")
    axes.set_ylabel("said (clips)")
    axes.tick_params(length=0)
    save(figure, path)
