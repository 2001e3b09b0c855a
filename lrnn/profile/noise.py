"""The integers of a fixed-point Program on data: how much of their range they use, where they saturate, and
how much noise each node adds.

Noise is measured against the same equations on real numbers (lrnn.program.fixed.real), in two ways:

    SQNR    of a value: its mean square, over the mean square of what its integers differ from it. All nodes
            before it have added to that difference.
    alone   of a node: its own error is what its integers differ from its equation of the very integers that
            it read. That error is added to its value where all else is exact, and carried to the output; the
            output's mean square over that of what it then differs. The smallest names the node that loses
            most.

A SQNR may be low where nothing is lost: what a ReLU is going to drop may saturate, and a value that the
output hardly depends on may be coarse. `alone` counts what reaches the output; errors of several nodes add up
to about the SQNR of the output, as powers, where they are small and have nothing to do with each other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lrnn.profile.count import traced
from lrnn.program import nodes as op
from lrnn.program.fixed import nodes as fixed
from lrnn.program.fixed.base import Rounded
from lrnn.program.fixed.real import Equation, equations
from lrnn.program.program import Program
from lrnn.quant import largest_integer

MOST_FRAMES = 2000
"""Frames that noise is measured on: a run of the network for each node that adds some."""


@dataclass(frozen=True)
class ValueFormat:
    """The integers that one node makes; what data have to tell is None unmeasured.

    Attributes:
        name: of the node; its value is `integer * 2 ** -exponent`.
        bits: width of the integers, with the sign.
        exponent: see above.
        accumulator_bits: 32 or 64, what its sums provably fit; None where it sums nothing.
        bits_used: width that the greatest magnitude seen takes, with the sign.
        range_used: that magnitude over the greatest of the format.
        saturated: numbers seen at the limit of the format; None also where a node passes on what it reads, or
            is a table. What a recurrence holds saturates above what its value does, so it is seen in that.
        saturated_share: over all numbers seen.
        sqnr: in dB, see this file's head; None also where there is no noise or no signal.
        alone: in dB, in the same way; None also for a node that adds no noise.
    """

    name: str
    bits: int
    exponent: int
    accumulator_bits: int | None
    bits_used: int | None = None
    range_used: float | None = None
    saturated: int | None = None
    saturated_share: float | None = None
    sqnr: float | None = None
    alone: float | None = None


def value_formats(
    program: Program, frames: np.ndarray | None = None, floats: Program | None = None
) -> list[ValueFormat]:
    """Of every integer value of a program in fixed point, in execution order; none of one in float.

    Args:
        program: in fixed point.
        frames: (T, input_width) inputs, from a state of zeros; None leaves all that is measured None. Noise
            is measured on the first 2000 of them.
        floats: the program in float that noise is measured against; None takes this program's own weights, as
            its integers have them, so that what rounding the weights does is left out.

    Raises:
        ValueError: `floats` is not the program that was quantized.
    """
    if not program.is_fixed:
        return []
    noise = _Noise(program, equations(program, floats)) if frames is not None else None
    seen = {} if frames is None else _seen(program, frames)
    levels = {} if noise is None else noise.measure(frames[:MOST_FRAMES])
    return [
        ValueFormat(
            node.name,
            program.formats[node.name].bits,
            program.formats[node.name].exponent,
            _accumulator_bits(program, node),
            **seen.get(node.name, {}),
            **levels.get(node.name, {}),
        )
        for node in program.nodes
        if program.formats[node.name] is not None
    ]


def output_sqnr(values: list[ValueFormat]) -> float | None:
    """Of the program's output, in dB: the last integer value, which leaves the program as it is."""
    return values[-1].sqnr if values else None


def loses_most(values: list[ValueFormat]) -> ValueFormat | None:
    """The node whose own error does most to the output; None where nothing was measured or nothing lost."""
    return min((v for v in values if v.alone is not None), key=lambda v: v.alone, default=None)


def _accumulator_bits(program: Program, node: op.Node) -> int | None:
    if not isinstance(node, Rounded) or isinstance(node, fixed.Quantize):
        return None
    return node.accumulator_bits(tuple(program.formats[name] for name in node.inputs))


def _seen(program: Program, frames: np.ndarray) -> dict[str, dict]:
    """Ranges and saturation by the name of the node."""
    largest, limited, count = {}, {}, {}
    for values in traced(program, frames):
        for name, form in program.formats.items():
            if form is None:
                continue
            magnitudes = values[name].abs()
            largest[name] = max(largest.get(name, 0), int(magnitudes.max()))
            at_limit = int((magnitudes == largest_integer(form.bits)).sum())
            limited[name] = limited.get(name, 0) + at_limit
            count[name] = count.get(name, 0) + magnitudes.numel()
    found = {
        name: {
            "bits_used": most.bit_length() + 1,
            "range_used": most / largest_integer(program.formats[name].bits),
        }
        for name, most in largest.items()
    }
    for node in program.nodes:
        if isinstance(node, Rounded):
            name = node.name
            found[name] |= {"saturated": limited[name], "saturated_share": limited[name] / count[name]}
    return found


class _Noise:
    """Levels of signals and errors.

    Args:
        program: in fixed point.
        computes: of each node, on real numbers.
    """

    def __init__(self, program: Program, computes: dict[str, Equation]):
        self.program, self.computes = program, computes

    def measure(self, frames: np.ndarray) -> dict[str, dict]:
        """`sqnr` and `alone` by the name of the node."""
        with torch.inference_mode():
            pieces = list(traced(self.program, frames))
            found = {name: self._real(name, [piece[name] for piece in pieces]) for name in pieces[0]}
            exact = {self.program.input: found[self.program.input]}
            for node in self.program.nodes:
                exact[node.name] = self.computes[node.name](*(exact[name] for name in node.inputs))
            return {
                node.name: {
                    "sqnr": _decibels(exact[node.name], found[node.name]),
                    "alone": self._alone(place, node, found, exact),
                }
                for place, node in enumerate(self.program.nodes)
            }

    def _real(self, name: str, pieces: list[Tensor]) -> Tensor:
        """What integers (B, T, width) stand for, in float64."""
        form = self.program.formats[name]
        return torch.cat(pieces, 1).double() * (1.0 if form is None else 2.0**-form.exponent)

    def _alone(
        self, place: int, node: op.Node, found: dict[str, Tensor], exact: dict[str, Tensor]
    ) -> float | None:
        error = found[node.name] - self.computes[node.name](*(found[name] for name in node.inputs))
        if not error.any():
            return None
        changed = {node.name: exact[node.name] + error}
        for reader in self.program.nodes[place + 1 :]:
            if not changed.keys().isdisjoint(reader.inputs):
                inputs = [changed.get(name, exact[name]) for name in reader.inputs]
                changed[reader.name] = self.computes[reader.name](*inputs)
        output = self.program.output
        return _decibels(exact[output], changed[output])


def _decibels(exact: Tensor, found: Tensor) -> float | None:
    """10 log10 of signal over noise; None where one of them is zero."""
    signal, noise = exact.square().mean().item(), (found - exact).square().mean().item()
    return 10 * math.log10(signal / noise) if signal > 0 and noise > 0 else None
