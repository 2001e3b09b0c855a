"""Why each matrix of a Program is stored as it is: what every format should cost, and what it takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lrnn.engine.packed import PackedMatrix
from lrnn.profile.count import NodeCost
from lrnn.program import nodes as op
from lrnn.program.program import Program


@dataclass(frozen=True)
class MatrixChoice:
    """One matrix and its candidates. Cycles are those of the cost model, of a Zen 4, for one product.

    Attributes:
        name: of the node; its weight is (rows, cols), of which `density` is not zero.
        kernel: what the native engine runs: "dense", "windows" or "csr".
        dense_cycles, sparse_cycles: expected of the two formats the engine chooses from.
        event_cycles: expected of the format that skips zero inputs, on the measured ones; None unmeasured.
        dense_bytes, sparse_bytes, event_bytes: what a product reads of each.
        why: one line for people.
    """

    name: str
    rows: int
    cols: int
    density: float
    kernel: str
    dense_cycles: float
    sparse_cycles: float
    event_cycles: float | None
    dense_bytes: int
    sparse_bytes: int
    event_bytes: int
    why: str


def explain(program: Program, counts: list[NodeCost], kernels: Mapping[str, str]) -> list[MatrixChoice]:
    """The choice for every matrix, in execution order.

    Args:
        program: whose float32 matrices are explained.
        counts: of its nodes; where they were measured on data, event-driven products are judged too.
        kernels: what the engine runs, by node name (`NativeEngine.kernels`).

    Raises:
        RuntimeError: the core is not built here.
    """
    measured = {cost.name: cost.macs_effective for cost in counts}
    return [
        _explain(node, measured[node.name], kernels[node.name])
        for node in program.nodes
        if isinstance(node, op.Linear) and node.name in kernels
    ]


def _explain(node: op.Linear, effective: float | None, kernel: str) -> MatrixChoice:
    weight = np.ascontiguousarray(node.weight, np.float32)
    packed = {format: PackedMatrix(weight, format=format) for format in ("dense", "sparse", "event")}
    costs = packed["dense"].costs
    event = None if effective is None else costs["event"] * effective
    return MatrixChoice(
        name=node.name,
        rows=weight.shape[0],
        cols=weight.shape[1],
        density=np.count_nonzero(weight) / max(weight.size, 1),
        kernel=kernel,
        dense_cycles=costs["dense"],
        sparse_cycles=costs["sparse"],
        event_cycles=event,
        **{f"{format}_bytes": matrix.nbytes for format, matrix in packed.items()},
        why=_why(kernel, costs["dense"], costs["sparse"], event),
    )


def _why(kernel: str, dense: float, sparse: float, event: float | None) -> str:
    mine, other, name = (dense, sparse, "sparse") if kernel == "dense" else (sparse, dense, "dense")
    if mine <= other:
        text = f"{other / max(mine, 1e-9):.1f}x faster than {name}"
    else:
        text = f"{mine / max(other, 1e-9):.1f}x slower than {name}: was forced"
    if event is not None and event < min(mine, other):
        text += f"; skipping zero inputs would be {min(mine, other) / max(event, 1e-9):.1f}x faster still"
    return text
