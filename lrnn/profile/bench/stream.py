"""`lrnn bench stream`: what one frame costs, PyTorch beside the native engine, dense and sparse, as ratios.

Everything runs in one process, interleaved, on one pinned thread with one thread per library, in inference
mode, after every row gave the numpy executor's outputs. What is timed:

- `model(x, state)`: the SequenceModel called with T = 1 and the state carried over, as a user of PyTorch
  would; it discretises anew in every call.
- `eager step`: the same network with baked weights as bare torch functions (lrnn.profile.bench.eager_step);
  the baseline of the ratios. Its input is a ready tensor.
- `native step`: NativeStream.step, a numpy frame in and a fresh array out, called from Python; with all
  matrices dense, and with the formats the engine chooses.
- `native run`: NativeStream.run on a chunk of frames, per frame: what the C++ itself costs.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from lrnn.engine.native import NativeEngine, NativeStream
from lrnn.nn import SequenceModel, SequenceModelConfig
from lrnn.profile.bench.eager_step import EagerStep
from lrnn.profile.bench.timing import Timing, interleaved, torch_threads
from lrnn.program import Program, compile, load, nodes
from lrnn.prune import prune_once

_BLOCK = 32  # frames of one timed call of a step: the loop around it costs nothing then
_BASELINE = "eager step"


def run(
    k: float = 1.0,
    sparsity: float = 0.9,
    frames: int = 2000,
    model: str | None = None,
    *,
    rounds: int = 60,
    budget: float = 40.0,
    seed: int = 0,
) -> dict:
    """Measure and return the figures, ready for JSON.

    Args:
        k: the paper's width factor; k = 1 is d_model 192, d_state 256 in 16 blocks, three layers.
        sparsity: fraction of zeros over all weights, shared out by ERK, on random weights.
        frames: frames of one `run`.
        model: a program's file, in place of k and sparsity; `model(x, state)` is then left out.
        rounds: most timed rounds.
        budget: seconds after which no round starts.
        seed: of the weights and frames.

    Raises:
        ValueError: an argument is out of range, or the program holds a node with no eager form.
        RuntimeError: the native engine is not built here, or a row's outputs are wrong.
    """
    if k <= 0:
        raise ValueError(f"k is {k}, expected > 0")
    if not 0 <= sparsity < 1:
        raise ValueError(f"sparsity is {sparsity}, expected 0 <= sparsity < 1")
    if frames < 1:
        raise ValueError(f"frames is {frames}, expected at least 1")
    network, program = (None, load(model)) if model else _random(k, sparsity, seed)
    inputs = _inputs(program, max(frames, _BLOCK), seed)
    with torch_threads(1, pin=True), torch.inference_mode():
        dense = NativeStream(program, NativeEngine(program, "dense"))
        sparse = NativeStream(program)
        subjects = _subjects(program, network, dense, sparse, inputs, frames)
        _check(program, subjects, inputs)
        times = interleaved(
            {name: call for name, (call, _) in subjects.items()}, rounds=rounds, budget=budget, chunk=0.004
        )
    per_frame = {name: _scaled(timing, subjects[name][1]) for name, timing in times.items()}
    return {
        "bench": "stream",
        "model": model or f"random, k={k:g}, sparsity {sparsity:g}",
        "density": _density(program),
        "isa": sparse.engine.isa,
        "torch": torch.__version__,
        "seconds_per_frame": per_frame,
        "bytes": {"dense": sum(dense.engine.bytes().values()), "sparse": sum(sparse.engine.bytes().values())},
        "ratios": _ratios(per_frame),
    }


def _random(k: float, sparsity: float, seed: int) -> tuple[SequenceModel, Program]:
    """A network of the denoiser's shape with random weights, pruned by magnitude."""
    config = SequenceModelConfig(d_in=257, d_out=257)
    torch.manual_seed(seed)
    network = SequenceModel(config if k == 1 else config.scaled(k)).eval()
    if sparsity > 0:
        prune_once(network, sparsity)
    return network, compile(network)


