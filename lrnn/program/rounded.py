"""A float program that rounds as fixed point would: what a scheme costs, without its integers.

Any executor runs it. Weights lie on their grids and Round nodes stand behind the values of few bits; wide
sums and states stay float32, and nothing saturates. It is also how weights in FP8 run.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from lrnn.program import nodes as op
from lrnn.program.calibrate import gates, messages
from lrnn.program.fixed.weights import matrix_bits
from lrnn.program.program import Program
from lrnn.quant import Ranges, Scheme, get_scheme
from lrnn.quant.exponent import MOST_GATE_EXPONENT, decay_to_grid, rotation_to_grid
from lrnn.quant.fake import Grid
from lrnn.quant.tap import message_exponent

_PASSING = (op.Relu, op.PairRelu, op.Add, op.Diagonal, op.Round, op.LogSoftmax)
"""Readers that do not need a value to be rounded; past a ReLU it is rounded there."""


def rounded(program: Program, scheme: str | Scheme, ranges: Ranges | None = None) -> Program:
    """The program with rounded weights and, where ranges are given, rounded activations.

    Args:
        program: in float.
        scheme: a name of lrnn.quant.SCHEMES, or a Scheme. One of float weights leaves the rest alone.
        ranges: of its values, see `lrnn.calibrate`; None leaves activations in float.

    Raises:
        ValueError: a range is zero; KeyError: one is missing.
    """
    scheme = get_scheme(scheme)
    readers = {name: [n for n in program.nodes if name in n.inputs] for name in program.widths}
    nodes = [_with_rounded_weights(program, node, scheme) for node in program.nodes]
    if ranges is None or scheme.float_weights:
        return replace(program, nodes=tuple(nodes))
    exponents = {}
    makers, opens = {node.name: node for node in program.nodes}, gates(program)
    for name in _narrow(program, readers):
        exponents[name] = message_exponent(
            ranges[name],
            scheme.gate_bits if name in opens else scheme.activation_bits,
            made_by_sigmoid=isinstance(makers.get(name), op.Sigmoid),
            read_by_sigmoid=all(isinstance(n, op.Sigmoid) for n in readers[name]),
            name=name,
        )
        if name in opens:
            exponents[name] = min(exponents[name], MOST_GATE_EXPONENT)
    return replace(program, nodes=tuple(_with_rounding(program.input, nodes, exponents)))


def _narrow(program: Program, readers: dict[str, list[op.Node]]) -> list[str]:
    """Values of few bits, in execution order, so that the first that has no scale is the one to be named. A
    token is none; what a table makes is one even where only a state reads it.
    """
    read = messages(program)
    tables = {node.name for node in program.nodes if isinstance(node, op.Silu)}
    found = {v for v in read if not all(isinstance(n, _PASSING) for n in readers[v])} | tables
    found -= {program.output, program.input} if program.reads_tokens else {program.output}
    return [name for name in program.widths if name in found]


def _with_rounded_weights(program: Program, node: op.Node, scheme: Scheme) -> op.Node:
    if isinstance(node, op.Diagonal) and not scheme.float_weights:
        a = torch.view_as_complex(torch.from_numpy(node.a.astype(np.float64)))
        return replace(node, a=_float32(torch.view_as_real(decay_to_grid(a, scheme.a_bits))))
    if isinstance(node, op.Gated) and node.rotation is not None and not scheme.float_weights:
        rotation = torch.view_as_complex(torch.from_numpy(node.rotation.astype(np.float64)))
        on_grid = torch.view_as_real(rotation_to_grid(rotation, scheme.a_bits))
        return replace(node, rotation=_float32(on_grid))
    if isinstance(node, op.Affine):
        if node.name in gates(program):
            if scheme.float_weights:
                return node
            return replace(node, scale=_on_grid(node.scale, scheme, scheme.gate_bits, "row"))
        return replace(node, scale=_on_grid(node.scale, scheme, scheme.d_bits, "row"))
    if isinstance(node, op.Embedding):
        return replace(node, weight=_on_grid(node.weight, scheme, scheme.weight_bits, scheme.weight_scale))
    if isinstance(node, op.Linear):
        bits = matrix_bits(program, node, scheme)
        return replace(node, weight=_on_grid(node.weight, scheme, bits, scheme.weight_scale))
    return node


def _on_grid(weight: np.ndarray, scheme: Scheme, bits: int, scale: str) -> np.ndarray:
    grid = Grid(None if scheme.float_weights else bits, scale)
    return _float32(grid(torch.from_numpy(weight.astype(np.float64))))


def _float32(tensor: torch.Tensor) -> np.ndarray:
    return tensor.numpy().astype(np.float32)


def _with_rounding(source: str, nodes: list[op.Node], exponents: dict[str, int]) -> list[op.Node]:
    """A Round node behind every value that has an exponent; all read what it makes."""
    names, out = {}, []

    def add_round(name: str) -> None:
        if name in exponents:
            names[name] = f"{name}.rounded"
            out.append(op.Round(names[name], (name,), exponents[name]))

    add_round(source)
    for node in nodes:
        out.append(replace(node, inputs=tuple(names.get(name, name) for name in node.inputs)))
        add_round(node.name)
    return out
