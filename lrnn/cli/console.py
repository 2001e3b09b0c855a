"""What people see while a command runs: progress bars on stderr, on a terminal only."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
_WIDTH = 30


def progress(items: Iterable[T], total: int, label: str) -> Iterator[T]:
    """Pass `items` through, drawing a bar once two seconds have gone by."""
    if not sys.stderr.isatty():
        yield from items
        return
    begun = drawn = time.monotonic()
    for done, item in enumerate(items):
        now = time.monotonic()
        if now - begun > 2 and now - drawn > 0.1:
            _draw(label, done, total, now - begun)
            drawn = now
        yield item
    if drawn != begun:
        _draw(label, total, total, time.monotonic() - begun)
        sys.stderr.write("\n")


def _draw(label: str, done: int, total: int, seconds: float) -> None:
    share = done / max(total, 1)
    bar = "█" * round(share * _WIDTH)
    left = f"{seconds / share - seconds:.0f} s left" if share else ""
    sys.stderr.write(f"\r{label} {bar:<{_WIDTH}} {done}/{total} {left:<14}")
    sys.stderr.flush()


def table(rows: list[list[str]], header: list[str]) -> str:
    """Columns of text: the first to the left, the rest to the right."""
    widths = [max(len(r[i]) for r in [header, *rows]) for i in range(len(header))]
    lines = [header, ["-" * w for w in widths], *rows]
    return "\n".join(
        "  ".join(
            c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )
