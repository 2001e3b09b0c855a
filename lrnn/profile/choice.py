"""Why each matrix of a Program is stored as it is: what every format should cost, and what it takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lrnn.engine.packed import PackedMatrix
from lrnn.profile.count import MATRICES, NodeCost
from lrnn.program import nodes as op
from lrnn.program.fixed import nodes as fixed
from lrnn.program.fixed.format import Format
from lrnn.program.program import Program


@dataclass(frozen=True)
class MatrixChoice:
    """One matrix and its candidates. Cycles are those of the cost model, of a Zen 4, for one product.

    Integers that the packed kernels do not take (weights of more than 8 bits, inputs of more than 16) run in
    compressed rows: there is no choice, and what would be expected is None.

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
    dense_cycles: float | None
    sparse_cycles: float | None
    event_cycles: float | None
    dense_bytes: int | None
    sparse_bytes: int | None
    event_bytes: int | None
    why: str


def explain(program: Program, counts: list[NodeCost], kernels: Mapping[str, str]) -> list[MatrixChoice]:
    """The choice for every matrix, in execution order.

    Args:
        program: whose matrices are explained.
        counts: of its nodes; where they were measured on data, event-driven products are judged too.
        kernels: what the engine runs, by node name (`NativeEngine.kernels`).

    Raises:
        RuntimeError: the core is not built here.
    """
    measured = {cost.name: cost.macs_effective for cost in counts}
    return [
        _explain(node, program.formats[node.inputs[0]], measured[node.name], kernels[node.name])
        for node in program.nodes
        if isinstance(node, MATRICES) and node.name in kernels
    ]


def _explain(
    node: op.Linear | fixed.Linear, x: Format | None, effective: float | None, kernel: str
) -> MatrixChoice:
    precision, why = _precision(node, x)
    rows, cols = node.weight.shape
    density = np.count_nonzero(node.weight) / max(node.weight.size, 1)
    if precision is None:
        return MatrixChoice(node.name, rows, cols, density, kernel, None, None, None, None, None, None, why)
    weight = np.ascontiguousarray(node.weight, np.float32 if precision == "float32" else np.int8)
    packed = {format: PackedMatrix(weight, precision, format) for format in ("dense", "sparse", "event")}
    costs = packed["dense"].costs
    event = None if effective is None else costs["event"] * effective
    return MatrixChoice(
        name=node.name,
        rows=rows,
        cols=cols,
        density=density,
        kernel=kernel,
        dense_cycles=costs["dense"],
        sparse_cycles=costs["sparse"],
        event_cycles=event,
        **{f"{format}_bytes": matrix.nbytes for format, matrix in packed.items()},
        why=_why(kernel, costs["dense"], costs["sparse"], event) if density else "no weight is left",
    )


def _precision(node: op.Linear | fixed.Linear, x: Format | None) -> tuple[str | None, str]:
    """What the engine's packed kernels call such a product, or None and why they do not take it."""
    if x is None:
        return "float32", ""
    largest = int(np.abs(node.weight.astype(np.int64)).max(initial=0))
    if largest > 127:
        return None, f"weights up to {largest}, above 8 bits: compressed rows"
    if x.magnitude > 32767:
        return None, f"inputs of {x.bits} bits, above 16: compressed rows"
    return ("w8a8" if x.magnitude <= 127 else "w8a16"), ""


def _why(kernel: str, dense: float, sparse: float, event: float | None) -> str:
    mine, other, name = (dense, sparse, "sparse") if kernel == "dense" else (sparse, dense, "dense")
    if mine <= other:
        text = f"{other / max(mine, 1e-9):.1f}x faster than {name}"
    else:
        text = f"{mine / max(other, 1e-9):.1f}x slower than {name}: was forced"
    if event is not None and max(event, 1) < min(mine, other):
        text += f"; skipping zero inputs would be {min(mine, other) / max(event, 1):.1f}x faster still"
    return text
