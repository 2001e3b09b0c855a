"""Pieces of work by several processes: in order, whatever their number, and whoever dies."""

from __future__ import annotations

import multiprocessing
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from worker_jobs import Squares

from lrnn.data.workers import in_order


@pytest.mark.parametrize("processes", [0, 3])
def test_results_are_in_order_and_made_on_one_thread(processes):
    before = torch.get_num_threads()
    found = list(in_order(Squares(), range(2, 9), processes))
    assert found == [(i * i, 1) for i in range(2, 9)]
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("processes", [0, 2])
def test_no_work(processes):
    assert list(in_order(Squares(), range(4, 4), processes)) == []


def test_a_crash_costs_its_piece_only():
    """A worker's first piece and another's last."""
    found = list(in_order(Squares(crash_at=(0, 5)), range(6), 2))
    reason = "the process died of signal SIGSEGV"
    assert found == [(0, reason), (1, 1), (4, 1), (9, 1), (16, 1), (5, reason)]


@pytest.mark.parametrize(("job", "status"), [(Squares(raise_at=1), "1"), (Squares(killed_at=1), "-9")])
def test_what_is_not_the_piece_s_fault_ends_the_run(job, status, capfd):
    with pytest.raises(RuntimeError, match=f"status {status} at piece 1"):
        list(in_order(job, range(4), 1))
    assert ("ZeroDivisionError: a bug" in capfd.readouterr().err) == (status == "1")


def test_stopping_early_ends_the_workers():
    running = in_order(Squares(seconds=0.01), range(10_000), 1)
    assert next(running) == (0, 1)
    (worker,) = multiprocessing.active_children()
    running.close()
    assert not worker.is_alive()


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="looks for processes in /proc")
def test_a_killed_parent_leaves_no_worker_behind(tmp_path):
    code = (
        "from worker_jobs import Squares; from lrnn.data.workers import in_order\n"
        "for _ in in_order(Squares(seconds=0.05), range(10_000), 2): print('.', flush=True)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parent, stdout=subprocess.PIPE)
    for _ in range(3):
        parent.stdout.readline()
    workers = _children(parent.pid)
    assert len(workers) >= 2
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 60
    while any(_alive(pid) for pid in workers):
        assert time.monotonic() < deadline, "a worker outlived its parent"
        time.sleep(0.05)


def _children(pid: int) -> set[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return {int(child) for task in tasks for child in task.read_text().split()}


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False
