"""Running an export on its golden input, and comparing every integer that it makes."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from lava.proc.io.sink import RingBuffer as Sink
from lava.proc.io.source import RingBuffer as Source

from lrnn_lava.export import Export, Vectors
from lrnn_lava.network import Network

CHUNK = 25  # steps between two reports
NEVER = np.iinfo(np.int64).min  # stands where nothing was recorded


def verify(folder: str | Path, report: Callable[[int, int], None]) -> dict:
    """Compare Lava's integers with the golden ones.

    Args:
        folder: an export.
        report: is told the steps done and to do, now and then.

    Returns:
        equal, steps, values, integers (how many were compared), latency, seconds; where something differs,
        `first`: node, step, index, expected, found.
    """
    export = Export.read(folder)
    vectors = export.vectors()
    begun = time.monotonic()
    found = run(export, vectors, report)
    first = first_difference(export, vectors, found)
    return {
        "equal": first is None,
        "first": first,
        "steps": len(next(iter(vectors.values.values()))),
        "values": len(found),
        "integers": sum(value.size for value in found.values()),
        "latency": export.program["latency"],
        "processes": len(export.program["groups"]) + len(export.program["synapses"]) + 2,
        "seconds": time.monotonic() - begun,
    }


def run(export: Export, vectors: Vectors, report: Callable[[int, int], None]) -> dict[str, np.ndarray]:
    """Every value that groups make, (T, width) by name, and "output": what leaves the network."""
    source = vectors.values[export.program["input"]["value"]]
    steps, latency = len(source), export.program["latency"]
    padded = np.concatenate((source, np.zeros((latency, source.shape[1]), source.dtype)))
    with tempfile.TemporaryDirectory(prefix="lrnn-lava-") as scratch:
        probes = _make_probes(export, steps, Path(scratch))
        network = Network(export, vectors.resets, probes)
        feed = Source(data=padded.T.astype(np.int32))
        for port in network.inputs:
            feed.s_out.connect(port)
        sink = Sink(shape=network.out.shape, buffer=steps + latency)
        network.out.connect(sink.a_in)
        try:
            for done in range(0, steps + latency, CHUNK):
                report(done, steps + latency)
                network.run(min(CHUNK, steps + latency - done))
            report(steps + latency, steps + latency)
            output = sink.data.get()[:, latency:].T.astype(np.int64)
        finally:
            network.stop()
        return {name: np.load(path) for name, path in probes.items()} | {"output": output}


def _make_probes(export: Export, steps: int, folder: Path) -> dict[str, str]:
    """Files for every value to be recorded in."""
    probes = {}
    for group in export.program["groups"]:
        for op in group["program"]:
            path = str(folder / f"{len(probes)}.npy")
            np.save(path, np.full((steps, op["width"]), NEVER))
            probes[op["node"]] = path
    return probes


def first_difference(export: Export, vectors: Vectors, found: dict[str, np.ndarray]) -> dict | None:
    """The first integer that differs: of the earliest step, there of the earliest node."""
    output = export.program["output"]["value"]
    first = None
    for name, value in found.items():
        golden = vectors.values[output if name == "output" else name]
        steps, indices = np.nonzero(value != golden)
        if len(steps) and (first is None or steps[0] < first["step"]):
            step, index = int(steps[0]), int(indices[0])
            first = {
                "node": name,
                "step": step,
                "index": index,
                "expected": int(golden[step, index]),
                "found": int(value[step, index]),
            }
    return first
