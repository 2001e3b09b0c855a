"""Interleaved timing: all subjects in one process, round after round, so that a busy machine is equally unfair to each."""

from __future__ import annotations

import contextlib
import gc
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass

import torch


@dataclass(frozen=True)
class Timing:
    """Seconds per call over the rounds: the median, which a reader may expect, and the minimum, which noise spares."""

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

    Args:
        subjects: functions without arguments, each called once beforehand to warm up.
        rounds: most rounds.
        budget: seconds after which no new round starts; at least two are made.
        chunk: a subject faster than this many seconds is repeated within a round until it takes about so long.
    """
    repeats = {name: max(1, round(chunk / max(_seconds(call, 1), 1e-9))) for name, call in warmed(subjects)}
    samples: dict[str, list[float]] = {name: [] for name in subjects}
    start = time.perf_counter()
    with _no_garbage_collection():
        for done in range(rounds):
            if done >= 2 and time.perf_counter() - start > budget:
                break
            for name, call in subjects.items():
                samples[name].append(_seconds(call, repeats[name]) / repeats[name])
    return {name: Timing(statistics.median(s), min(s), len(s)) for name, s in samples.items()}


def warmed(subjects: Mapping[str, Callable[[], object]]) -> Iterator[tuple[str, Callable[[], object]]]:
    """The subjects, each after a first call that nobody times."""
    for name, call in subjects.items():
        call()
        yield name, call


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
    """Give torch this many threads for the while; with `pin`, keep this thread on one core where the system can."""
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
