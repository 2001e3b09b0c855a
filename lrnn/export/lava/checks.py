"""What must hold before a network is written: proofs for Lava's simulator, and what the chip's widths allow.

Lava's simulator checks no overflow: int32 wraps in silence. So each sum is bounded here by its worst case.
On the chip sums have 24 bits. A scheme with narrow messages ("loihi2") is proved to fit; of another one the
rows are listed whose worst case does not, so that only the ranges seen in calibration speak for them.
"""

from __future__ import annotations

import numpy as np

from lrnn.export.lava.graph import Graph
from lrnn.export.netx.stack import CORE_SUM_BITS, MESSAGE_BITS, MOST_WEIGHT, SUM_BITS

MOST_INPUTS, MOST_OUTPUTS = 8, 4  # ports that a Process of the executor has
DOUBLED = 2  # Lava stores weights of both signs doubled


def check(graph: Graph) -> dict:
    """What is proved, by node: of matrices the worst case of a sum, of others the widest integer inside.

    Returns:
        {"sums": {node: {worst_case, bits, rows_beyond_24_bits}}, "inside": {node: bits}}

    Raises:
        ValueError: a weight, a message or a sum does not fit, or a group has too many ports; names the node.
    """
    program = graph.program
    for value in {s.value for s in graph.synapses} | {graph.output}:
        if program.formats[value].bits > MESSAGE_BITS:
            bits = program.formats[value].bits
            raise ValueError(f"node {value!r}: it sends {bits} bits, expected at most {MESSAGE_BITS}")
    for i, group in enumerate(graph.groups):
        for verb, count, most in (
            ("reads", sum(s.group == i for s in graph.synapses), MOST_INPUTS),
            ("sends", len(group.sends), MOST_OUTPUTS),
        ):
            if count > most:
                raise group.nodes[-1].error(f"its group {verb} {count} values, expected at most {most}")
    sums = {s.name: _check_matrix(s.matrix, program.formats[s.value]) for s in graph.synapses if s.matrix}
    inside = {}
    for group in graph.groups:
        for node in group.nodes:
            if hasattr(node, "widest") and node.name not in sums:
                widest = node.widest(tuple(program.formats[name] for name in node.inputs))
                inside[node.name] = widest.bit_length() + 1
    return {"sums": sums, "inside": inside}


def _check_matrix(node, x) -> dict:
    weights = np.abs(node.weight.astype(np.int64))
    if weights.max(initial=0) > MOST_WEIGHT:
        raise node.error(
            f"a weight has magnitude {weights.max()}, expected at most {MOST_WEIGHT}: synapses hold 8 bits"
        )
    simulated = weights.sum(1) * x.magnitude * DOUBLED
    if simulated.max(initial=0) >= 1 << (SUM_BITS - 1):
        raise node.error(
            f"the sum of row {simulated.argmax()} could reach {simulated.max()} in Lava's simulator, which "
            f"doubles weights; expected less than 2 ** {SUM_BITS - 1}"
        )
    bounds = np.array(node.bounds(x), np.int64)
    beyond = np.flatnonzero(bounds >= 1 << (CORE_SUM_BITS - 1))
    worst = int(bounds.max(initial=0))
    return {
        "worst_case": worst,
        "bits": worst.bit_length() + 1,
        f"rows_beyond_{CORE_SUM_BITS}_bits": beyond.tolist(),
    }
