"""What `lrnn bench stream` times: rows, each a function that runs the next frames and returns their outputs.

A row starts at zero state. `checked` calls it once and holds what it gives to the numpy executor; only then
is it timed. To add a row, make a Row in a function beside these and add it where `lrnn.profile.bench.stream`,
`.streams` or `.chunks` gathers theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import nn

from lrnn.engine.native import NativeEngine, NativeStream
from lrnn.nn import HGRNBlockConfig, LanguageModel, LanguageModelConfig, SequenceModel, SequenceModelConfig
from lrnn.profile.bench.compiled_step import ahead_of_time, compiled
from lrnn.profile.bench.eager_step import EagerStep
from lrnn.profile.bench.onnx_step import OnnxStep
from lrnn.profile.bench.timing import Timing, interleaved
from lrnn.program import Program, calibrate, compile, compile_fixed, load
from lrnn.program.torch_executor import TorchExecutor
from lrnn.prune import prune_once

T = TypeVar("T")
BLOCK = 32  # frames of one timed call of a step: the loop around it costs nothing then
# Errors allowed, of the largest output: of float32, and of 8 bits with one scale a matrix, which cost the
# shipped network a sixth of it on noise.
ROUNDED, QUANTISED = 1e-4, 0.3


@dataclass(frozen=True)
class Row:
    """One subject of the timing.

    Attributes:
        call: runs the next `frames` frames and returns their outputs in order, arrays or tensors of one
            frame's output or of many.
        frames: of one call.
        error: largest one allowed in the first call's outputs, over the largest output.
    """

    call: Callable[[], Sequence]
    frames: int
    error: float = ROUNDED


def subject(
    k: float, sparsity: float, model: str | None, language: int | None, seed: int
) -> tuple[str, nn.Module | None, Program]:
    """The network that is run: the name for people, the module where there is one, and the Program.

    Args:
        k: the paper's width factor.
        sparsity: fraction of zeros over all weights, shared out by ERK, on random weights.
        model: a program's file, in place of both.
        language: width of a language model of HGRN blocks over bytes, in place of k.
        seed: of the weights.

    Raises:
        ValueError: k, sparsity or language is out of range.
    """
    if k <= 0:
        raise ValueError(f"k is {k}, expected > 0")
    if language is not None and language < 1:
        raise ValueError(f"language is {language}, expected a width of at least 1")
    if not 0 <= sparsity < 1:
        raise ValueError(f"sparsity is {sparsity}, expected 0 <= sparsity < 1")
    if model:
        return str(model), None, load(model)
    torch.manual_seed(seed)
    if language is not None:
        return _language_model(language, sparsity)
    config = SequenceModelConfig(d_in=257, d_out=257)  # the denoiser's
    network = SequenceModel(config if k == 1 else config.scaled(k)).eval()
    if sparsity > 0:
        # By |B|, which cuts off no state: a Program leaves those out, and the dense rows would shrink.
        prune_once(network, sparsity, score="magnitude")
    return f"random, k={k:g}, sparsity {sparsity:g}", network, compile(network)


def _language_model(width: int, sparsity: float) -> tuple[str, nn.Module, Program]:
    """Six blocks whose gated linear unit has the paper's share of the width; table and logits stay dense."""
    block = HGRNBlockConfig(d_model=width, d_state=width, d_hidden=int(2.75 * width), relu="gates")
    network = LanguageModel(LanguageModelConfig(vocabulary=256, n_layers=6, block=block)).eval()
    if sparsity > 0:
        prune_once(network.stack, sparsity, score="magnitude")
    return f"random language model, width {width}, sparsity {sparsity:g}", network, compile(network)


def frames_of(program: Program, count: int, seed: int) -> np.ndarray:
    """Normal noise (count, input_width), or tokens."""
    if program.reads_tokens:
        tokens = min(node.tokens for node in program.nodes if node.tokens)
        return np.random.default_rng(seed).integers(0, tokens, (count, 1)).astype(np.float32)
    return np.random.default_rng(seed).standard_normal((count, program.input_width)).astype(np.float32)


def native_step(stream: NativeStream, frames: np.ndarray) -> Row:
    """NativeStream.step from Python: a numpy frame in, a fresh array out."""
    block = list(frames[:BLOCK])
    return Row(lambda: [stream.step(frame) for frame in block], len(block))


def native_run(stream: NativeStream, frames: np.ndarray) -> Row:
    """NativeStream.run on all frames at once."""
    return Row(lambda: stream.run(frames), len(frames))


def dense_stream(program: Program) -> NativeStream:
    """A stream of the own engine with every matrix dense, frame by frame in chunks too."""
    return NativeStream(program, NativeEngine(program, "dense"))