def _inputs(program: Program, frames: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((frames, program.input_width)).astype(np.float32)


def _subjects(
    program: Program,
    network: SequenceModel | None,
    dense: NativeStream,
    sparse: NativeStream,
    inputs: np.ndarray,
    frames: int,
) -> dict[str, tuple[Callable[[], list], int]]:
    """Functions that are timed, each with the number of frames it processes and whose outputs it returns."""
    block, chunk = list(inputs[:_BLOCK]), inputs[:frames]
    tensors = list(torch.tensor(inputs[:_BLOCK]))
    eager = EagerStep(program)
    subjects: dict[str, tuple[Callable[[], list], int]] = {}
    if network is not None:
        subjects["model(x, state)"] = _model_step(network, tensors), _BLOCK
    subjects[_BASELINE] = lambda: [eager(frame) for frame in tensors], _BLOCK
    subjects["native step, dense"] = lambda: [dense.step(frame) for frame in block], _BLOCK
    subjects["native step"] = lambda: [sparse.step(frame) for frame in block], _BLOCK
    subjects["native run, dense"] = lambda: dense.run(chunk), frames
    subjects["native run"] = lambda: sparse.run(chunk), frames
    return subjects


def _model_step(network: SequenceModel, frames: list[torch.Tensor]) -> Callable[[], list]:
    shaped = [frame[None, None] for frame in frames]  # (1, 1, d_in)
    state = None

    def block():
        nonlocal state
        out = []
        for frame in shaped:
            y, state = network(frame, state)
            out.append(y[0, 0])
        return out

    return block


def _check(program: Program, subjects: dict, inputs: np.ndarray) -> None:
    """RuntimeError unless every subject, still at its first frame, gives what the numpy executor gives."""
    expected = program.stream("numpy").run(inputs[:_BLOCK])
    for name, (call, n) in subjects.items():
        if name.startswith("native run"):
            continue  # shares its stream with a step; tests hold the two equal
        found = np.stack([np.asarray(y) for y in call()])[: len(expected)]
        error = np.abs(found - expected[:n]).max() / np.abs(expected).max()
        if not error < 1e-4:
            raise RuntimeError(f"{name} differs from the numpy executor by {error:.1e} of its largest output")


def _scaled(timing: Timing, frames: int) -> dict[str, float]:
    return {"median": timing.median / frames, "minimum": timing.minimum / frames}


def _density(program: Program) -> float:
    weights = [node.weight for node in program.nodes if isinstance(node, nodes.Linear)]
    return float(sum(np.count_nonzero(w) for w in weights) / sum(w.size for w in weights))


def _ratios(times: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """How many times faster, by medians and by minima."""
    pairs = {
        "native step over eager step": (_BASELINE, "native step"),
        "native step over native step, dense": ("native step, dense", "native step"),
        "native run over native run, dense": ("native run, dense", "native run"),
    }
    return {
        name: {which: times[slow][which] / times[fast][which] for which in ("median", "minimum")}
        for name, (slow, fast) in pairs.items()
    }


def table(result: dict) -> str:
    """The figures as a table for people."""
    base = result["seconds_per_frame"][_BASELINE]
    held = {name: f"{size / 1024:.0f} KiB" for name, size in result["bytes"].items()}
    lines = [
        f"stream: {result['model']}; density {result['density']:.3f}; one pinned thread",
        f"torch {result['torch']}; native engine {result['isa']}, weights {held['dense']} dense, "
        f"{held['sparse']} as chosen",
        f"{'':22}{'us per frame, median (min)':>28}{'times faster than ' + _BASELINE:>32}",
    ]
    for name, times in result["seconds_per_frame"].items():
        us = f"{times['median'] * 1e6:.2f} ({times['minimum'] * 1e6:.2f})"
        ratio = f"{base['median'] / times['median']:.2f} ({base['minimum'] / times['minimum']:.2f})"
        lines.append(f"{name:22}{us:>28}{ratio:>32}")
    for name, ratio in result["ratios"].items():
        lines.append(f"{name}: {ratio['median']:.1f}x by medians, {ratio['minimum']:.1f}x by minima")
    return "\n".join(lines)
