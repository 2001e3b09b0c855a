"""Golden vectors: every integer of a program at every step, by the normative executor."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from lrnn.program import Program
from lrnn.program.numpy_executor import NumpyExecutor

STEPS = 200


def generated_frames(program: Program, steps: int = STEPS, seed: int = 0) -> np.ndarray:
    """(steps, input_width) float32 that reach all of the input's range: a random walk of each number whose
    level rises from a thousandth of it to beyond it, so that some values saturate.

    Of tokens: any of them.
    """
    random = np.random.default_rng(seed)
    first = next(node for node in program.nodes if program.input in node.inputs)
    if first.op == "fixed_embedding":
        return random.integers(0, len(first.weight), (steps, 1)).astype(np.float32)
    reach = 2.0 ** (first.bits - 1 - first.exponent)
    level = reach * np.geomspace(1e-3, 1.5, steps)[:, None]
    walk = random.normal(size=(steps, program.input_width))
    for t in range(1, steps):
        walk[t] = 0.7 * walk[t - 1] + 0.5 * walk[t]
    return (level * walk).astype(np.float32)


def golden_vectors(program: Program, frames: np.ndarray, resets: Iterable[int]) -> dict[str, np.ndarray]:
    """What vectors.npz holds.

    Args:
        program: in fixed point.
        frames: (T, input_width).
        resets: frames before which the state is set to zero; the first always starts anew.

    Returns:
        "input" (T, input_width) float32, "resets" int64, and "values/NAME" of every value of integers,
        (T, width) int32, or int64 where 32 bits do not hold it.
    """
    arrays = {"input": np.asarray(frames, np.float32), "resets": np.array(sorted({0, *resets}), np.int64)}
    traced = list(_trace(program, frames, set(arrays["resets"].tolist())))
    for name, form in program.formats.items():
        if form:
            dtype = np.int32 if form.bits <= 32 else np.int64
            arrays[f"values/{name}"] = np.stack([values[name] for values in traced]).astype(dtype)
    return arrays


def _trace(program: Program, frames: np.ndarray, resets: set[int]) -> Iterator[dict[str, np.ndarray]]:
    executor = NumpyExecutor(program)
    state = executor.zero_state()
    for t, frame in enumerate(frames):
        if t in resets:
            state = executor.zero_state()
        values, state = executor.trace(frame, state)
        yield values
