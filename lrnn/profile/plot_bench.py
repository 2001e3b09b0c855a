"""Pictures of benchmarks: speed-up against sparsity, the roofline, and times of anything that was timed."""

from __future__ import annotations

import os

from lrnn.profile.bench.matvec_sweep import crossover_text
from lrnn.profile.bench.report import timings
from lrnn.profile.plot import pyplot, save
from lrnn.profile.plot_stream import plot_stream

_BLUES = ("#9dc3e6", "#5b9bd5", "#2e75b6", "#1b4f8a", "#0b2545")
_COLOURS = {"float32": "#1b4f8a", "bfloat16": "#3d9a5f", "w8a16": "#c8511b", "w8a8": "#e0a030"}


def plot(result: dict, path: str | os.PathLike) -> None:
    """Draw what a benchmark measured: curves where something was varied, else every row's time.

    Args:
        result: of any benchmark.
        path: the picture; its suffix names the format (.png, .svg, .pdf).
    """
    if "sweep" in result:
        plot_speedup(result, path)
    elif "streams" in result or "chunks" in result:
        plot_stream(result, path)
    else:
        plot_times(result, path)


def plot_speedup(result: dict, path: str | os.PathLike) -> None:
    """Speed-up over dense of the same precision against sparsity, warm and cold; crossovers are marked."""
    plt = pyplot()
    rows = result["sweep"]
    precisions = list(dict.fromkeys(row["precision"] for row in rows))
    sizes = list(dict.fromkeys(row["size"] for row in rows))
    figure, axes = plt.subplots(
        1,
        len(precisions),
        figsize=(5.4 * len(precisions), 4.4),
        sharey=True,
        layout="constrained",
        squeeze=False,
    )
    for panel, precision in zip(axes[0], precisions, strict=True):
        for at, size in enumerate(sizes):
            colour = _BLUES[max(0, len(_BLUES) - len(sizes)) + at] if len(sizes) <= len(_BLUES) else None
            for weights, style in (("warm", "-"), ("cold", ":")):
                _curve(panel, result, (size, precision, weights), style, colour)
        panel.axhline(1, color="#888888", linewidth=0.8)
        panel.set_yscale("log")
        ticks = (0.2, 0.5, 1, 2, 3, 5, 10, 20, 50, 100)
        panel.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
        panel.minorticks_off()
        speedups = [row["speedup"][weights] for row in rows for weights in ("warm", "cold")]
        panel.set_ylim(min(speedups) / 1.2, max(speedups) * 1.2)
        panel.set_xlabel("zero weights, %")
        panel.set_title(f"{precision} over dense {precision}", fontsize=10)
        panel.grid(alpha=0.25)
        panel.spines[["top", "right"]].set_visible(False)
        panel.legend(fontsize=8, frameon=False, title="width: crossover warm, cold", title_fontsize=8)
    axes[0][0].set_ylabel("times faster than dense")
    figure.suptitle(
        f"matrix times one vector, one thread, {result['isa']}; solid: weights in cache where they fit, "
        "dotted: weights from memory; circles: crossover",
        fontsize=9,
    )
    save(figure, path)


def _curve(panel, result: dict, key: tuple[int, str, str], style: str, colour: str | None) -> None:
    size, precision, weights = key
    rows = [r for r in result["sweep"] if (r["size"], r["precision"]) == (size, precision)]
    cross = {
        c["weights"]: c for c in result["crossovers"] if (c["size"], c["precision"]) == (size, precision)
    }
    texts = ", ".join(crossover_text(cross[name]) for name in ("warm", "cold"))
    panel.plot(
        [100 * r["sparsity"] for r in rows],
        [r["speedup"][weights] for r in rows],
        style,
        color=colour,
        linewidth=1.6 if weights == "warm" else 1.1,
        marker="." if weights == "warm" else None,
        label=f"{size}: {texts}" if weights == "warm" else None,
    )
    found = cross[weights]
    if found["sparsity"] is not None and not found["below"]:
        face = colour if weights == "warm" else "white"
        panel.plot(100 * found["sparsity"], 1, "o", color=colour, markerfacecolor=face, markersize=6)


