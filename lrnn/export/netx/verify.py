"""A `.net` file in stock netx against the integers that it stands for, in a Lava environment of its own."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lrnn.export.netx.file import read_net
from lrnn.program.numpy_executor import NumpyExecutor

if TYPE_CHECKING:
    from lrnn.export.netx.stack import Stack
    from lrnn.program import Program

STOCK = Path(__file__).with_name("stock.py")
TIMEOUT = 300.0


def verify_net(
    path: str | os.PathLike,
    x: np.ndarray,
    python: str | os.PathLike,
    sparse: bool = False,
    timeout: float = TIMEOUT,
) -> np.ndarray:
    """Run a file in stock netx and hold every output of every frame to the reference.

    Args:
        path: as `write_net` wrote it.
        x: (T, inputs) integers within the format of its input.
        python: the interpreter of an environment with lava-nc 0.10.0 and lava-dl 0.6.0.
        sparse: load every layer as lava.proc.sparse.
        timeout: in seconds; a simulation that hangs is ended.

    Returns:
        The value that the stack makes, (T, outputs) int64.

    Raises:
        RuntimeError: netx failed, took longer, or made other integers: the first is named.
        ValueError: a file or frames that do not fit.
    """
    stack = read_net(path)
    frames = stack.checked(x)
    if not len(frames):
        raise ValueError("x has no frames")
    made = _run(path, frames, python, sparse, timeout) - stack.offset
    expected = stack.run(frames)
    if made.shape != expected.shape:
        raise RuntimeError(f"{path}: netx made shape {made.shape}, expected {expected.shape}")
    wrong = np.argwhere(made != expected)
    if len(wrong):
        t, i = wrong[0]
        raise RuntimeError(
            f"{path}: {len(wrong)} of {made.size} integers differ, first at frame {t}, output {i}: netx made "
            f"{made[t, i]}, expected {expected[t, i]}"
        )
    return made


def program_integers(program: Program, stack: Stack, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What a program itself makes of the values that a stack reads and makes: the normative executor's.

    Args:
        program: in fixed point; the stack is one of its segments.
        stack: which.
        frames: (T, input_width) floats, from a state of zeros.

    Returns:
        (T, inputs) and (T, outputs) of the stack, int64.
    """
    executor = NumpyExecutor(program)
    state, values = executor.zero_state(), []
    for frame in frames:
        made, state = executor.trace(frame, state)
        values.append((made[stack.source], made[stack.value]))
    x, y = zip(*values, strict=True)
    return np.stack(x), np.stack(y)


def _run(path, frames: np.ndarray, python, sparse: bool, timeout: float) -> np.ndarray:
    with tempfile.TemporaryDirectory() as folder:
        x, y = Path(folder, "x.npy"), Path(folder, "y.npy")
        np.save(x, frames)
        # -I: neither the caller's folder nor its PYTHONPATH is that environment's business.
        command = [
            str(python),
            "-I",
            str(STOCK),
            str(path),
            str(x),
            str(y),
            *(["--sparse"] if sparse else []),
        ]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
        except FileNotFoundError:
            raise FileNotFoundError(f"{python}: no such interpreter, expected a Lava environment's") from None
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"{path}: netx took longer than {timeout:g} s") from None
        if done.returncode or not y.is_file():
            lines = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
            raise RuntimeError(f"{path}: netx failed: {lines[-1]}")
        return np.load(y, allow_pickle=False)