def in_fixed_point(program: Program, frames: np.ndarray, scheme: str = "w8a16") -> Program:
    """The same network in integers, with ranges of the frames themselves."""
    return compile_fixed(program, calibrate(program, [frames]), scheme)


def model_step(network: nn.Module, frames: np.ndarray) -> Row:
    """The model called with T = 1, the state carried over, as a user of PyTorch would."""
    if isinstance(network, LanguageModel):
        shaped = [torch.tensor(frame).long()[None] for frame in frames[:BLOCK]]  # (1, 1)
    else:
        shaped = [torch.tensor(frame)[None, None] for frame in frames[:BLOCK]]  # (1, 1, d_in)
    state = None

    def block():
        nonlocal state
        out = []
        for frame in shaped:
            y, state = network(frame, state)
            out.append(y[0, 0])
        return out

    return Row(block, len(shaped))


def eager_step(program: Program, frames: np.ndarray) -> Row:
    """Baked weights as bare torch functions."""
    return _torch_step(EagerStep(program), frames)


def compiled_step(program: Program, frames: np.ndarray) -> Row:
    """torch.compile."""
    return _torch_step(compiled(program), frames)


def ahead_of_time_step(program: Program, frames: np.ndarray) -> Row:
    """AOTInductor."""
    return _torch_step(ahead_of_time(program)(()), frames)


def _torch_step(step: Callable, frames: np.ndarray) -> Row:
    tensors = list(torch.tensor(frames[:BLOCK]))
    return Row(lambda: [step(frame) for frame in tensors], len(tensors))


def torch_chunk(program: Program, frames: np.ndarray, length: int | None = None) -> Row:
    """TorchExecutor on (1, T, input_width), `length` frames at a time, None for all; its scan is lrnn's."""
    executor, state = TorchExecutor(program), None
    chunks = torch.tensor(frames)[None].split(length or len(frames), dim=1)

    def run():
        nonlocal state
        out = []
        for chunk in chunks:
            y, state = executor(chunk, state)
            out.append(y[0])
        return out

    return Row(run, len(frames))


def onnx_step(program: Program, frames: np.ndarray, *, int8: bool = False) -> Row:
    """ONNX Runtime: a numpy frame in, a fresh array out."""
    step, block = OnnxStep(program, int8=int8), list(frames[:BLOCK])
    return Row(lambda: [step(frame) for frame in block], len(block), QUANTISED if int8 else ROUNDED)


def made(
    builders: Mapping[Hashable, Callable[[], T]], notify: Callable[[str], object]
) -> tuple[dict[Hashable, T], dict[Hashable, str]]:
    """What may not be possible here (no compiler, nothing installed), and why others are missing."""
    rows, left_out = {}, {}
    for name, build in builders.items():
        notify(f"making {name}")
        try:
            rows[name] = build()
        except Exception as error:  # compilers and runtimes raise anything
            text = " ".join(str(error).split())
            left_out[name] = f"{type(error).__name__}: {text[:200]}"
    return rows, left_out


def checked(rows: Mapping[Hashable, Row], expected: np.ndarray) -> dict[Hashable, float]:
    """Call every row for the first time and hold it to the numpy executor.

    Args:
        rows: at zero state, by name.
        expected: (frames, output_width) of as many frames as any row's, or more.

    Returns:
        the largest error in each row's outputs over the largest output.

    Raises:
        RuntimeError: a row's outputs are wrong.
    """
    largest, errors = np.abs(expected).max(), {}
    for name, row in rows.items():
        found = np.concatenate([np.asarray(y).reshape(-1, expected.shape[1]) for y in row.call()])
        errors[name] = error = float(np.abs(found - expected[: row.frames]).max() / largest)
        if not error <= row.error:
            raise RuntimeError(f"{name} differs from the numpy executor by {error:.1e} of its largest output")
    return errors


def timed(rows: Mapping[Hashable, Row], rounds: int, budget: float) -> dict[Hashable, dict[str, float]]:
    """Seconds per frame of every row: median and minimum over interleaved rounds."""
    times = interleaved(
        {name: row.call for name, row in rows.items()}, rounds=rounds, budget=budget, chunk=0.004
    )
    return {name: _per_frame(timing, rows[name].frames) for name, timing in times.items()}


def microseconds(times: dict[str, float]) -> str:
    """A time per frame for people: median (minimum)."""
    return f"{times['median'] * 1e6:.2f} ({times['minimum'] * 1e6:.2f})"


def powers(first: int, last: int, step: int) -> list[int]:
    """first, first * step, ... up to last, which is always there; nothing where first < 1 or first > last."""
    found = []
    while 1 <= first < last:
        found.append(first)
        first *= step
    return [*found, last] if found or 1 <= first == last else []


def _per_frame(timing: Timing, frames: int) -> dict[str, float]:
    return {"median": timing.median / frames, "minimum": timing.minimum / frames}
