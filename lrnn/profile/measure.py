"""The profile of a Program: its counts, with bytes and time as the native engine has them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from lrnn.profile.choice import MatrixChoice, explain
from lrnn.profile.count import NodeCost, count
from lrnn.profile.noise import MOST_FRAMES, ValueFormat, loses_most, output_sqnr, value_formats
from lrnn.program.fixed.real import equations
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
        values: formats, ranges and noise of a fixed-point program's values; none of one in float.
        reference: what noise is measured against.
    """

    nodes: list[NodeCost]
    frames: int
    engine: str
    matrices: list[MatrixChoice] = field(default_factory=list)
    values: list[ValueFormat] = field(default_factory=list)
    reference: str = ""

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

    def noise_header(self) -> str:
        """What the noise of the values is measured against."""
        if not self.frames:
            return "ranges and noise: unmeasured, no data"
        return f"noise against {self.reference}; {min(self.frames, MOST_FRAMES):,} frames"

    def noise_notes(self) -> str:
        """How to read the table of a fixed-point program's values; which node loses most."""
        text = (
            "A number is integer x 2^-exponent. accumulator: bits that sums provably fit; a recurrence's\n"
            "product takes 64. used: bits of the largest magnitude seen. saturated: numbers at the limit of\n"
            "their format; what a ReLU drops, or a sigmoid flattens, may be there.\n"
        )
        if not self.frames:
            return text.rstrip()
        text += (
            "SQNR: signal over noise of the value, the noise of all nodes before it included. alone: of the\n"
            "output, where nothing is rounded but this node."
        )
        worst, output = loses_most(self.values), output_sqnr(self.values)
        if worst is None or output is None:
            return text + "\nno noise: the output is exact, or zero."
        return text + (
            f"\nSQNR of the output: {output:.1f} dB. {worst.name} loses most: {worst.alone:.1f} dB alone, "
            f"{100 * 10 ** ((output - worst.alone) / 10):.0f} % of the noise."
        )


def profile(
    program: Program, frames: np.ndarray | None = None, floats: tuple[str, Program] | None = None
) -> Report:
    """Count a program's costs and measure them where that can be done.

    Args:
        program: what to profile.
        frames: (T, input_width) inputs for the activity, and for the noise of one in fixed point; None leaves
            both unmeasured.
        floats: for one in fixed point, a name for the program in float that its noise is measured against,
            and that program; None takes the weights that its own integers stand for.

    Raises:
        ValueError: `floats` is not what `program` was made of; says by name.
    """
    against = None
    reference = "its own integers' weights in float64, so that what rounding weights does is left out"
    if floats is not None:
        name, against = floats
        reference = f"{name} in float64, so that what rounding its weights does is in it"
        try:
            equations(program, against)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    values = value_formats(program, frames, against)
    nodes, matrices = count(program, frames), []
    try:
        nodes, matrices, engine = _with_engine(program, nodes, frames)
    except RuntimeError as error:  # no compiled engine here: counts stand on their own
        engine = f"none, {error}"
    return Report(nodes, 0 if frames is None else len(frames), engine, matrices, values, reference)


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