def plot_roofline(result: dict, path: str | os.PathLike) -> None:
    """Useful operations per second against those per byte of packed weights, under the limits of the run.

    Dense matrices count all their weights, sparse ones the nonzeros: two operations each.

    Raises:
        ValueError: the result has no rows with bytes and operations.
    """
    rows = [row for row in result.get("rows", ()) if "bytes" in row and "nonzeros" in row and "ratios" in row]
    if not rows:
        raise ValueError(f"bench {result.get('bench')}: no rows to place under a roofline")
    plt = pyplot()
    figure, panel = plt.subplots(figsize=(7.4, 5.0), layout="constrained")
    limits = result["limits"]
    _roofs(panel, limits)
    sizes = list(dict.fromkeys(row["rows"] for row in rows))
    for row in rows:
        operations = 2 * row["nonzeros"]
        panel.plot(
            operations / row["bytes"],
            operations / row["seconds"]["kernel"]["median"] / 1e9,
            "o" if row["format"] == "sparse" else "s",
            color=_COLOURS[row["precision"]],
            markerfacecolor=_COLOURS[row["precision"]] if row["format"] == "sparse" else "white",
            markersize=4 + 2 * sizes.index(row["rows"]),
        )
    for name, colour in _COLOURS.items():
        panel.plot([], [], "o", color=colour, label=name)
    panel.plot([], [], "o", color="#555555", label="sparse, small to large: " + ", ".join(map(str, sizes)))
    panel.plot([], [], "s", color="#555555", markerfacecolor="white", label="dense")
    panel.legend(fontsize=8, frameon=False, loc="lower right")
    panel.set_xlabel("useful operations per byte of packed weights")
    panel.set_ylabel("useful G operations per second")
    panel.spines[["top", "right"]].set_visible(False)
    figure.suptitle(
        f"matrix times one vector, one thread, {result['isa']}, warm; lines: limits of the same run",
        fontsize=9,
    )
    save(figure, path)


def _roofs(panel, limits: dict[str, float]) -> None:
    """A slanted line for each level of memory up to the rate of arithmetic, which is level."""
    low, high = 0.15, 4.0
    top = max(limits["multiply-add"], limits["byte product"])
    for name in ("read L1", "read L2", "read L3", "read memory"):
        end = min(high, top / limits[name])
        panel.plot(
            [low, end], [limits[name] * low / 1e9, limits[name] * end / 1e9], color="#aaaaaa", linewidth=1
        )
        panel.annotate(
            f"{name} {limits[name] / 1e9:.0f} GB/s",
            (low, limits[name] * low / 1e9),
            xytext=(3, 3),
            textcoords="offset points",
            fontsize=7,
            color="#666666",
        )
    for name in ("multiply-add", "byte product"):
        if limits[name]:
            panel.axhline(limits[name] / 1e9, color="#aaaaaa", linewidth=1, linestyle="--")
            panel.annotate(
                f"{name} {limits[name] / 1e9:.0f} G/s",
                (low, limits[name] / 1e9),
                xytext=(3, 3),
                textcoords="offset points",
                fontsize=7,
                color="#666666",
            )
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.set_xlim(low, high)
    ticks = (0.2, 0.3, 0.5, 1, 2, 3)
    panel.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    rates = (2, 5, 10, 20, 50, 100, 200, 500)
    panel.set_yticks(rates, [f"{rate:g}" for rate in rates])
    panel.minorticks_off()


def plot_times(result: dict, path: str | os.PathLike) -> None:
    """A bar for the median of every row, on a scale of powers of ten; the minimum is a line in it.

    Raises:
        ValueError: the result holds no timing.
    """
    rows = timings(result)
    if not rows:
        raise ValueError(f"bench {result.get('bench')}: no timings to draw")
    plt = pyplot()
    figure, panel = plt.subplots(figsize=(8, 0.3 * len(rows) + 1.2), layout="constrained")
    places = range(len(rows))
    unit, name = _unit(min(times["minimum"] for times in rows.values()))
    panel.barh(places, [times["median"] / unit for times in rows.values()], color="#9dc3e6")
    panel.plot(
        [times["minimum"] / unit for times in rows.values()], places, "|", color="#1b4f8a", markersize=9
    )
    panel.set_xscale("log")
    panel.set_yticks(places, list(rows), fontsize=8)
    panel.invert_yaxis()
    panel.margins(y=0.01)
    panel.set_xlabel(f"{name}, median; the mark is the minimum")
    panel.set_title(f"lrnn bench {result['bench']}: {result.get('machine', '')}", fontsize=9)
    panel.spines[["top", "right"]].set_visible(False)
    save(figure, path)


def _unit(seconds: float) -> tuple[float, str]:
    for unit, name in ((1e-6, "microseconds"), (1e-3, "milliseconds")):
        if seconds < 1000 * unit:
            return unit, name
    return 1.0, "seconds"
