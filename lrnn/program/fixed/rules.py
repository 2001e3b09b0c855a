"""How each kind of node in float becomes nodes of integers."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from lrnn.program import nodes as op
from lrnn.program.fixed import nodes as fixed
from lrnn.program.fixed.exponents import TABLE_BITS
from lrnn.program.fixed.lowering import Lowering, Rule
from lrnn.program.fixed.tables import make_table
from lrnn.program.fixed.weights import (
    BIAS_BITS,
    decay_integers,
    map_integers,
    matrix_bits,
    rotation_integers,
)
from lrnn.quant.exponent import MOST_EXPONENT

NORM_SCALE_BITS = 16
MOST_EPS_BITS = 60  # of a norm's eps, which its sums of squares have to leave room for


def _linear(to: Lowering, node: op.Linear) -> None:
    names, (x,) = to.read(node, to.scheme.matrix_input_bits)
    made, bits = to.made(node), matrix_bits(to.program, node, to.scheme)
    bias = np.zeros(len(node.weight), np.float32) if node.bias is None else node.bias
    room = min(BIAS_BITS, to.scheme.accumulator_bits - 1)  # for half of an accumulator
    scale = to.scheme.weight_scale
    integers = map_integers(node.weight, bias, bits, scale, x.exponent, made["exponent"], room)
    to.add(node.name, fixed.Linear(node.name, names, **integers.named("weight"), **made))


def _affine(to: Lowering, node: op.Affine) -> None:
    names, (x,) = to.read(node)
    made = to.made(node)
    bits = to.scheme.gate_bits if node.name in to.exponents.gates else to.scheme.d_bits
    integers = map_integers(node.scale, node.shift, bits, "row", x.exponent, made["exponent"])
    to.add(node.name, fixed.Affine(node.name, names, **integers.named("scale"), **made))


def _diagonal(to: Lowering, node: op.Diagonal) -> None:
    names, _ = to.read(node)
    decay, decay_exponent = decay_integers(node, to.scheme.a_bits)
    state = {"state_exponent": to.exponents.state_exponent(node), "state_bits": to.scheme.state_bits}
    made = to.made(node)
    to.add(
        node.name,
        fixed.Diagonal(node.name, names, decay=decay, decay_exponent=decay_exponent, **state, **made),
    )


def _gated(to: Lowering, node: op.Gated) -> None:
    names, (g, _) = to.read(node)
    turned = {}
    if node.rotation is not None:
        turned = dict(
            zip(("decay", "decay_exponent"), rotation_integers(node, to.scheme.a_bits), strict=True)
        )
    state = {"state_exponent": to.exponents.state_exponent(node), "state_bits": to.scheme.state_bits}
    sizes = {"size": node.size, "gate_exponent": g.exponent}
    to.add(node.name, fixed.Gated(node.name, names, **turned, **sizes, **state, **to.made(node)))


def _embedding(to: Lowering, node: op.Embedding) -> None:
    made, bits, scale = to.made(node), to.scheme.weight_bits, to.scheme.weight_scale
    none = np.zeros(len(node.weight), np.float32)
    integers = map_integers(node.weight, none, bits, scale, x_exponent=0, exponent=made["exponent"])
    rows = {"weight": integers.weight, "weight_exponent": integers.exponent}
    to.add(node.name, fixed.Embedding(node.name, node.inputs, **rows, **made))


def _relu(to: Lowering, node: op.Relu | op.PairRelu) -> None:
    kind = fixed.Relu if isinstance(node, op.Relu) else fixed.PairRelu
    to.add(node.name, kind(node.name, to.read(node)[0]))


def _table(to: Lowering, node: op.Sigmoid | op.Silu | op.Gelu) -> None:
    names, (x,) = to.read(node, TABLE_BITS)
    exponent, bits = to.exponents.exponent(node.name), to.exponents.bits(node.name)
    table, max_error = make_table(node.op, x.bits, x.exponent, bits, exponent)
    values = {"function": node.op, "max_error": max_error, "exponent": exponent, "bits": bits}
    to.add(node.name, fixed.Table(node.name, names, table=table, **values))


def _norm(to: Lowering, node: op.LayerNorm | op.RmsNorm) -> None:
    made, n = to.made(node), len(node.scale)
    centred = isinstance(node, op.LayerNorm)
    shift = node.shift if centred else np.zeros_like(node.scale)
    finest = (MOST_EPS_BITS - math.frexp(n * n * node.eps)[1]) // 2
    names, (x,) = to.read(node, TABLE_BITS, min(finest, MOST_EXPONENT))
    t = fixed.Norm.NORMAL_EXPONENT
    integers = map_integers(node.scale, shift, NORM_SCALE_BITS, "row", t, made["exponent"])
    eps = max(1, round(n * n * node.eps * 2.0 ** (2 * x.exponent)))
    to.add(
        node.name,
        fixed.Norm(node.name, names, **integers.named("scale"), eps=eps, centred=centred, **made),
    )


def _two(kind: type[fixed.Add] | type[fixed.Product]) -> Callable:
    return lambda to, node: to.add(node.name, kind(node.name, to.read(node)[0], **to.made(node)))


def _round(to: Lowering, node: op.Round) -> None:
    """What is that coarse already passes as it is."""
    (name,), (x,) = to.read(node)
    if x.exponent <= node.exponent:
        to.names[node.name] = name
        return
    made = {**to.made(node), "exponent": node.exponent}
    to.add(node.name, fixed.Rescale(node.name, (name,), **made))


def _mean_pool(to: Lowering, node: op.MeanPool) -> None:
    to.add(node.name, fixed.MeanPool(node.name, to.read(node)[0], size=node.size))


RULES: dict[type[op.Node], Rule] = {
    op.Linear: _linear,
    op.Affine: _affine,
    op.Diagonal: _diagonal,
    op.Gated: _gated,
    op.Embedding: _embedding,
    op.Relu: _relu,
    op.PairRelu: _relu,
    op.Sigmoid: _table,
    op.Silu: _table,
    op.Gelu: _table,
    op.LayerNorm: _norm,
    op.RmsNorm: _norm,
    op.Add: _two(fixed.Add),
    op.Product: _two(fixed.Product),
    op.Round: _round,
    op.MeanPool: _mean_pool,
}
