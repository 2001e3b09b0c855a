"""A picture of what a denoiser improves, clip by clip and in the mean."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence

from lrnn.data.figures import FIGURES
from lrnn.data.summary import SNR_EDGES, Score
from lrnn.profile.plot import pyplot, save


def plot_scores(found: Sequence[Score], bands: Sequence[dict], path: str | os.PathLike) -> None:
    """A panel for each figure: improvement against the SNR of the mixture.

    Dots are clips, those beyond the bands left out; bars the means of bands, whiskers their 95 % intervals.

    Args:
        found: the clips.
        bands: what summary.by_snr says of them.
        path: the picture; its suffix names the format (.png, .svg, .pdf).
    """
    names = next((list(s.denoised) for s in found if s.denoised), [])
    if not names or not bands:
        raise ValueError("no clip has figures and a name that tells its SNR: there is nothing to draw")
    plt = pyplot()
    columns = min(len(names), 4)
    rows = math.ceil(len(names) / columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(1.6 + 3.2 * columns, 0.5 + 2.9 * rows), layout="constrained", squeeze=False
    )
    for axis, name in zip(axes.flat, names, strict=False):
        _panel(axis, name, found, bands)
    for axis in axes.flat[len(names) :]:
        axis.set_axis_off()
    figure.supxlabel("SNR of the mixture (dB)", fontsize=10)
    figure.supylabel("improvement", fontsize=10)
    figure.suptitle("clips, means of bands of SNR and their 95 % intervals", fontsize=10)
    save(figure, path)


def _panel(axis, name: str, found: Sequence[Score], bands: Sequence[dict]) -> None:
    label, unit, _ = FIGURES[name]
    inside = [s for s in found if s.denoised and SNR_EDGES[0] <= s.snr <= SNR_EDGES[-1]]
    axis.axhline(0, color="#8a8a8a", linewidth=0.8)
    improved = [s.denoised[name] - s.noisy[name] for s in inside]
    dots = {"s": 14, "alpha": 0.6, "linewidths": 0, "rasterized": len(inside) > 1000}
    axis.scatter([s.snr for s in inside], improved, color="#6a9fd4", label="clip", **dots)
    for band in bands:
        if band["figures"].get(name):
            _band(axis, band["snr"], band["figures"][name]["improvement"])
    axis.set_xticks(SNR_EDGES)
    axis.set_title(f"{label} ({unit})" if unit else label, fontsize=10)
    axis.spines[["top", "right"]].set_visible(False)


def _band(axis, snr: str, mean: dict) -> None:
    low, high = map(int, snr.split(" to "))
    axis.plot((low + 0.3, high - 0.3), [mean["mean"]] * 2, color="#1b4f8a", linewidth=2)
    middle = (low + high) / 2
    axis.plot((middle, middle), (mean["low"], mean["high"]), color="#1b4f8a", linewidth=1)
