"""`lrnn bench stream`: what a frame costs, the strongest dense runtimes beside the native engine, as ratios.

Everything runs in one process, interleaved, on one pinned thread with one thread per library, in inference
mode, after every row gave the numpy executor's outputs. What is timed:

- `model(x, state)`: the module called with T = 1 and the state carried over, as a user of PyTorch would; an
  S5 discretises anew in every call.
- `eager step`: the same network with baked weights as bare torch functions (lrnn.profile.bench.eager_step).
- `torch.compile`, `AOTInductor`: the same as one pure function through PyTorch's compilers
  (lrnn.profile.bench.compiled_step).
- `ONNX Runtime`, `ONNX Runtime int8`: the same as an ONNX graph (lrnn.profile.bench.onnx_step).
- `native step`: NativeStream.step, a numpy frame in and a fresh array out, called from Python; with all
  matrices dense, and with the formats the engine chooses.
- `torch, a chunk`, `torch, chunks of 256`: PyTorch on many frames at once, per frame: all of them, or as many
  as its values stay in the cache for. The baseline of `native run`.
- `native run`: NativeStream.run on a chunk of frames, per frame: dense frame by frame, and as it comes.
- `W8A16 step`, `W8A16 run`: as native step and run, of the network in fixed point; its chunks go frame by
  frame. These rows gave every bit of what the numpy executor gives for that program.

The inputs of PyTorch's rows are ready tensors. Rows whose library or compiler is missing are left out, with
the reason.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from lrnn.engine.native import NativeEngine, NativeStream
from lrnn.profile.bench import limits
from lrnn.profile.bench import stream_rows as make
from lrnn.profile.bench.timing import torch_threads
from lrnn.program import Program, nodes

_EAGER, _COMPILED, _AHEAD = "eager step", "torch.compile", "AOTInductor"
_CHUNK, _PIECES = "torch, a chunk", "torch, chunks of 256"
_ONNX, _INT8 = "ONNX Runtime", "ONNX Runtime int8"
_STEPS, _RUNS = ("native step", "W8A16 step"), ("native run", "W8A16 run")
_SUBJECTS = (*_STEPS, *_RUNS)
# What the subjects are held to: the fastest of these rows, as far as they are there.
_BASELINES: dict[str, dict[str, tuple[str, ...]]] = {
    "the better of eager and torch.compile": dict.fromkeys(_SUBJECTS, (_EAGER, _COMPILED)),
    "AOTInductor": dict.fromkeys(_SUBJECTS, (_AHEAD,)),
    "torch, a chunk": dict.fromkeys(_RUNS, (_CHUNK, _PIECES)),
    "ONNX Runtime, float32": dict.fromkeys(_SUBJECTS, (_ONNX,)),
    "ONNX Runtime, the faster form": dict.fromkeys(_SUBJECTS, (_ONNX, _INT8)),
    "our own engine, dense": {name: (f"{name}, dense",) for name in _SUBJECTS},
    "our own engine in float32": {"W8A16 step": ("native step",), "W8A16 run": ("native run",)},
}


def run(
    k: float = 1.0,
    sparsity: float = 0.9,
    frames: int = 2000,
    model: str | None = None,
    language: int | None = None,
    *,
    compilers: bool = True,
    rounds: int = 60,
    budget: float = 40.0,
    seed: int = 0,
    notify: Callable[[str], object] = lambda text: None,
) -> dict:
    """Measure and return the figures, ready for JSON.

    Args:
        k: the paper's width factor; k = 1 is d_model 192, d_state 256 in 16 blocks, three layers.
        sparsity: fraction of zeros over all weights, shared out by ERK, on random weights.
        frames: frames of one `run`.
        model: a program's file, in place of k and sparsity; `model(x, state)` is then left out.
        language: width of a language model in place of k: HGRN blocks over bytes, six layers.
        compilers: also PyTorch's, which take up to a minute.
        rounds: most timed rounds.
        budget: seconds after which no round starts.
        seed: of the weights and frames.
        notify: is told what goes on.

    Raises:
        ValueError: an argument is out of range, or the program holds a node with no eager form.
        RuntimeError: the native engine is not built here, or a row's outputs are wrong.
    """
    if frames < 1:
        raise ValueError(f"frames is {frames}, expected at least 1")
    name, network, program = make.subject(k, sparsity, model, language, seed)
    inputs = make.frames_of(program, max(frames, make.BLOCK), seed)
    with torch_threads(1, pin=True), torch.inference_mode():
        rows = {} if network is None else {"model(x, state)": make.model_step(network, inputs)}
        rows[_EAGER] = make.eager_step(program, inputs)
        others, left_out = make.made(_others(program, inputs, compilers), notify)
        rows |= others | _native(program, inputs, frames)
        notify("measuring")
        errors = make.checked(rows, program.stream("numpy").run(inputs))
        fixed = make.in_fixed_point(program, inputs)
        integers = _integers(fixed, inputs, frames)
        errors |= make.checked(integers, fixed.stream("numpy").run(inputs))
        rows |= integers
        per_frame = make.timed(rows, rounds, budget)
        limit = limits.measure()
    sparse = NativeEngine.of(program)
    bytes_held = {
        "dense": _bytes(NativeEngine(program, "dense")),
        "sparse": _bytes(sparse),
        "W8A16": _bytes(NativeEngine.of(fixed)),
    }
    return {
        "bench": "stream",
        "model": name,
        "density": density(program),
        "macs": macs(program),
        "isa": sparse.isa,
        "torch": torch.__version__,
        "seconds_per_frame": per_frame,
        "errors": errors,
        "left_out": left_out,
        "bytes": bytes_held,
        "ratios": _ratios(per_frame),
        "limits": limit,
    }


def _others(program: Program, inputs: np.ndarray, compilers: bool) -> dict[str, Callable[[], make.Row]]:
    builders: dict[str, Callable[[], make.Row]] = {}
    if compilers:
        builders[_COMPILED] = lambda: make.compiled_step(program, inputs)
        builders[_AHEAD] = lambda: make.ahead_of_time_step(program, inputs)
    builders[_ONNX] = lambda: make.onnx_step(program, inputs)
    builders[_INT8] = lambda: make.onnx_step(program, inputs, int8=True)
    return builders


def _native(program: Program, inputs: np.ndarray, frames: int) -> dict[str, make.Row]:
    chunk = inputs[:frames]
    return {
        "native step, dense": make.native_step(make.dense_stream(program), inputs),
        "native step": make.native_step(NativeStream(program), inputs),
        _CHUNK: make.torch_chunk(program, chunk),
        _PIECES: make.torch_chunk(program, chunk, 256),
        "native run, dense": make.native_run(make.dense_stream(program), chunk),
        "native run": make.native_run(NativeStream(program), chunk),
    }


def _integers(fixed: Program, inputs: np.ndarray, frames: int) -> dict[str, make.Row]:
    chunk = inputs[:frames]
    rows = {
        "W8A16 step, dense": make.native_step(make.dense_stream(fixed), inputs),
        "W8A16 step": make.native_step(NativeStream(fixed), inputs),
        "W8A16 run, dense": make.native_run(make.dense_stream(fixed), chunk),
        "W8A16 run": make.native_run(NativeStream(fixed), chunk),
    }
    return {name: replace(row, error=0.0) for name, row in rows.items()}


def _bytes(engine: NativeEngine) -> int:
    return sum(engine.bytes().values())


def density(program: Program) -> float:
    """Nonzeros of all matrices over their elements."""
    count = macs(program)
    return count["nonzero"] / count["all"]


def macs(program: Program) -> dict[str, int]:
    """Multiply-accumulates of the matrices for a frame: of all weights, and of the nonzero ones."""
    weights = [node.weight for node in program.nodes if isinstance(node, nodes.Linear)]
    return {"all": sum(w.size for w in weights), "nonzero": int(sum(np.count_nonzero(w) for w in weights))}


def _ratios(times: dict[str, dict[str, float]]) -> dict[str, dict[str, dict]]:
    """By baseline and subject: how many times faster, by medians and by minima, and than which row."""
    ratios: dict[str, dict[str, dict]] = {}
    for baseline, subjects in _BASELINES.items():
        for subject, rows in subjects.items():
            there = [row for row in rows if row in times]
            if there and subject in times:
                best = min(there, key=lambda row: times[row]["median"])
                found = {which: times[best][which] / times[subject][which] for which in ("median", "minimum")}
                ratios.setdefault(baseline, {})[subject] = {**found, "row": best}
    return ratios


def table(result: dict) -> str:
    """The figures as a table for people."""
    held = {name: f"{size / 1024:.0f} KiB" for name, size in result["bytes"].items()}
    lines = [
        f"stream: {result['model']}; density {result['density']:.3f}; one pinned thread",
        f"torch {result['torch']}; native engine {result['isa']}, weights {held['dense']} dense, "
        f"{held['sparse']} as chosen, {held['W8A16']} in W8A16; errors: the largest over the largest output",
        "",
        f"{'us per frame':22}{'median':>10}{'minimum':>10}{'error':>10}",
    ]
    for name, times in result["seconds_per_frame"].items():
        us = [f"{times[which] * 1e6:.2f}" for which in ("median", "minimum")]
        lines.append(f"{name:22}{us[0]:>10}{us[1]:>10}{result['errors'][name]:>10.0e}")
    lines += [f"{name}: left out ({reason})" for name, reason in result["left_out"].items()]
    lines += ["", f"{'times faster than, by medians (minima)':40}" + "".join(f"{s:>18}" for s in _SUBJECTS)]
    for baseline, subjects in result["ratios"].items():
        cells = [_ratio(subjects.get(subject)) for subject in _SUBJECTS]
        rows = {found["row"] for found in subjects.values()}
        which = f"  {rows.pop()}" if len(rows) == 1 and rows != {baseline} else ""
        lines.append(f"{baseline:40}" + "".join(f"{cell:>18}" for cell in cells) + which)
    return "\n".join([*lines, "", _limits(result), limits.table(result["limits"])])


def _ratio(found: dict | None) -> str:
    return "" if found is None else f"{found['median']:.1f} ({found['minimum']:.1f})"


def _limits(result: dict) -> str:
    """How close steps come to reading their weights, and chunks to multiplying by them."""
    rates, times = result["limits"], result["seconds_per_frame"]
    read = result["bytes"]["sparse"] / rates["read L2"]
    multiply = 2 * result["macs"]["nonzero"] / rates["multiply-add"]
    dense = 2 * result["macs"]["all"] / rates["multiply-add"]
    return (
        f"reading the weights as chosen from L2 takes {read * 1e6:.2f} us, "
        f"{read / times['native step']['median']:.2f} of native step\n"
        f"{result['macs']['nonzero']:,} multiply-adds at the peak rate take {multiply * 1e6:.2f} us, "
        f"{multiply / times['native run']['median']:.2f} of native run; "
        f"all {result['macs']['all']:,} take {dense * 1e6:.2f} us, "
        f"{dense / min(times[_CHUNK]['median'], times[_PIECES]['median']):.2f} of {_CHUNK}"
    )
