"""Writing an export for Lava: checks, lowering, golden vectors of the normative executor, and the folder."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np

import lrnn
from lrnn.export.lava.checks import check
from lrnn.export.lava.folder import PROGRAM, SEGMENTS, sha256, write_arrays, written_folder
from lrnn.export.lava.graph import make_graph
from lrnn.export.lava.lowering import lower
from lrnn.export.lava.vectors import generated_frames, golden_vectors
from lrnn.export.netx import write_segments
from lrnn.program import Program

EXECUTOR = Path(__file__).parent / "executor"
EXECUTOR_PACKAGE = "lrnn_lava"


def export(
    program: Program,
    folder: str | os.PathLike,
    frames: np.ndarray | None = None,
    resets: Iterable[int] | None = None,
    source: str | os.PathLike | None = None,
    resources: dict | None = None,
) -> dict:
    """Write a fixed-point program as a folder that Lava can build it from.

    The folder holds program.json (the graph, its balanced delays, exponents, widths, rounding, what was
    proved, where it comes from), weights.npz, vectors.npz (golden integers of every value at every step), a
    copy of the executor's package lrnn_lava, netx_segments (what stock netx can carry of it, see
    lrnn.export.netx) and, where given, resources.json.

    Args:
        program: in fixed point; messages of at most 24 bits, weights of 8.
        folder: to write; it must not exist, be empty, or be an earlier export, which is replaced.
        frames: (T, input_width) for the golden vectors; default: 200 generated ones.
        resets: frames before which the state is set to zero; default: one after three quarters.
        source: the file the program was read from, for its name and hash.
        resources: where it would go on the chip, see lrnn.profile.loihi.placement_report, which refuses what
            no core can hold.

    Returns:
        What program.json holds.

    Raises:
        ValueError: the program cannot be exported; names the node.
        FileExistsError: `folder` is something else.
    """
    graph = make_graph(program)
    proofs = check(graph)
    record, arrays = lower(graph)
    frames = generated_frames(program) if frames is None else np.asarray(frames)
    if frames.ndim != 2 or frames.shape[1] != program.input_width or not len(frames):
        expected = f"(T, {program.input_width}) with T > 0"
        raise ValueError(f"frames has shape {frames.shape}, expected {expected}")
    resets = [len(frames) * 3 // 4] if resets is None else resets
    record["steps"] = len(frames)
    record["source"] = _provenance(program, source)
    record["checks"] = proofs
    with written_folder(folder) as path:
        record["files"] = {
            "weights.npz": write_arrays(path / "weights.npz", arrays),
            "vectors.npz": write_arrays(path / "vectors.npz", golden_vectors(program, frames, resets)),
        }
        if resources is not None:
            source_of = {key: value for key, value in record["source"].items() if key != "meta"}
            _write_json(path / "resources.json", {**resources, "source": source_of})
            record["files"]["resources.json"] = sha256(path / "resources.json")
        segments = path / SEGMENTS
        segments.mkdir()
        write_segments(program, segments)
        package = path / EXECUTOR_PACKAGE
        shutil.copytree(EXECUTOR / EXECUTOR_PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
        _write_json(path / PROGRAM, record)
    return record


def _provenance(program: Program, source: str | os.PathLike | None) -> dict:
    found = {"lrnn": lrnn.__version__, "meta": program.meta}
    if source is not None:
        found |= {"file": Path(source).name, "sha256": sha256(source)}
    return found


def _write_json(path: Path, value: dict) -> None:
    """For people too: what is short, or numbers only, takes one line. No string has a line's end in it."""
    text = json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False)
    path.write_text(re.sub(r"[\[{]\n[^\[\]{}]*[\]}]", _on_one_line, text) + "\n", encoding="utf-8")


def _on_one_line(found: re.Match) -> str:
    line = re.sub(r"\n\s*", " ", found[0])
    return line if len(line) <= 120 or '"' not in line else found[0]
