"""What the tests of fixed-point programs share: ranges on data, and every executor on the same frames."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch

from lrnn.ops.libraries import core_library
from lrnn.program import Program
from lrnn.program.fixed import nodes as fixed
from lrnn.program.numpy_executor import NumpyExecutor
from lrnn.program.torch_executor import TorchExecutor
from lrnn.quant import Range, Ranges

HAS_CORE = core_library()[0] is not None


def ranges_of(program: Program, x: np.ndarray) -> Ranges:
    """Extremes of every value on the frames x (T, input_width), by the numpy executor."""
    executor, seen = NumpyExecutor(program), []
    state = executor.zero_state()
    for frame in x:
        values, state = executor.trace(frame, state)
        seen.append(values)
    found = {name: np.stack([values[name] for values in seen]) for name in program.widths}
    return Ranges(
        {
            name: Range(float(np.abs(v).max()), float(v.min()), float(v.max()), v.size)
            for name, v in found.items()
        },
        "minmax",
        1,
    )


def trace(program: Program, x: np.ndarray) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Every value (T, width) of a fixed-point program by name, and the last state, equal in both executors.

    numpy goes frame by frame, torch over a batch whose second half are the same frames backwards, whole and
    cut in three; the native engine, where it is built, makes the same outputs and state. Every integer lies
    in its format.
    """
    plain, batched = NumpyExecutor(program), TorchExecutor(program)
    state, seen = plain.zero_state(), []
    for frame in x:
        values, state = plain.trace(frame, state)
        seen.append(values)
    found = {name: np.stack([values[name] for values in seen]) for name in program.widths}
    both = torch.from_numpy(np.stack((x, x[::-1])).astype(np.float32))
    whole, last = batched.trace(both)
    pieces, carried = [], None
    for start, end in pairwise((0, len(x) // 3, len(x) // 2, len(x))):
        piece, carried = batched.trace(both[:, start:end], carried)
        pieces.append(piece)
    for name, value in found.items():
        assert whole[name].dtype == (torch.float32 if value.dtype == np.float32 else torch.int64)
        assert np.array_equal(whole[name][0].numpy(), value), name
        assert torch.equal(torch.cat([piece[name] for piece in pieces], 1), whole[name]), name
        form = program.formats[name]
        if form is not None:
            assert value.dtype == np.int64
            assert form.low <= value.min()
            assert value.max() <= form.high
    for node in program.nodes:
        if node.state_width:
            after = state[node.name]
            assert after.dtype == np.dtype(node.state_dtype)
            low, high = node.state_limits
            assert (low <= after).all()
            assert (after <= high).all()
            assert np.array_equal(after, last[node.name][0].numpy())
            assert torch.equal(last[node.name], carried[node.name])
    if HAS_CORE:
        same_in_native(program, x, found[program.output], state)
    return found, state


def same_in_native(program: Program, x: np.ndarray, y: np.ndarray, state: dict[str, np.ndarray]) -> None:
    """The native engine gives y and ends in `state`: frame by frame, and in a chunk from a given state."""
    stream = program.stream("native")
    half = len(x) // 2
    parts = [stream.step(frame)[None] for frame in np.asarray(x[:half], np.float32)]
    middle = stream.state
    parts.append(stream.run(x[half:]))
    assert np.array_equal(np.concatenate(parts), y)
    for _ in range(2):
        for name, value in stream.state.items():
            assert value.dtype == state[name].dtype
            assert np.array_equal(value, state[name]), name
        stream.reset()
        stream.state = middle
        assert np.array_equal(stream.run(x[half:]), y[half:])


def between(node, x_exponent: int = 0, x_bits: int = 16, width: int = 1) -> Program:
    """A program of one integer node, which reads "x" and is called "y", between the two ends."""
    source = fixed.Quantize("x", ("in",), exponent=x_exponent, bits=x_bits)
    return Program("in", width, (source, node, fixed.Dequantize("out", ("y",))), "out")


def ints(*values, dtype=np.int8) -> np.ndarray:
    """A small array of integers."""
    return np.array(values, dtype)
