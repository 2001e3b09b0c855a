"""`lrnn bench stream --streams`: many streams at once on one core, in turn or as a batch.

The native engine has no batch: a process steps one stream after the other, each with its own state and
frames; weights stay in the cache. PyTorch steps all streams as one batch of dense products, in which every
weight is read once for all of them. One pinned thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from lrnn.engine.native import NativeEngine, NativeStream
from lrnn.profile.bench import stream_rows as make
from lrnn.profile.bench.compiled_step import Stateful, ahead_of_time
from lrnn.profile.bench.eager_step import EagerStep
from lrnn.profile.bench.stream import density
from lrnn.profile.bench.timing import torch_threads
from lrnn.program import Program

HOP = 0.008  # seconds of sound in a frame of the denoiser
_NATIVE, _DENSE = "native step", "native step, dense"
_EAGER, _AHEAD = "eager batch", "AOTInductor batch"
_MOST = 4096


def parse(text: str) -> list[int]:
    """Counts from "1,2,4" or "1..32", which is 1, 2, 4, 8, 16, 32.

    Raises:
        ValueError: text is neither.
    """
    first, dots, last = text.partition("..")
    try:
        counts = make.powers(int(first), int(last), 2) if dots else [int(part) for part in text.split(",")]
    except ValueError:
        counts = []
    if not counts or not all(1 <= count <= _MOST for count in counts):
        raise ValueError(f"streams is {text!r}, expected counts up to {_MOST} such as 1,8,32 or 1..32")
    return list(dict.fromkeys(counts))


def run(
    counts: Sequence[int],
    k: float = 1.0,
    sparsity: float = 0.9,
    model: str | None = None,
    language: int | None = None,
    *,
    compilers: bool = True,
    rounds: int = 40,
    budget: float = 40.0,
    seed: int = 0,
    notify: Callable[[str], object] = lambda text: None,
) -> dict:
    """Measure and return the figures, ready for JSON.

    Args:
        counts: numbers of streams.
        k: see lrnn.profile.bench.stream.run.
        sparsity: see there.
        model: a program's file, in place of k and sparsity.
        language: width of a language model, in place of k.
        compilers: also PyTorch's AOTInductor, which takes half a minute.
        rounds: most timed rounds.
        budget: seconds after which no round starts.
        seed: of the weights and frames.
        notify: is told what goes on.

    Raises:
        ValueError: an argument is out of range, or the program holds a node with no eager form.
        RuntimeError: the native engine is not built here, or a row's outputs are wrong.
    """
    name, _, program = make.subject(k, sparsity, model, language, seed)
    rows: dict[tuple[int, str], make.Row] = {}
    with torch_threads(1, pin=True), torch.inference_mode():
        ahead, left_out = _ahead(program, counts, notify) if compilers else ({}, {})
        for count in counts:
            turns = max(1, make.BLOCK // count)
            frames = make.frames_of(program, turns * count, seed).reshape(turns, count, -1)
            found = _rows(program, frames, ahead)
            make.checked(found, _expected(program, frames))
            rows |= {(count, name): row for name, row in found.items()}
        notify("measuring; about a minute")
        times = make.timed(rows, rounds, budget)
    return {
        "bench": "stream",
        "model": name,
        "density": density(program),
        "isa": NativeEngine.of(program).isa,
        "torch": torch.__version__,
        "left_out": left_out,
        "streams": [_row(count, times) for count in counts],
    }


def _ahead(
    program: Program, counts: Sequence[int], notify: Callable[[str], object]
) -> tuple[dict[bool, Callable[[tuple[int, ...]], Stateful]], dict[str, str]]:
    """Makers of compiled steps, of one stream (False) and of a batch (True), as far as they are needed."""
    wanted = {count > 1 for count in counts}
    builders = {
        batched: lambda batched=batched: ahead_of_time(program, batched=batched) for batched in wanted
    }
    notify(f"making {_AHEAD}; up to a minute")
    found, left_out = make.made(builders, lambda text: None)
    return found, ({_AHEAD: "; ".join(left_out.values())} if left_out else {})


def _rows(program: Program, frames: np.ndarray, ahead: dict) -> dict[str, make.Row]:
    """Rows that take frames (turns, streams, input_width), a turn at a time."""
    turns, count, _ = frames.shape
    shape = (count,) if count > 1 else ()
    batches = [torch.tensor(turn).reshape(*shape, -1) for turn in frames]
    rows = {
        _NATIVE: _in_turn([NativeStream(program) for _ in range(count)], frames),
        _DENSE: _in_turn(_sharing(program, count), frames),
        _EAGER: _batch(EagerStep(program, shape), batches, turns * count),
    }
    if (count > 1) in ahead:
        rows[_AHEAD] = _batch(ahead[count > 1](shape), batches, turns * count)
    return rows


def _sharing(program: Program, count: int) -> list[NativeStream]:
    engine = NativeEngine.of(program, "dense")
    return [NativeStream(program, engine) for _ in range(count)]


def _in_turn(streams: list[NativeStream], frames: np.ndarray) -> make.Row:
    calls = [(stream.step, frame) for turn in frames for stream, frame in zip(streams, turn, strict=True)]
    return make.Row(lambda: [step(frame) for step, frame in calls], len(calls))


def _batch(step: Callable, batches: list[torch.Tensor], frames: int) -> make.Row:
    return make.Row(lambda: [step(batch) for batch in batches], frames)


def _expected(program: Program, frames: np.ndarray) -> np.ndarray:
    """Outputs (turns * streams, output_width) of every stream by itself."""
    outputs = [program.stream("numpy").run(frames[:, s]) for s in range(frames.shape[1])]
    return np.stack(outputs, axis=1).reshape(-1, program.output_width)


def _row(count: int, times: dict) -> dict:
    seconds = {name: times[key, name] for key, name in times if key == count}
    return {
        "name": f"{count} streams" if count > 1 else "1 stream",
        "streams": count,
        "seconds_per_frame": seconds,
        "real_time": {name: HOP / taken["median"] for name, taken in seconds.items()},
    }


def table(result: dict) -> str:
    """The figures as a table for people."""
    names = list(result["streams"][0]["seconds_per_frame"])
    title = (
        f"many streams on one core: {result['model']}; density {result['density']:.3f}; one pinned thread\n"
        f"torch {result['torch']}; native engine {result['isa']}; native streams are served in turn\n"
    )
    parts = [_part("us per frame, median (min)", names, result, _taken)]
    parts.append(_part(f"seconds of sound a second, {HOP * 1e3:g} ms a frame", names, result, _sound))
    parts += [f"{name}: left out ({reason})" for name, reason in result["left_out"].items()]
    return title + "\n\n".join(parts)


def _part(title: str, names: list[str], result: dict, cell: Callable[[dict, str], str]) -> str:
    lines = [title, f"{'':12}" + "".join(f"{name:>20}" for name in names)]
    for row in result["streams"]:
        lines.append(f"{row['name']:12}" + "".join(f"{cell(row, name):>20}" for name in names))
    return "\n".join(lines)


def _taken(row: dict, name: str) -> str:
    return make.microseconds(row["seconds_per_frame"][name])


def _sound(row: dict, name: str) -> str:
    return f"{row['real_time'][name]:.0f}"
