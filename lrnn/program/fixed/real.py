"""The equations of a fixed-point Program on real numbers: what its nodes would make if nothing were rounded.

A node's integers stand for `integer * 2 ** -exponent`. Here they are multiplied and summed in float64, which
holds every one of them exactly; what is left of the difference to the integers' own arithmetic is what that
rounds and saturates. With a program in float at hand the equations are its own, and the difference is also
what rounding its weights does.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lrnn.program import nodes as op
from lrnn.program.fixed import nodes as fixed
from lrnn.program.fixed.compiler import simplified
from lrnn.program.fixed.format import Format
from lrnn.program.program import Program, tensors
from lrnn.program.torch_executor import FUNCTIONS

Equation = Callable[..., Tensor]
"""Of values (B, T, width) in float64, from a state of zeros."""

_PASSING = (fixed.Quantize, fixed.Dequantize, fixed.Rescale)
_TABLES = {"sigmoid": torch.sigmoid, "silu": F.silu, "gelu": partial(F.gelu, approximate="tanh")}


def equations(program: Program, floats: Program | None = None) -> dict[str, Equation]:
    """What each node computes, by its name, in execution order.

    Args:
        program: in fixed point.
        floats: the program in float that it was made of; None takes the weights that its integers stand for.

    Raises:
        ValueError: `floats` is not of the same graph; names the first node that differs.
    """
    if floats is None:
        return {node.name: _of_integers(node, _formats(program, node)) for node in program.nodes}
    if floats.is_fixed:
        raise ValueError("it is in fixed point, expected a program in float")
    floats = simplified(floats)
    if floats.input_width != program.input_width:
        raise ValueError(f"it reads {floats.input_width} numbers per frame, expected {program.input_width}")
    known = {node.name: node for node in floats.nodes}
    found = {}
    for node in program.nodes:
        if node.name in known:
            _check_same(node, program, known[node.name], floats)
            found[node.name] = _of_floats(known[node.name])
        elif isinstance(node, fixed.Quantize):
            found[node.name] = _input(floats)
        elif isinstance(node, _PASSING):
            found[node.name] = _passed
        else:
            raise ValueError(f"it has no node {node.name!r}, expected the program that was quantized")
    return found


def _input(floats: Program) -> Equation:
    """A model that rounds its input has that done by the node that makes it integers."""
    readers = [node for node in floats.nodes if floats.input in node.inputs]
    if not readers or not all(isinstance(node, op.Round) for node in readers):
        return _passed
    return _of_floats(max(readers, key=lambda node: node.exponent))


def _formats(program: Program, node: op.Node) -> tuple[Format | None, ...]:
    return tuple(program.formats[name] for name in node.inputs)


def _check_same(node: op.Node, program: Program, other: op.Node, floats: Program) -> None:
    """ValueError unless a node and its form in float have the same shape."""
    shapes = [
        (*(held.widths[name] for name in of.inputs), held.widths[of.name])
        for of, held in ((node, program), (other, floats))
    ]
    kind = _form(node)
    if shapes[0] != shapes[1] or kind != other.op:
        raise ValueError(
            f"node {node.name!r} is {other.op} of widths {shapes[1]}, expected {kind} of {shapes[0]}: the "
            "program that was quantized"
        )


def _form(node: op.Node) -> str | None:
    """The kind of node in float that a node of integers stands for."""
    if isinstance(node, fixed.Table):
        return node.function
    if isinstance(node, fixed.Norm):
        return "layer_norm" if node.centred else "rms_norm"
    return _FORMS.get(type(node))


_FORMS = {
    fixed.Rescale: "round",
    fixed.Linear: "linear",
    fixed.Affine: "affine",
    fixed.Diagonal: "diagonal",
    fixed.Relu: "relu",
    fixed.PairRelu: "pair_relu",
    fixed.Gated: "gated",
    fixed.Embedding: "embedding",
    fixed.Add: "add",
    fixed.Product: "product",
    fixed.MeanPool: "mean_pool",
}


def _of_floats(node: op.Node) -> Equation:
    weights = {name: torch.from_numpy(value.astype(np.float64)) for name, value in tensors(node).items()}
    compute = partial(FUNCTIONS[type(node)], node, weights)
    if not node.state_width:
        return compute
    return lambda *x: compute(*x, x[-1].new_zeros(len(x[-1]), node.state_width))[0]


def _of_integers(node: op.Node, formats: tuple[Format | None, ...]) -> Equation:
    if isinstance(node, _PASSING):
        return _passed
    if isinstance(node, fixed.Table):
        return _TABLES[node.function]
    if isinstance(node, fixed.Norm):
        return _norm(node, formats[0])
    x = formats[0].exponent if formats[0] else 0
    if isinstance(node, fixed.Linear):
        by_row = node.weight_exponent[:, None]
        weight, bias = _scaled(node.weight, by_row), _scaled(node.bias, node.weight_exponent, x)
        return _of_floats(op.Linear(node.name, node.inputs, weight, bias))
    if isinstance(node, fixed.Affine):
        scale = _scaled(node.scale, node.scale_exponent), _scaled(node.bias, node.scale_exponent, x)
        return _of_floats(op.Affine(node.name, node.inputs, *scale))
    if isinstance(node, fixed.Diagonal):
        return _of_floats(op.Diagonal(node.name, node.inputs, _kept(node)))
    if isinstance(node, fixed.Gated):
        rotation = None if node.decay is None else _kept(node)
        return _of_floats(op.Gated(node.name, node.inputs, node.size, rotation))
    if isinstance(node, fixed.Embedding):
        weight = _scaled(node.weight, node.weight_exponent[:, None])
        return _of_floats(op.Embedding(node.name, node.inputs, weight))
    if isinstance(node, fixed.MeanPool):
        return _of_floats(op.MeanPool(node.name, node.inputs, node.size))
    return _of_floats(op.NODES[_FORMS[type(node)]](node.name, node.inputs))


def _kept(node: fixed.Diagonal | fixed.Gated) -> np.ndarray:
    """1 - decay, (P, 2)."""
    return np.array([1.0, 0.0]) - _scaled(node.decay, node.decay_exponent[:, None])


def _passed(x: Tensor) -> Tensor:
    return x


def _norm(node: fixed.Norm, x_format: Format) -> Equation:
    scale = torch.from_numpy(_scaled(node.scale, node.scale_exponent))
    bias = torch.from_numpy(_scaled(node.bias, node.scale_exponent, node.NORMAL_EXPONENT))
    eps = node.eps * 2.0 ** (-2 * x_format.exponent) / len(node.scale) ** 2

    def norm(x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True) if node.centred else x
        return centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt() * scale + bias

    return norm


def _scaled(integers: np.ndarray, exponents: np.ndarray, more: int = 0) -> np.ndarray:
    return np.ldexp(integers.astype(np.float64), -(exponents.astype(np.int64) + more))
