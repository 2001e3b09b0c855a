"""Pictures of `lrnn bench stream`: the time of a frame against streams at once or the length of a chunk."""

from __future__ import annotations

import os

from lrnn.profile.plot import pyplot, save

_BLUES, _REDS = ("#1b4f8a", "#8fb8de"), ("#c8511b", "#e9a77f")


def plot_stream(result: dict, path: str | os.PathLike) -> None:
    """A line for every subject on two logarithmic axes; the whiskers reach down to the minimum.

    Args:
        result: of lrnn.profile.bench.streams or lrnn.profile.bench.chunks.
        path: the picture; its suffix names the format (.png, .svg, .pdf).
    """
    plt = pyplot()
    rows, at, label = _axis(result)
    figure, panel = plt.subplots(figsize=(7.0, 4.6), layout="constrained")
    names = list(rows[0]["seconds_per_frame"])
    blues, reds = iter(_BLUES), iter(_REDS)
    for name in names:
        times = [row["seconds_per_frame"][name] for row in rows]
        medians = [1e6 * taken["median"] for taken in times]
        down = [1e6 * (taken["median"] - taken["minimum"]) for taken in times]
        native = name.startswith("native")
        panel.errorbar(
            at,
            medians,
            yerr=[down, [0.0] * len(down)],
            marker="o",
            markersize=4,
            color=next(blues if native else reds),
            capsize=2,
        )
        panel.annotate(
            name, (at[-1], medians[-1]), xytext=(6, 0), textcoords="offset points", fontsize=8, va="center"
        )
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.set_xticks(at, [row["name"].split()[label] for row in rows])
    ticks = [m * 10**e for e in range(-1, 4) for m in (1, 2, 5)]
    panel.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    panel.minorticks_off()
    low = min(taken["minimum"] for row in rows for taken in row["seconds_per_frame"].values())
    high = max(taken["median"] for row in rows for taken in row["seconds_per_frame"].values())
    panel.set_ylim(1e6 * low / 1.3, 1e6 * high * 1.3)
    panel.set_xlabel("streams at once" if "streams" in result else "frames in a chunk")
    panel.set_ylabel("microseconds per frame")
    panel.grid(alpha=0.25)
    panel.spines[["top", "right"]].set_visible(False)
    panel.set_title(
        f"{result['model']}; one thread, {result['isa']}; {result.get('machine', '')}", fontsize=8
    )
    save(figure, path)


def _axis(result: dict) -> tuple[list[dict], list[int], int]:
    """Rows, where they stand, and which word of their names says so."""
    if "streams" in result:
        return result["streams"], [row["streams"] for row in result["streams"]], 0
    return result["chunks"], [row["frames"] for row in result["chunks"]], 1
