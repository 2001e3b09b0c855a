"""Scores in a CSV file, written as they are made: a run stopped at any moment goes on from it.

The first line is a comment, JSON that says what was measured with what; then the names of the columns; then a
row for each clip in order. A row without its newline was being written when the run stopped: it is dropped.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from lrnn.data.summary import Score
from lrnn.files import written_whole


class ScoreFile:
    """The rows that a file has, and a place to append to.

    Args:
        path: opened where it exists, made where it does not.
        header: what the rows depend on; a file with another one is refused.
        figures: the names of the figures, in the order of the columns.
        overwrite: start anew whatever the file holds.
    """

    def __init__(self, path, header: dict, figures: Sequence[str], overwrite: bool = False):
        self.path, self._figures = Path(path), tuple(figures)
        sides = [f"{side}{figure}" for figure in figures for side in ("noisy_", "")]
        self.columns = ("name", "snr", *sides, "gain", "problem")
        if overwrite or not self.path.exists():
            with written_whole(self.path) as temporary:
                temporary.write_text(f"# {json.dumps(header)}\n{_line(self.columns)}", encoding="utf-8")
        self.scores = list(self._read(header))

    def append(self, score: Score) -> None:
        """Add a row; it is with the operating system when this returns."""
        values = [v for f in self._figures for v in (score.noisy.get(f), score.denoised.get(f))]
        row = [score.name, *map(_text, (score.snr, *values, score.gain)), score.problem]
        with open(self.path, "a", encoding="utf-8", newline="") as file:
            file.write(_line(row))
        self.scores.append(score)

    def _read(self, header: dict) -> Iterator[Score]:
        data = self.path.read_bytes()
        whole = data.rfind(b"\n") + 1
        lines = data[:whole].decode("utf-8", errors="replace").split("\n")[:-1]
        self._check(lines[:2], header)
        if whole < len(data):
            os.truncate(self.path, whole)
        for number, line in enumerate(lines[2:], start=3):
            try:
                yield self._score(next(csv.reader([line], strict=True)))
            except (ValueError, StopIteration, csv.Error):
                raise ValueError(
                    f"{self.path}: line {number} is no row of scores; --overwrite starts anew"
                ) from None

    def _check(self, lines: list[str], header: dict) -> None:
        try:
            found = json.loads(lines[0].removeprefix("# "))
        except (IndexError, json.JSONDecodeError):
            found = None
        if not isinstance(found, dict) or "lrnn" not in found:
            raise ValueError(f"{self.path}: not a file of lrnn eval; name another, or --overwrite it")
        for name in sorted({*found, *header}, key=[*header, *found].index):
            if found.get(name) != header.get(name):
                raise ValueError(
                    f"{self.path}: holds scores with {name} {json.dumps(found.get(name))}, expected "
                    f"{json.dumps(header.get(name))}; name another file, or --overwrite it"
                )
        if lines[1:] != [_line(self.columns).rstrip("\n")]:
            raise ValueError(f"{self.path}: line 2 does not name the columns; --overwrite starts anew")

    def _score(self, row: list[str]) -> Score:
        name, snr, *values, gain, problem = row
        if len(row) != len(self.columns):
            raise ValueError(f"{len(row)} columns, expected {len(self.columns)}")
        noisy, denoised = (
            dict(zip(self._figures, map(_number, values[side::2]), strict=True)) for side in (0, 1)
        )
        if problem and not any(map(math.isfinite, (*noisy.values(), *denoised.values()))):
            noisy, denoised = {}, {}
        return Score(name, _number(snr), noisy, denoised, _number(gain), problem)


def _text(value: float | None) -> str:
    """Shortest digits that read back as the same number; nothing for what is undefined."""
    return "" if value is None or math.isnan(value) else repr(value)


def _number(text: str) -> float:
    return float(text) if text else math.nan


def _line(row: Sequence[str]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(row)
    return line.getvalue()
