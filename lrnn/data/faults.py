"""Files of a corpus that cannot be used: what is wrong with them, and a count shared by all processes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch

KINDS = ("missing", "unreadable", "truncated", "silent", "not finite", "of unequal lengths")
Policy = Literal["error", "skip"]
"""What is done about a faulty file: the error is raised, or another file is drawn in its place and the fault
counted. Another sample rate is no fault: the file is resampled."""
NAMES_SHOWN = 3


class Fault(ValueError):
    """A file that cannot be used; its message names the file, `kind` is one of KINDS.

    A data loader raises a worker's error again with the traceback for a message: its last line is kept.
    """

    def __init__(self, message: str, kind: str = "unreadable"):
        super().__init__(message.strip().splitlines()[-1].removeprefix(f"{__name__}.{type(self).__name__}: "))
        self.kind = kind


FAULTS = (Fault, FileNotFoundError)
"""What reading a corpus's file may raise."""


class FaultLog:
    """Which files of a collection were found faulty, by any process that reads from it.

    A byte per file, in shared memory: data loader workers write, the main process reports.

    Args:
        names: of the files, in the collection's order.
    """

    def __init__(self, names: Sequence[str]):
        self._names = names
        self._kinds = torch.zeros(len(names), dtype=torch.uint8).share_memory_()  # 0, or 1 + index in KINDS
        self._reported = 0

    def note(self, index: int, error: Exception) -> None:
        """Remember what was wrong with a file."""
        self._kinds[index] = 1 + KINDS.index(error.kind if isinstance(error, Fault) else "missing")

    def __contains__(self, index: int) -> bool:
        return bool(self._kinds[index])

    def __len__(self) -> int:
        return int(self._kinds.count_nonzero())

    def report(self) -> str | None:
        """Counts by kind and the first names; None where nothing was found since the last report."""
        found = self._kinds.nonzero()[:, 0].tolist()
        if len(found) == self._reported:
            return None
        self._reported = len(found)
        counts = [(int((self._kinds == 1 + i).sum()), kind) for i, kind in enumerate(KINDS)]
        kinds = ", ".join(f"{count} {kind}" for count, kind in counts if count)
        names = ", ".join(self._names[i] for i in found[:NAMES_SHOWN])
        more = ", ..." if len(found) > NAMES_SHOWN else ""
        return f"skipped {len(found)} of {len(self._names)} files ({kinds}): {names}{more}"
