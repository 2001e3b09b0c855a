"""Calibration: the range of every value of a float program on data."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from lrnn.program import nodes as op
from lrnn.program.program import Program
from lrnn.program.torch_executor import TorchExecutor
from lrnn.quant import Histogram, Observer, Ranges
from lrnn.quant.observer import check_observer

_CHUNK = 1024
"""Frames of one pass: all values of a program on them are held at once."""


def calibrate(
    program: Program,
    batches: Iterable[np.ndarray | Tensor],
    observer: Observer = "minmax",
    bits: int = 16,
    percentile: float = 99.999,
    known: Ranges | None = None,
) -> Ranges:
    """Run a program in float on clips, each from a state of zeros, and see how far its values go.

    An observer that clips does so only to `messages`, which are rounded to few bits; what recurrences, sums
    and the output hold is wider, and a recurrence that saturates does harm for as long as it remembers. Those
    have the largest magnitude seen, a recurrence's before any ReLU, and so have gates.

    Args:
        program: in float, as `lrnn.compile` makes it.
        batches: clips (T, input_width), or batches of them (B, T, input_width).
        observer: "minmax", "percentile" or "mse"; see lrnn.quant.Histogram.range.
        bits: width of the values, for "mse".
        percentile: for "percentile".
        known: ranges that were trained with; values named there keep them.

    Returns:
        A range for every value; `clips` counts the sequences.

    Raises:
        ValueError: no data, a batch of another shape, NaN or infinity in the data or in a value, by its name.
    """
    check_observer(observer, percentile)
    if bits < 2:
        raise ValueError(f"bits is {bits}, expected at least 2")
    executor = TorchExecutor(program)
    seen = {name: Histogram(name) for name in program.widths}
    clips = 0
    for number, batch in enumerate(batches):
        frames = _frames(batch, number, program.input_width)
        clips += len(frames)
        state = None
        for chunk in frames.split(_CHUNK, dim=1):
            with torch.inference_mode():
                values, state = executor.trace(chunk, state)
            for name, value in values.items():
                seen[name].see(value)
    if clips == 0:
        raise ValueError("batches is empty: there is nothing to calibrate on")
    for node in program.nodes:
        if isinstance(node, op.Embedding):  # also the rows of tokens that the data lack
            seen[node.name].see(torch.from_numpy(node.weight))
    kept = {} if known is None else {k: v for k, v in known.values.items() if k in seen}
    clipped = messages(program) - recurrences(program) - gates(program)
    found = {
        name: kept.get(name) or histogram.range(observer if name in clipped else "minmax", bits, percentile)
        for name, histogram in seen.items()
    }
    return Ranges(found, observer, clips)


def messages(program: Program) -> set[str]:
    """Values that a matrix, diagonal map, table, product, gate, norm or mean reads, at once or past a ReLU.

    They have the activations' width; the others, which only sums and recurrences read, are wider.
    Log-softmax has no integer form: what it reads leaves a program in fixed point.
    """
    found: set[str] = set()
    for node in reversed(program.nodes):
        passes_on = isinstance(node, (op.Relu, op.PairRelu)) and node.name not in found
        if isinstance(node, op.Gated):
            found.add(node.inputs[0])  # the gate; what is written goes into a state, which is wide
        elif not passes_on and not isinstance(node, (op.Add, op.Diagonal, op.LogSoftmax)):
            found.update(node.inputs)
    return found


def recurrences(program: Program) -> set[str]:
    """Values that are carried from frame to frame."""
    return {node.name for node in program.nodes if isinstance(node, (op.Diagonal, op.Gated))}


def gates(program: Program) -> set[str]:
    """Values that a gated recurrence reads as its gate, at once or behind a diagonal map."""
    found: set[str] = set()
    for node in reversed(program.nodes):
        if isinstance(node, op.Gated) or (isinstance(node, op.Affine) and node.name in found):
            found.add(node.inputs[0])
    return found


def _frames(batch: np.ndarray | Tensor, number: int, width: int) -> Tensor:
    frames = torch.as_tensor(batch)
    if frames.ndim == 2:
        frames = frames[None]
    if frames.ndim != 3 or frames.shape[-1] != width or 0 in frames.shape:
        raise ValueError(
            f"batch {number} has shape {tuple(np.shape(batch))}, "
            f"expected (frames, {width}) or (clips, frames, {width})"
        )
    frames = frames.detach().float().cpu()
    if not torch.isfinite(frames).all():
        raise ValueError(f"batch {number} has NaN or infinite values")
    return frames
