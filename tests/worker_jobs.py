"""Jobs for tests/test_workers.py, in a module that a new process can import."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Squares:
    """Squares of numbers, with what can go wrong on the way."""

    crash_at: tuple[int, ...] = ()
    raise_at: int = -1
    killed_at: int = -1
    seconds: float = 0.0

    def start(self):
        def square(i: int) -> tuple[int, int]:
            time.sleep(self.seconds)
            if i in self.crash_at:
                os.kill(os.getpid(), signal.SIGSEGV)
            if i == self.killed_at:
                os.kill(os.getpid(), signal.SIGKILL)
            if i == self.raise_at:
                raise ZeroDivisionError("a bug")
            return i * i, torch.get_num_threads()

        return square

    def crashed(self, index: int, reason: str) -> tuple[int, str]:
        return index, reason
