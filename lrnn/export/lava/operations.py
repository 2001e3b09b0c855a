"""What a group of neurons computes, as data: one record and some arrays for each node, shifts made explicit.

The records are the contract with the executor (executor/lrnn_lava/operations.py), which knows neither nodes
nor exponents. Fields that all records have: `op`, `node` (the value it makes), `inputs`: the number of a
port, or the name of an earlier value of the group. A rounded one has `rounding` and `bits` (it saturates at
+-(2 ** (bits - 1) - 1)); shifts are to the right, negative ones to the left. All but those with `sums_over`
are local, as a chip's neuron is: a number of theirs needs its own inputs only, or those of its complex pair.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lrnn.program.fixed.format import Format
from lrnn.program.nodes import Node

Record = dict
Arrays = dict[str, np.ndarray]


def operation(node: Node, formats: tuple[Format, ...]) -> tuple[Record, Arrays]:
    """The record of a node that reads values of these formats, without `inputs`, and its arrays by field."""
    if node.op not in _OPERATIONS:
        known = ", ".join(_OPERATIONS)
        raise node.error(f"the exporter knows no such node, expected one of {known}")
    fields, arrays = _OPERATIONS[node.op](node, *formats)
    record = {"op": node.op.removeprefix("fixed_"), "node": node.name}
    if hasattr(node, "rounding"):
        record |= {"rounding": node.rounding, "bits": node.bits}
    return record | fields, arrays


def _linear(node, x: Format) -> tuple[Record, Arrays]:
    """Its input is what the synapses sum."""
    return {}, {"bias": node.bias, "shift": node.shift(x).astype(np.int16)}


def _affine(node, x: Format) -> tuple[Record, Arrays]:
    return {}, {"scale": node.scale, "bias": node.bias, "shift": node.shift(x).astype(np.int16)}


def _rescale(node, x: Format) -> tuple[Record, Arrays]:
    return {"shift": x.exponent - node.exponent}, {}


def _none(node, x: Format) -> tuple[Record, Arrays]:
    return {}, {}


def _table(node, x: Format) -> tuple[Record, Arrays]:
    """Halves of a step go up; nothing to saturate."""
    record = {"function": node.function, "input_bits": x.bits, "rounding": "nearest_up", "bits": node.bits}
    return record, {"table": node.table}


def _norm(node, x: Format) -> tuple[Record, Arrays]:
    arrays = {"scale": node.scale, "bias": node.bias, "shift": node.shift().astype(np.int16)}
    return {"eps": node.eps, "centred": node.centred, "sums_over": "group"}, arrays


def _add(node, x0: Format, x1: Format) -> tuple[Record, Arrays]:
    finest = max(x0.exponent, x1.exponent)
    lefts = [finest - x0.exponent, finest - x1.exponent]
    return {"left_shifts": lefts, "shift": finest - node.exponent}, {}


def _product(node, x0: Format, x1: Format) -> tuple[Record, Arrays]:
    return {"shift": x0.exponent + x1.exponent - node.exponent}, {}


def _state(node, x: Format) -> Record:
    return {
        "input_shift": x.exponent - node.state_exponent,
        "state_exponent": node.state_exponent,
        "state_bits": node.state_bits,
        "shift": node.state_exponent - node.exponent,
    }


def _diagonal(node, x: Format) -> tuple[Record, Arrays]:
    """`decay` is 1 - lambda, (P, 2) re, im; what `decay_exponent` shifts out is carried, not rounded."""
    return _state(node, x), {"decay": node.decay, "decay_exponent": node.decay_exponent}


def _gated(node, g: Format, x: Format) -> tuple[Record, Arrays]:
    """As `_diagonal`, with the gate's own rest; real states have no decay."""
    arrays = {} if node.decay is None else {"decay": node.decay, "decay_exponent": node.decay_exponent}
    return {"gate_exponent": node.gate_exponent, **_state(node, x)}, arrays


_OPERATIONS: dict[str, Callable[..., tuple[Record, Arrays]]] = {
    "fixed_linear": _linear,
    "fixed_affine": _affine,
    "fixed_rescale": _rescale,
    "fixed_relu": _none,
    "fixed_pair_relu": _none,
    "fixed_table": _table,
    "fixed_norm": _norm,
    "fixed_add": _add,
    "fixed_product": _product,
    "fixed_diagonal": _diagonal,
    "fixed_gated": _gated,
    "fixed_mean_pool": _none,
}
