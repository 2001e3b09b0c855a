"""Interleaved timing: all subjects in one process, round by round: a busy machine is unfair to all alike."""

from __future__ import annotations

import contextlib
import gc
import os
import statistics
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import asdict, dataclass

import torch


@dataclass(frozen=True)
class Timing:
    """Seconds per call over the rounds: the median, to be expected, and the minimum, spared by noise."""

    median: float
    minimum: float
    rounds: int

    def to_dict(self) -> dict[str, float]:
        """Plain numbers for JSON."""
        return asdict(self)


def interleaved(
    subjects: Mapping[str, Callable[[], object]],
    *,
    rounds: int = 15,
    budget: float = 20.0,
    chunk: float = 0.002,
) -> dict[str, Timing]:
    """Time every subject once per round and return their timings under the same names.

    At its turn a subject is first called once untimed, so that it does not pay for the caches that the one
    before it left behind.

    Args:
        subjects: functions without arguments; their results are dropped.
        rounds: most rounds.
        budget: seconds after which no new round starts; at least two are made.
        chunk: a subject faster than this many seconds is repeated within a round to take about so long.
    """
    repeats = {}
    for name, call in subjects.items():
        call()  # warms up
        repeats[name] = max(1, round(chunk / max(_seconds(call, 1), 1e-9)))
    samples: dict[str, list[float]] = {name: [] for name in subjects}
    start = time.perf_counter()
    with _no_garbage_collection():
        for done in range(rounds):
            if done >= 2 and time.perf_counter() - start > budget:
                break
            for name, call in subjects.items():
                call()
                samples[name].append(_seconds(call, repeats[name]) / repeats[name])
    return {name: Timing(statistics.median(s), min(s), len(s)) for name, s in samples.items()}


def interleaved_inside(
    subjects: Mapping[Hashable, Callable[[int], float]], *, rounds: int = 15, chunk: float = 3e-4
) -> dict[Hashable, Timing]:
    """Time every subject once per round, each with a clock of its own.

    Args:
        subjects: take a number of repeats and return the seconds of one of them: kernels timed inside C++.
        rounds: of timing.
        chunk: seconds that a subject's turn should take.
    """
    repeats = {name: max(1, int(chunk / max(clock(3), 1e-9))) for name, clock in subjects.items()}
    samples: dict[Hashable, list[float]] = {name: [] for name in subjects}
    for _ in range(rounds):
        for name, clock in subjects.items():
            clock(2)  # pays for the caches that the one before left behind
            samples[name].append(clock(repeats[name]))
    return {name: Timing(statistics.median(s), min(s), len(s)) for name, s in samples.items()}


def interleaved_cold(subjects: Mapping[Hashable, Callable[[], float]], rounds: int) -> dict[Hashable, Timing]:
    """Time every subject once per round; a subject empties the caches itself and returns its seconds."""
    samples: dict[Hashable, list[float]] = {name: [] for name in subjects}
    for _ in range(rounds):
        for name, clock in subjects.items():
            samples[name].append(clock())
    return {name: Timing(statistics.median(s), min(s), len(s)) for name, s in samples.items()}


def _seconds(call: Callable[[], object], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return time.perf_counter() - start


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextlib.contextmanager
def torch_threads(count: int, *, pin: bool = False) -> Iterator[None]:
    """Give torch this many threads for the while; with `pin`, hold this thread on one core if possible."""
    before = torch.get_num_threads()
    cores = os.sched_getaffinity(0) if pin and hasattr(os, "sched_setaffinity") else None
    torch.set_num_threads(count)
    try:
        if cores:
            os.sched_setaffinity(0, {max(cores)})
        yield
    finally:
        if cores:
            os.sched_setaffinity(0, cores)
        torch.set_num_threads(before)


def timed(call: Callable[[], object]) -> Callable[[int], float]:
    """A subject for `interleaved_inside` from a function without arguments: as called from Python."""
    return lambda repeats: _seconds(call, repeats) / repeats
