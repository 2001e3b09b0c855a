"""Numbered pieces of work done by several processes, the results in order.

Worker r of n does pieces r, r + n, r + 2n ... and sends each result down a pipe of its own; the parent reads
the pipes in turn. There is no queue to lose work in: whoever survives the other's death, even by SIGKILL,
sees the pipe close and ends.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

import torch

T = TypeVar("T")
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_CRASHES = {
    getattr(signal, name)
    for name in ("SIGSEGV", "SIGBUS", "SIGABRT", "SIGFPE", "SIGILL")
    if hasattr(signal, name)
}


class Job(Protocol[T]):
    """What a process needs to do pieces of work; it is pickled to get there."""

    def start(self) -> Callable[[int], T]:
        """Load what is needed; the function returned does piece i."""

    def crashed(self, index: int, reason: str) -> T:
        """The result of a piece that a native library died on."""


def in_order(job: Job[T], pieces: range, processes: int) -> Iterator[T]:
    """The results of `pieces`, in order, whatever the number of processes.

    A piece that kills its worker in native code (PESQ's does so on more than 50 utterances) gets
    `job.crashed` and the worker a successor. Each process has one torch thread.

    Args:
        job: what to do.
        pieces: the numbers of the pieces.
        processes: how many; 0 works in this one, where such a crash is the end.

    Raises:
        RuntimeError: a worker ended for another reason: an exception, printed on stderr, or a signal from
            outside.
    """
    if not processes:
        with _one_thread():
            yield from map(job.start(), pieces)
        return
    processes = min(processes, len(pieces))
    workers = [_Worker(job, pieces[r::processes]) for r in range(processes)]
    try:
        for turn, piece in enumerate(pieces):
            yield workers[turn % processes].result(piece)
    finally:
        for worker in workers:
            worker.end()


class _Worker:
    """A process and the pipe its results come from."""

    def __init__(self, job: Job, pieces: range):
        self._job, self._pieces = job, pieces
        self._begin(pieces)

    def result(self, piece: int):
        try:
            return self._results.recv()
        except EOFError:
            self._process.join()
        code = self._process.exitcode
        if -code not in _CRASHES:
            raise RuntimeError(f"a worker process ended with status {code} at piece {piece} of the work")
        self._results.close()
        self._begin(self._pieces[self._pieces.index(piece) + 1 :])
        return self._job.crashed(piece, f"the process died of signal {signal.Signals(-code).name}")

    def end(self) -> None:
        self._process.terminate()
        self._process.join()
        self._results.close()

    def _begin(self, pieces: range) -> None:
        context = multiprocessing.get_context("spawn")  # a fork of torch's threads may hang
        self._results, results = context.Pipe(duplex=False)
        self._process = context.Process(target=_work, args=(self._job, pieces, results), daemon=True)
        with _environment(dict.fromkeys(_THREADS, "1")):
            self._process.start()
        results.close()  # so that the pipe ends when the worker does


def _work(job: Job, pieces: range, results) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is interrupted too, and ends this process
    if not pieces:
        return
    with _one_thread():
        do = job.start()
        for piece in pieces:
            result = do(piece)
            try:
                results.send(result)
            except BrokenPipeError:
                return  # the parent is gone


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """What libraries of a process started inside read when they are loaded."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
