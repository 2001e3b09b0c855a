"""The profile of a Program: its counts, with bytes and time as the native engine has them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from lrnn.profile.choice import MatrixChoice, explain
from lrnn.profile.count import NodeCost, count
from lrnn.program.program import Program

_ROUNDS, _REPEATS = 9, 50


@dataclass(frozen=True)
class Report:
    """Costs of a program's nodes.

    Attributes:
        nodes: in execution order.
        frames: frames that the activity was measured on; 0 when it was not.
        engine: what the bytes and times belong to, or why there are none.
        matrices: how the engine stores each matrix, and why; none without the engine.
    """

    nodes: list[NodeCost]
    frames: int
    engine: str
    matrices: list[MatrixChoice] = field(default_factory=list)

    def total(self) -> dict:
        """Sums over the nodes; None where no node was measured."""
        sums: dict = {}
        for name in (
            "parameters",
            "nonzero",
            "macs",
            "macs_weights",
            "macs_effective",
            "bytes",
            "nanoseconds",
        ):
            found = [getattr(n, name) for n in self.nodes if getattr(n, name) is not None]
            sums[name] = sum(found) if found else None
        return {**sums, "density": sums["nonzero"] / sums["parameters"] if sums["parameters"] else None}

    def notes(self) -> str:
        """How to read the table."""
        activity = (
            f"input activity: nonzero inputs, mean of {self.frames} frames"
            if self.frames
            else "no data: activity unmeasured"
        )
        return (
            f"MACs per frame; x weights: nonzero weights only; x activity: nonzero inputs too. {activity}.\n"
            f"bytes and ns per frame: {self.engine}; a fused node's time stands at the last of its nodes."
        )


def profile(program: Program, frames: np.ndarray | None = None) -> Report:
    """Count a program's costs and measure them where that can be done.

    Args:
        program: what to profile.
        frames: (T, input_width) inputs for the activity; None leaves it unmeasured.
    """
    nodes, matrices = count(program, frames), []
    try:
        nodes, matrices, engine = _with_engine(program, nodes, frames)
    except RuntimeError as error:  # no compiled engine here: counts stand on their own
        engine = f"none, {error}"
    return Report(nodes, 0 if frames is None else len(frames), engine, matrices)


def _with_engine(
    program: Program, nodes: list[NodeCost], frames: np.ndarray | None
) -> tuple[list[NodeCost], list[MatrixChoice], str]:
    from lrnn.engine.native import NativeStream

    stream = NativeStream(program)
    if frames is not None:  # times are taken on a state and values that occur
        stream.run(frames[: min(len(frames), 500)])
    rounds = [stream.profile(_REPEATS) for _ in range(_ROUNDS)]
    held = stream.engine.bytes()
    measured = [
        replace(node, bytes=held.get(node.name), nanoseconds=_nanoseconds(node.name, rounds))
        for node in nodes
    ]
    matrices = explain(program, nodes, stream.engine.kernels())
    return measured, matrices, f"native engine, {stream.engine.isa}"


def _nanoseconds(name: str, rounds: list[dict[str, float]]) -> float | None:
    """The least of the rounds: what disturbs one only adds to it. None for a node fused into another."""
    return min(1e9 * seconds.get(name, 0.0) for seconds in rounds) or None
