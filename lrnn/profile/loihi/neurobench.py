"""NeuroBench's figures, by its names and definitions, for a Program.

The neurobench package sees torch's own linear, convolution and recurrent layers, and of activations ReLU and
sigmoid: a scan, a diagonal recurrence or a complex matrix would count nothing there. These are counted from
the Program's nodes; on what its hooks do see the two agree (tests/test_loihi_neurobench.py).
"""

from __future__ import annotations

import numpy as np

from lrnn.profile.count import MATRICES, Seen, observe
from lrnn.program.program import Program, tensors

ACTIVATIONS = ("relu", "pair_relu", "sigmoid", "silu", "gelu", "table")
"""Nodes whose zeros are counted, in float and, after `fixed_`, in integers."""


def neurobench_metrics(program: Program, frames: np.ndarray | None = None) -> dict:
    """Footprint, sparsities and operations of a frame.

    Args:
        program: what is counted.
        frames: (T, input_width) inputs, in order; without them what depends on data is None.

    Returns:
        footprint: bytes of all tensors, zeros and all. connection_sparsity: fraction of the entries of all
        matrices that are zero. activation_sparsity: fraction of the activations' outputs that are zero.
        synaptic_operations: Dense of every entry and input; Effective_MACs and Effective_ACs of those that
        are not zero; they are accumulates where all inputs of a matrix are 0, 1 or -1.
    """
    seen = None if frames is None else observe(program, frames)
    matrices = [node for node in program.nodes if isinstance(node, MATRICES)]
    entries = sum(node.weight.size for node in matrices)
    zeros = entries - sum(int(np.count_nonzero(node.weight)) for node in matrices)
    return {
        "footprint": sum(t.nbytes for node in program.nodes for t in tensors(node).values()),
        "connection_sparsity": zeros / entries if entries else 0.0,
        "activation_sparsity": None if seen is None else _activation_sparsity(program, seen),
        "synaptic_operations": {
            "Effective_MACs": None if seen is None else _effective(matrices, seen, binary=False),
            "Effective_ACs": None if seen is None else _effective(matrices, seen, binary=True),
            "Dense": entries,
        },
    }


def _activation_sparsity(program: Program, seen: dict[str, Seen]) -> float:
    made = [seen[n.name] for n in program.nodes if n.op.removeprefix("fixed_") in ACTIVATIONS]
    total = sum(s.frames * s.nonzero.size for s in made)
    return (total - sum(int(s.nonzero.sum()) for s in made)) / total if total else 0.0


def _effective(matrices: list, seen: dict[str, Seen], binary: bool) -> float:
    """Nonzero weights on nonzero inputs, of the matrices that read binary values, or of the others."""
    total = 0.0
    for node in matrices:
        read = seen[node.inputs[0]]
        if read.binary == binary:
            total += float(read.rates @ np.count_nonzero(node.weight, axis=0))
    return total
