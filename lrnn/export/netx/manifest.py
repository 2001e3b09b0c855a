"""Every segment of a program that netx can carry as a `.net` file, and a manifest of what is left out."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np

from lrnn.export.netx.file import describe, write_net
from lrnn.export.netx.segments import Segments, find_segments
from lrnn.export.netx.stack import CORE_SUM_BITS, SUM_BITS, Stack
from lrnn.files import written_whole
from lrnn.program import Program

MANIFEST = "manifest.json"
FORMAT, VERSION = "lrnn-netx-segments", 1


def write_segments(program: Program, folder: str | os.PathLike) -> dict:
    """Write `segment-0.net` and so on, and `manifest.json`, each whole or not at all.

    Args:
        program: in fixed point. One of which netx can carry nothing gets a manifest that says why.
        folder: an existing one.

    Returns:
        What the manifest holds: "segments", each with its file, nodes, formats, shapes and lag; "left_out",
        each with node, op and why; "whole", whether one segment is all but the ends where floats go in and
        out.

    Raises:
        ValueError: the program is in float; FileNotFoundError: no such folder.
    """
    found = find_segments(program)
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    names = [f"segment-{number}.net" for number in range(len(found.stacks))]
    for name, stack in zip(names, found.stacks, strict=True):
        write_net(stack, folder / name)
    manifest = make_manifest(program, found, names)
    with written_whole(folder / MANIFEST) as path:
        path.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    return manifest


def read_manifest(folder: str | os.PathLike) -> dict:
    """What `write_segments` wrote.

    Raises:
        FileNotFoundError, or ValueError that names the file and what was found in it.
    """
    path = Path(folder) / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error})") from None
    found = (manifest.get("format"), manifest.get("version")) if isinstance(manifest, dict) else None
    if found != (FORMAT, VERSION):
        raise ValueError(f"{path}: found format and version {found}, expected {(FORMAT, VERSION)}")
    return manifest


def make_manifest(program: Program, found: Segments, files: list[str]) -> dict:
    """See `write_segments`."""
    ops = {node.name: node.op for node in program.nodes}
    return {
        "format": FORMAT,
        "version": VERSION,
        "target": "lava-dl 0.6.0 netx on lava-nc 0.10.0, CPU simulator; not tried on a chip",
        "whole": found.obstacle(program) is None,
        "segments": [
            {
                "file": file,
                "carries": [name for name, n in found.carried.items() if n == number],
                **describe(stack),
                "layers": [dict(row) for row in layer_rows(stack)],
            }
            for number, (file, stack) in enumerate(zip(files, found.stacks, strict=True))
        ],
        "left_out": [
            {"node": node.name, "op": ops[node.name], "why": found.left_out[node.name]}
            for node in program.nodes
            if node.name in found.left_out
        ],
    }


def layer_rows(stack: Stack) -> list[dict]:
    """Of each layer its shape, its weights that are not zero, the bits that its sums may take whatever goes
    in, and how many of its rows could pass the 24 bits of a dendrite on the chip.
    """
    rows = []
    for layer, bounds in stack.bounded():
        least, greatest = bounds.sums(layer.weight, layer.bias)
        reach = np.maximum(np.maximum(greatest, -least), bounds.widest(layer.weight))
        synaptic = np.abs(layer.weight.astype(np.int64)) @ (bounds.high - bounds.low)
        on_core = np.maximum(synaptic, np.maximum(greatest, -least))
        rows.append(
            {
                "node": layer.node,
                "shape": list(layer.weight.shape),
                "nonzeros": int(np.count_nonzero(layer.weight)),
                "sum_bits": int(reach.max()).bit_length() + 1,
                "sum_bits_allowed": SUM_BITS,
                "rows_beyond_core": int((on_core >= 1 << (CORE_SUM_BITS - 1)).sum()),
            }
        )
    return rows
