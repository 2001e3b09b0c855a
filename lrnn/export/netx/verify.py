"""`.net` files in stock netx against the integers that they stand for, in a Lava environment of its own."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Sequence
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
FORMS = ("dense", "sparse")


def verify_nets(
    cases: Sequence[tuple[str | os.PathLike, np.ndarray]],
    python: str | os.PathLike,
    timeout: float = TIMEOUT,
) -> list[np.ndarray]:
    """Run files in stock netx, with dense and with sparse synapses, and hold every output to the reference.

    Args:
        cases: files as `write_net` wrote them, each with its frames, (T, inputs) integers within the format
            of its input.
        python: the interpreter of an environment with lava-nc 0.10.0 and lava-dl 0.6.0.
        timeout: in seconds, for all together; a simulation that hangs is ended.

    Returns:
        Of each file the value that the stack makes, (T, outputs) int64.

    Raises:
        RuntimeError: netx failed, took longer, or made other integers: the first is named.
        ValueError: a file or frames that do not fit.
    """
    stacks = [read_net(path) for path, _ in cases]
    frames = [stack.checked(x) for stack, (_, x) in zip(stacks, cases, strict=True)]
    if not all(map(len, frames)):
        raise ValueError("x has no frames")
    expected = [stack.run(x) for stack, x in zip(stacks, frames, strict=True)]
    made = _run([path for path, _ in cases], frames, python, timeout)
    for (path, _), stack, both, y in zip(cases, stacks, made, expected, strict=True):
        for form, one in zip(FORMS, both, strict=True):
            _check_equal(f"{path} with {form} synapses", one - stack.offset, y)
    return expected


def _check_equal(what: str, made: np.ndarray, expected: np.ndarray) -> None:
    if made.shape != expected.shape:
        raise RuntimeError(f"{what}: netx made shape {made.shape}, expected {expected.shape}")
    wrong = np.argwhere(made != expected)
    if len(wrong):
        t, i = wrong[0]
        raise RuntimeError(
            f"{what}: {len(wrong)} of {made.size} integers differ, first at frame {t}, output {i}: netx made "
            f"{made[t, i]}, expected {expected[t, i]}"
        )


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


def _run(paths: list, frames: list[np.ndarray], python, timeout: float) -> list[np.ndarray]:
    """Of each file (2, T, outputs): its FORMS."""
    with tempfile.TemporaryDirectory() as folder:
        jobs: list[str] = []
        for n, (path, x) in enumerate(zip(paths, frames, strict=True)):
            np.save(Path(folder, f"x{n}.npy"), x)
            jobs += [os.path.abspath(path), f"x{n}.npy", f"y{n}.npy"]
        # -I: neither the caller's folder nor its PYTHONPATH is that environment's business.
        command = [os.path.abspath(python), "-I", str(STOCK), *jobs]
        try:
            done = subprocess.run(
                command, cwd=folder, capture_output=True, text=True, timeout=timeout, check=False
            )
        except (FileNotFoundError, PermissionError):
            raise FileNotFoundError(f"{python}: no such interpreter, expected a Lava environment's") from None
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"netx took longer than {timeout:g} s") from None
        if done.returncode:
            lines = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
            raise RuntimeError(f"netx failed: {lines[-1]}")
        return [np.load(Path(folder, y), allow_pickle=False) for y in jobs[2::3]]
