"""What commands show: progress bars on stderr, on a terminal only; tables; that a picture can be drawn."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
_WIDTH = 30


def progress(items: Iterable[T], total: int, label: str, done: int = 0) -> Iterator[T]:
    """Pass `items` through, drawing a bar once two seconds have gone by.

    Args:
        items: what to pass through.
        total: how many they are.
        label: stands before the bar.
        done: how many of them were made before and take no time: they tell nothing of what is left.
    """
    if not sys.stderr.isatty():
        yield from items
        return
    begun = drawn = time.monotonic()
    for count, item in enumerate(items):
        now = time.monotonic()
        if now - begun > 2 and now - drawn > 0.1:
            made = count - done
            _draw(label, count, total, (total - count) * (now - begun) / made if made > 0 else None)
            drawn = now
        yield item
    if drawn != begun:
        _draw(label, total, total, 0)
        sys.stderr.write("\n")


def _draw(label: str, count: int, total: int, seconds_left: float | None) -> None:
    bar = "█" * round(count / max(total, 1) * _WIDTH)
    left = "" if seconds_left is None else f"{_duration(seconds_left)} left"
    sys.stderr.write(f"\r{label} {bar:<{_WIDTH}} {count}/{total} {left:<14}")
    sys.stderr.flush()


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def check_plot(path: str) -> None:
    """Say now what is wrong with --plot, not after the work."""
    from lrnn.profile.plot import check_picture

    check_picture(path)


def table(rows: list[list[str]], header: list[str], prose: int = 0) -> str:
    """Columns of text: the first and the last `prose` of them to the left, the rest to the right."""
    widths = [max(len(r[i]) for r in [header, *rows]) for i in range(len(header))]
    left = {0, *range(len(header) - prose, len(header))}
    lines = [header, ["-" * w for w in widths], *rows]
    return "\n".join(
        "  ".join(
            c.ljust(w) if i in left else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
