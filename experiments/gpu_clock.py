"""Times on a GPU for experiments/gpu_bench.py: medians, in microseconds.

"cold" is with the L2 cache flushed before each call, "warm" of many calls in one CUDA graph. Products and
scans are replayed from a graph either way, so that Python's launching is not in them.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

Times = dict[str, float | str]


class Clock:
    """Times of a function on the GPU, in microseconds."""

    def __call__(self, call: Callable[[], object]) -> Times:
        """Cold and warm medians; where a graph cannot hold it, cold alone, launching included, and why."""
        from triton.testing import do_bench, do_bench_cudagraph

        try:
            cold = do_bench(_graph(call), warmup=3, rep=20, return_mode="median")
            warm = do_bench_cudagraph(call, rep=3, return_mode="median")
        except RuntimeError as error:
            torch.cuda.synchronize()
            cold = do_bench(call, warmup=3, rep=20, return_mode="median")
            return {"cold": 1e3 * cold, "not captured": str(error).splitlines()[0]}
        return {"cold": 1e3 * cold, "warm": 1e3 * warm}

    def replayed(self, call: Callable[[], object]) -> Times:
        """Of a call that is one submission, or many, as Python makes it: nothing is captured around it."""
        from triton.testing import do_bench

        call()
        torch.cuda.synchronize()
        begin, calls = time.perf_counter(), 200
        for _ in range(calls):
            call()
        torch.cuda.synchronize()
        warm = 1e6 * (time.perf_counter() - begin) / calls
        return {"cold": 1e3 * do_bench(call, warmup=3, rep=20, return_mode="median"), "warm": warm}


class DryClock:
    """Runs everything once on the CPU; its times say nothing."""

    def __call__(self, call: Callable[[], object]) -> Times:
        """One call's wall time, twice."""
        begin = time.perf_counter()
        call()
        taken = 1e6 * (time.perf_counter() - begin)
        return {"cold": taken, "warm": taken}

    replayed = __call__


def _graph(call: Callable[[], object]) -> Callable[[], None]:
    """A function that replays `call`, captured."""
    call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def or_reason(measure: Callable[[], Times]) -> Times:
    """What a competitor takes, or why it did not run here."""
    try:
        return measure()
    except Exception as error:
        text = str(error).splitlines()
        return {"not run": f"{type(error).__name__}: {text[0] if text else ''}"}


def rate(moved: int, times: Times) -> dict[str, float]:
    """TB/s."""
    return {k: moved / times[k] * 1e-6 for k in ("cold", "warm") if k in times}
