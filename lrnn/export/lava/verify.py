"""An export run on Lava's simulator, in an environment of its own and under a time limit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from lrnn.export.lava.environment import VARIABLE, find_lava
from lrnn.export.lava.folder import read_record
from lrnn.export.lava.write import EXECUTOR, EXECUTOR_PACKAGE

LIMIT = 600.0  # seconds
GRACE = 1.0  # seconds for processes to end by themselves

Show = Callable[[Iterable[int], int], Iterable[int]]


def verify(folder: str | os.PathLike, limit: float = LIMIT, show: Show = lambda steps, total: steps) -> dict:
    """Run an export in Lava and compare every value at every step with its golden vectors.

    Args:
        folder: what `export` wrote.
        limit: seconds after which the run is ended.
        show: passes the steps through as they are made, and is told how many they will be.

    Returns:
        `equal`, `steps`, `values`, `integers` (how many were compared), `latency` in steps, `processes`,
        `seconds`, and `first`: None, or the first difference as node, step, index, expected, found.

    Raises:
        FileNotFoundError: there is no environment with Lava, or no export.
        ValueError: the folder is damaged; names the file.
        TimeoutError: the limit was reached.
        RuntimeError: Lava failed; with the last line that it printed.
    """
    python = require_lava()
    record = read_record(folder)
    total = record["steps"] + record["latency"]
    reports, done = [], 0
    with tempfile.TemporaryDirectory(prefix="lrnn-lava-") as scratch, tempfile.TemporaryFile("w+") as errors:
        run = _start(python, folder, scratch, errors)
        late = threading.Event()
        timer = threading.Timer(limit, lambda: (late.set(), _end(run)))
        timer.start()
        try:
            for _ in show(_steps(run, reports), total):
                done += 1
        finally:
            timer.cancel()
            _end(run)
        if late.is_set():
            raise TimeoutError(f"{folder}: not verified in {limit:g} s, ended at step {done} of {total}")
        if not reports or "equal" not in reports[-1]:
            errors.seek(0)
            text = [line for line in errors.read().splitlines() if line.strip()] or ["no message"]
            raise RuntimeError(f"{folder}: Lava failed: {text[-1]}")
    return reports[-1]


def require_lava() -> Path:
    """The Python of the environment with Lava; FileNotFoundError says how to get one."""
    python = find_lava()
    if python is None:
        raise FileNotFoundError(
            "no environment with Lava found: build it with `make lava` in a checkout or "
            f"`python -m lrnn.export.lava.environment` elsewhere, or name its Python in {VARIABLE}"
        )
    return python


def _start(python: Path, folder: str | os.PathLike, scratch: str, errors) -> subprocess.Popen:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    own = {
        "PYTHONPATH": str(EXECUTOR),
        "PYTHONDONTWRITEBYTECODE": "1",
        "TMPDIR": scratch,
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
    return subprocess.Popen(
        [python, "-m", EXECUTOR_PACKAGE, Path(folder).resolve()],
        env=kept | own,
        cwd=scratch,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        start_new_session=True,  # Lava makes a process for each of its Processes: they end together
    )


def _steps(run: subprocess.Popen, reports: list[dict]) -> Iterator[int]:
    """The steps as they are made; what was reported is appended."""
    done = 0
    for line in run.stdout:
        try:
            report = json.loads(line)
        except ValueError:
            continue
        if isinstance(report, dict):  # Lava prints, too
            reports.append(report)
            yield from range(done, report.get("done", done))
            done = report.get("done", done)


def _end(run: subprocess.Popen) -> None:
    """End all processes of a run; those of a finished one are gone.

    Terminated first: the one that keeps account of shared memory ignores that, and frees it before it ends.
    """
    with suppress(ProcessLookupError):
        os.killpg(run.pid, signal.SIGTERM)
        until = time.monotonic() + GRACE
        while time.monotonic() < until:
            run.poll()
            os.killpg(run.pid, 0)  # ProcessLookupError once they are gone
            time.sleep(0.02)
    with suppress(ProcessLookupError):
        os.killpg(run.pid, signal.SIGKILL)
    run.wait()
