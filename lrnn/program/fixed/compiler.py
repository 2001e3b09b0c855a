"""From a Program in float to one in fixed point."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from lrnn.program import nodes as op
from lrnn.program.dead import drop_dead
from lrnn.program.fixed.lowering import Lowering
from lrnn.program.fixed.rules import RULES
from lrnn.program.fold import fold_affine
from lrnn.program.program import Program, tensors
from lrnn.quant import Ranges, Scheme, get_scheme


def compile_fixed(program: Program, ranges: Ranges, scheme: str | Scheme = "w8a16") -> Program:
    """A program in fixed point that does what a program in float does: the same values by the same names.

    Its frames go in and out as floats, so that it takes the place of the other anywhere; in between there are
    integers only. Nothing in it depends on the data that run through it: exponents are static.

    A classifier ends at its logits, and `meta["output"]` says so: log-softmax has no integer form.

    Args:
        program: in float, as `lrnn.compile` makes it.
        ranges: of its values, see `calibrate`.
        scheme: a name of lrnn.quant.SCHEMES, or a Scheme.

    Raises:
        ValueError: a node has no integer form, a range is missing or that of the input is zero, a state does
            not decay, or a sum could overflow the accumulators of the scheme; the message names the node.
    """
    scheme = get_scheme(scheme)
    if scheme.float_weights is not None:
        raise ValueError(f"scheme {scheme.name!r} runs in float, expected one of integers")
    if program.is_fixed:
        raise ValueError("program is in fixed point already, expected one in float")
    meta, folded = _meta(program, ranges, scheme), simplified(program)
    if folded.output != program.output:
        meta["output"] = "logits"
    try:
        return Lowering(folded, ranges, scheme).run(RULES, meta)
    except KeyError as error:
        raise ValueError(f"ranges: {error.args[0]}") from None


def simplified(program: Program) -> Program:
    """The program in float as it is lowered: affine maps folded, without dead states and units, without nodes
    that the output does not need and without a last log-softmax.
    """
    output = program.output
    for last in program.nodes:
        if last.name == output and isinstance(last, op.LogSoftmax):
            output = last.inputs[0]
    nodes = _needed(fold_affine(program.nodes, output), output)
    nodes = drop_dead(program.input, program.input_width, nodes, output)
    return Program(program.input, program.input_width, tuple(map(_float32, nodes)), output)


def _needed(nodes: list[op.Node], output: str) -> list[op.Node]:
    """The nodes that the output depends on."""
    needed, kept = {output}, []
    for node in reversed(nodes):
        if node.name in needed:
            kept.append(node)
            needed.update(node.inputs)
    return kept[::-1]


def _float32(node: op.Node) -> op.Node:
    return replace(node, **{name: value.astype(np.float32) for name, value in tensors(node).items()})


def _meta(program: Program, ranges: Ranges, scheme: Scheme) -> dict:
    calibration = {"observer": ranges.observer, "clips": ranges.clips}
    return {**program.meta, "scheme": scheme.to_json(), "calibration": calibration}
