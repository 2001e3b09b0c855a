"""`.net` files in stock netx against the integers that they stand for, in a Lava environment of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lrnn.export.netx.file import read_net
from lrnn.export.netx.manifest import read_manifest
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


def verify_segments(
    folder: str | os.PathLike,
    values: Mapping[str, np.ndarray],
    python: str | os.PathLike,
    timeout: float = TIMEOUT,
) -> int:
    """Run every segment of a folder in stock netx on integers of the program that it was made of.

    Args:
        folder: as `write_segments` wrote it.
        values: the program's integers by the names of its values, (T, width) each.
        python: see `verify_nets`.
        timeout: in seconds.

    Returns:
        How many integers were compared, with dense and with sparse synapses.

    Raises:
        RuntimeError: netx, or the file itself, makes other integers than the program: the first is named.
        ValueError: no manifest, or a file that does not fit; FileNotFoundError: no such folder.
    """
    segments = read_manifest(folder)["segments"]
    if not segments:
        return 0
    cases = [(Path(folder, s["file"]), values[s["source"]]) for s in segments]
    made = verify_nets(cases, python, timeout)
    for (path, _), segment, y in zip(cases, segments, made, strict=True):
        _check_equal(f"{path} beside the program", y, values[segment["value"]])
    return 2 * sum(y.size for y in made)


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
        run = _start(command, folder)
        try:
            out, errors = run.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"netx took longer than {timeout:g} s") from None
        finally:
            _end(run)
        if run.returncode:
            lines = (errors or out).strip().splitlines() or ["no message"]
            raise RuntimeError(f"netx failed: {lines[-1]}")
        return [np.load(Path(folder, y), allow_pickle=False) for y in jobs[2::3]]


def _start(command: list[str], folder: str) -> subprocess.Popen:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    try:
        return subprocess.Popen(command, cwd=folder, start_new_session=True, **pipes)
    except (FileNotFoundError, PermissionError):
        raise FileNotFoundError(f"{command[0]}: no such interpreter, expected a Lava environment's") from None


def _end(run: subprocess.Popen) -> None:
    """Lava has a process for each of its Processes: none is left behind."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(run.pid, signal.SIGKILL)
    run.wait()
