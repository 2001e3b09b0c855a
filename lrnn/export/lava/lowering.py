"""From a Graph to the two files the executor builds from: the records of program.json, the arrays of
weights.npz.
"""

from __future__ import annotations

import numpy as np

from lrnn.export.lava.graph import Graph, Synapse
from lrnn.export.lava.operations import Arrays, operation

FORMAT, VERSION = "lrnn-lava", 1
STATEMENT = (
    "This is a fixed-point network for Lava's simulator of Loihi 2's arithmetic. Possible with the public "
    "lava-nc alone: build it from program.json and weights.npz (lrnn_lava/), run it on a CPU, and find every "
    "integer of vectors.npz again. Not possible without Intel's private stack (NxSDK, lava-loihi; members of "
    "INRC have it), and so neither done nor claimed here: running on a chip, placement by Intel's compiler, "
    "microcode for the neurons' programs, measured latency, energy or power. Encoding of the input and "
    "decoding of the output belong to the host. Stock netx cannot load such a network as one .net file."
)


def lower(graph: Graph) -> tuple[dict, Arrays]:
    """The graph in program.json's terms, and its arrays by name."""
    arrays: Arrays = {}
    inputs: list[list[Synapse]] = [[] for _ in graph.groups]
    for synapse in graph.synapses:
        inputs[synapse.group].append(synapse)
    record = {
        "format": FORMAT,
        "version": VERSION,
        "statement": STATEMENT,
        "input": _end(graph, graph.input),
        "output": _end(graph, graph.output),
        "latency": graph.latency,
        "groups": [_group(graph, i, inputs[i], arrays) for i in range(len(graph.groups))],
        "synapses": [_synapse(graph, s) | {"port": i} for mine in inputs for i, s in enumerate(mine)],
        "matrices": {s.name: _matrix(s.matrix, arrays) for s in graph.synapses if s.matrix},
        "values": {name: _end(graph, name) for name, form in graph.program.formats.items() if form},
    }
    return record, arrays


def _end(graph: Graph, value: str) -> dict:
    """What the integers of a value mean: integer * 2 ** -exponent."""
    form = graph.program.formats[value]
    return {
        "value": value,
        "width": graph.program.widths[value],
        "exponent": form.exponent,
        "bits": form.bits,
        "low": form.low,
        "high": form.high,
    }


def _group(graph: Graph, index: int, inputs: list[Synapse], arrays: Arrays) -> dict:
    group, program = graph.groups[index], graph.program
    sums = {s.name: i for i, s in enumerate(inputs) if s.matrix}
    values = {s.value: i for i, s in enumerate(inputs) if not s.matrix}
    operations = []
    for node in group.nodes:
        record, tensors = operation(node, tuple(program.formats[name] for name in node.inputs))
        sources = [sums[node.name]] if node.name in sums else [values.get(name, name) for name in node.inputs]
        record |= {"inputs": sources, "width": program.widths[node.name], "arrays": sorted(tensors)}
        arrays |= {f"{node.name}/{field}": value for field, value in tensors.items()}
        operations.append(record)
    return {
        "name": group.name,
        "latency": group.latency,
        "inputs": [{"sums_of" if s.matrix else "value": s.name, "width": _width(graph, s)} for s in inputs],
        "outputs": [{"value": name, "width": program.widths[name]} for name in group.sends],
        "program": operations,
    }


def _width(graph: Graph, synapse: Synapse) -> int:
    return graph.program.widths[synapse.name]


def _synapse(graph: Graph, synapse: Synapse) -> dict:
    group = graph.groups[synapse.group].name
    record = {"name": synapse.name, "value": synapse.value, "group": group, "delay": synapse.delay}
    if synapse.matrix:
        return record | {"kind": "matrix", "matrix": synapse.name}
    return record | {"kind": "identity", "width": _width(graph, synapse)}


def _matrix(node, arrays: Arrays) -> dict:
    """Compressed sparse rows; masked weights are left out."""
    rows, columns = np.nonzero(node.weight)
    counts = np.bincount(rows, minlength=len(node.weight))
    arrays[f"{node.name}/data"] = node.weight[rows, columns].astype(np.int8)
    arrays[f"{node.name}/indices"] = columns.astype(np.int32)
    arrays[f"{node.name}/indptr"] = np.concatenate(([0], np.cumsum(counts))).astype(np.int32)
    return {"shape": list(node.weight.shape), "nonzeros": len(rows)}
