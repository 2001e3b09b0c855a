"""`lrnn bench stream --chunk`: what a frame costs by the length of the chunk it comes in.

One pinned thread; the native engine (NativeStream.run: frame by frame below 21 frames, then in tiles of 64),
the same with dense matrices, which stays frame by frame, and PyTorch on the whole chunk, dense.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from lrnn.engine.native import NativeEngine, NativeStream
from lrnn.profile.bench import stream_rows as make
from lrnn.profile.bench.stream import density
from lrnn.profile.bench.timing import torch_threads

OFFLINE = "offline"
_NATIVE, _DENSE, _TORCH = "native run", "native run, dense", "torch, a chunk"
_STEP_UP = 4  # between lengths, where only the first and the last are given


def parse(text: str) -> list[int | str]:
    """Lengths from "1,4,16,offline" or "1..offline", which is 1, 4, 16, 64, 256, offline.

    Raises:
        ValueError: text is neither.
    """
    first, dots, last = text.partition("..")
    try:
        if not dots:
            lengths = [part if part == OFFLINE else int(part) for part in text.split(",")]
        else:
            end = 256 if last == OFFLINE else int(last)
            lengths = make.powers(int(first), end, _STEP_UP) + ([OFFLINE] if last == OFFLINE else [])
    except ValueError:
        lengths = []
    if not lengths or any(length != OFFLINE and length < 1 for length in lengths):
        raise ValueError(f"chunk is {text!r}, expected lengths such as 1,4,16,64,256,offline or 1..offline")
    return list(dict.fromkeys(lengths))


def run(
    lengths: Sequence[int | str],
    k: float = 1.0,
    sparsity: float = 0.9,
    frames: int = 2000,
    model: str | None = None,
    language: int | None = None,
    *,
    rounds: int = 40,
    budget: float = 40.0,
    seed: int = 0,
    notify: Callable[[str], object] = lambda text: None,
) -> dict:
    """Measure and return the figures, ready for JSON.

    Args:
        lengths: frames of a chunk; "offline" is all `frames` at once.
        k: see lrnn.profile.bench.stream.run.
        sparsity: see there.
        frames: of the whole signal.
        model: a program's file, in place of k and sparsity.
        language: width of a language model, in place of k.
        rounds: most timed rounds.
        budget: seconds after which no round starts.
        seed: of the weights and frames.
        notify: is told what goes on.

    Raises:
        ValueError: an argument is out of range.
        RuntimeError: the native engine is not built here, or a row's outputs are wrong.
    """
    if frames < 1:
        raise ValueError(f"frames is {frames}, expected at least 1")
    name, _, program = make.subject(k, sparsity, model, language, seed)
    counts = {length: frames if length == OFFLINE else int(length) for length in lengths}
    inputs = make.frames_of(program, max(counts.values()), seed)
    with torch_threads(1, pin=True), torch.inference_mode():
        rows = {}
        for length, count in counts.items():
            rows[length, _NATIVE] = make.native_run(NativeStream(program), inputs[:count])
            rows[length, _DENSE] = make.native_run(make.dense_stream(program), inputs[:count])
            rows[length, _TORCH] = make.torch_chunk(program, inputs[:count])
        make.checked(rows, program.stream("numpy").run(inputs))
        notify("measuring; about a minute")
        times = make.timed(rows, rounds, budget)
    return {
        "bench": "stream",
        "model": name,
        "density": density(program),
        "isa": NativeEngine.of(program).isa,
        "torch": torch.__version__,
        "chunks": [_row(length, count, times) for length, count in counts.items()],
    }


def _row(length: int | str, frames: int, times: dict) -> dict:
    seconds = {name: times[length, name] for name in (_NATIVE, _DENSE, _TORCH)}
    ratios = {
        name: {which: seconds[name][which] / seconds[_NATIVE][which] for which in ("median", "minimum")}
        for name in (_DENSE, _TORCH)
    }
    return {"name": f"chunk {length}", "frames": frames, "seconds_per_frame": seconds, "ratios": ratios}


def table(result: dict) -> str:
    """The figures as a table for people."""
    lines = [
        f"stream by chunk: {result['model']}; density {result['density']:.3f}; one pinned thread",
        f"torch {result['torch']}; native engine {result['isa']}; us per frame, median (minimum)",
        f"{'':16}" + "".join(f"{name:>20}" for name in (_NATIVE, _DENSE, _TORCH)) + f"{'over dense':>13}"
        f"{'over torch':>13}",
    ]
    for row in result["chunks"]:
        seconds, ratios = row["seconds_per_frame"], row["ratios"]
        name = row["name"] + (f" ({row['frames']})" if OFFLINE in row["name"] else "")
        lines.append(
            f"{name:16}"
            + "".join(f"{make.microseconds(seconds[subject]):>20}" for subject in (_NATIVE, _DENSE, _TORCH))
            + "".join(f"{ratios[subject]['median']:>12.1f}x" for subject in (_DENSE, _TORCH))
        )
    return "\n".join(lines)
