"""How the nodes of a Program are given to the native engine: a function of engine.h, and what it takes."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import c_float, c_int32, c_int64, c_void_p

import numpy as np

from lrnn.program import nodes as op
from lrnn.program.fixed import nodes as fixed
from lrnn.program.fixed.format import Format


class _Finish(ctypes.Structure):
    """lrnn_finish."""

    _fields_ = [("rounding", c_int32), ("bits", c_int32), ("accumulator_bits", c_int32)]


_ROUNDINGS = {"nearest_even": 0, "nearest_up": 1, "floor": 2}

# Types of what each function takes after the engine and the ids of a node's inputs.
_FUNCTIONS: dict[str, tuple] = {
    "linear": (c_int32, c_int32, c_void_p, c_void_p),
    "affine": (c_int32, c_void_p, c_void_p),
    "diagonal": (c_int32, c_void_p),
    "gated": (c_int32, c_void_p),
    "embedding": (c_int32, c_int32, c_void_p),
    "relu": (),
    "pair_relu": (),
    "sigmoid": (),
    "silu": (),
    "gelu": (),
    "layer_norm": (c_int32, c_void_p, c_void_p, c_float),
    "rms_norm": (c_int32, c_void_p, c_float),
    "add": (),
    "product": (),
    "round": (c_int32,),
    "mean_pool": (),
    "log_softmax": (),
    "fixed_quantize": (c_int32, c_int32),
    "fixed_dequantize": (c_int32,),
    "fixed_rescale": (c_int32, _Finish),
    "fixed_linear": (c_int32, c_int32, c_void_p, c_void_p, c_void_p, c_int64, _Finish),
    "fixed_affine": (c_int32, c_void_p, c_void_p, c_void_p, _Finish),
    "fixed_diagonal": (c_int32, c_void_p, c_void_p, c_int32, c_int32, c_int32, _Finish),
    "fixed_gated": (c_int32, c_void_p, c_void_p, c_int32, c_int32, c_int32, c_int32, _Finish),
    "fixed_embedding": (c_int32, c_int32, c_void_p, c_void_p, _Finish),
    "fixed_relu": (),
    "fixed_pair_relu": (),
    "fixed_table": (c_int32, c_void_p, c_int32),
    "fixed_norm": (c_int32, c_void_p, c_void_p, c_void_p, c_int64, c_int32, _Finish),
    "fixed_add": (c_int32, c_int32, c_int32, _Finish),
    "fixed_product": (c_int32, _Finish),
    "fixed_mean_pool": (),
}
_TWO_INPUTS = {"gated", "add", "product", "fixed_add", "fixed_product", "fixed_gated"}

SIGNATURES = {
    f"lrnn_engine_{name}": (c_int32, c_void_p, *(c_int32,) * (1 + (name in _TWO_INPUTS)), *types)
    for name, types in _FUNCTIONS.items()
}

_FLOATS: dict[type[op.Node], Callable[[op.Node], tuple]] = {
    op.Linear: lambda n: (*n.weight.shape, n.weight, n.bias),
    op.Affine: lambda n: (len(n.scale), n.scale, n.shift),
    op.Diagonal: lambda n: (len(n.a), n.a),
    op.Gated: lambda n: (n.size, n.rotation),
    op.Embedding: lambda n: (*n.weight.shape, n.weight),
    op.Relu: lambda n: (),
    op.PairRelu: lambda n: (),
    op.Sigmoid: lambda n: (),
    op.Silu: lambda n: (),
    op.Gelu: lambda n: (),
    op.LayerNorm: lambda n: (len(n.scale), n.scale, n.shift, n.eps),
    op.RmsNorm: lambda n: (len(n.scale), n.scale, n.eps),
    op.Add: lambda n: (),
    op.Product: lambda n: (),
    op.Round: lambda n: (n.exponent,),
    op.MeanPool: lambda n: (),
    op.LogSoftmax: lambda n: (),
}


def _finish(node, inputs: tuple[Format, ...]) -> _Finish:
    return _Finish(_ROUNDINGS[node.rounding], node.bits, node.accumulator_bits(inputs))


def _linear(node: fixed.Linear, inputs: tuple[Format, ...]) -> tuple:
    shift = node.shift(inputs[0]).astype(np.int32)
    weight, bias = node.weight.astype(np.int16), node.bias.astype(np.int64)
    return *weight.shape, weight, bias, shift, inputs[0].magnitude, _finish(node, inputs)


def _affine(node: fixed.Affine, inputs: tuple[Format, ...]) -> tuple:
    shift = node.shift(inputs[0]).astype(np.int32)
    scale, bias = node.scale.astype(np.int16), node.bias.astype(np.int64)
    return len(scale), scale, bias, shift, _finish(node, inputs)


def _diagonal(node: fixed.Diagonal, inputs: tuple[Format, ...]) -> tuple:
    return (
        len(node.decay),
        node.decay.astype(np.int32),
        node.decay_exponent.astype(np.int32),
        inputs[0].exponent - node.state_exponent,
        node.state_bits,
        node.state_exponent - node.exponent,
        _finish(node, inputs),
    )


def _gated(node: fixed.Gated, inputs: tuple[Format, ...]) -> tuple:
    turned = node.decay is not None
    return (
        node.size,
        node.decay.astype(np.int32) if turned else None,
        node.decay_exponent.astype(np.int32) if turned else None,
        node.gate_exponent,
        inputs[1].exponent - node.state_exponent,
        node.state_bits,
        node.state_exponent - node.exponent,
        _finish(node, inputs),
    )


def _embedding(node: fixed.Embedding, inputs: tuple[None]) -> tuple:
    weight, shift = node.weight.astype(np.int16), node.shift().astype(np.int32)
    return *weight.shape, weight, shift, _finish(node, inputs)


def _norm(node: fixed.Norm, inputs: tuple[Format, ...]) -> tuple:
    scale, bias, shift = (
        node.scale.astype(np.int16),
        node.bias.astype(np.int64),
        node.shift().astype(np.int32),
    )
    return len(scale), scale, bias, shift, node.eps, int(node.centred), _finish(node, inputs)


def _add(node: fixed.Add, inputs: tuple[Format, ...]) -> tuple:
    e0, e1 = (x.exponent for x in inputs)
    finest = max(e0, e1)
    return finest - e0, finest - e1, finest - node.exponent, _finish(node, inputs)


def _product(node: fixed.Product, inputs: tuple[Format, ...]) -> tuple:
    return inputs[0].exponent + inputs[1].exponent - node.exponent, _finish(node, inputs)


_INTEGERS: dict[type[op.Node], Callable[[op.Node, tuple], tuple]] = {
    fixed.Quantize: lambda n, x: (n.exponent, n.bits),
    fixed.Dequantize: lambda n, x: (x[0].exponent,),
    fixed.Rescale: lambda n, x: (x[0].exponent - n.exponent, _finish(n, x)),
    fixed.Linear: _linear,
    fixed.Affine: _affine,
    fixed.Diagonal: _diagonal,
    fixed.Gated: _gated,
    fixed.Embedding: _embedding,
    fixed.Relu: lambda n, x: (),
    fixed.PairRelu: lambda n, x: (),
    fixed.Table: lambda n, x: (len(n.table), n.table.astype(np.int32), x[0].bits),
    fixed.Norm: _norm,
    fixed.Add: _add,
    fixed.Product: _product,
    fixed.MeanPool: lambda n, x: (),
}


def call_of(node: op.Node, formats: tuple[Format | None, ...]) -> tuple[str, list]:
    """The function of engine.h that adds a node, and what it takes after the ids of the node's inputs.

    Args:
        node: of a Program.
        formats: of its inputs, None where they are float32.

    Returns:
        The function's name, and its arguments; arrays are contiguous, of the type that the function reads.

    Raises:
        ValueError: the engine has no such operation; names the node.
    """
    kind = type(node)
    if kind in _FLOATS:
        arguments = [
            np.ascontiguousarray(v, np.float32) if isinstance(v, np.ndarray) else v
            for v in _FLOATS[kind](node)
        ]
    elif kind in _INTEGERS:
        arguments = [
            np.ascontiguousarray(v) if isinstance(v, np.ndarray) else v
            for v in _INTEGERS[kind](node, formats)
        ]
    else:
        raise ValueError(f"node {node.name!r} ({node.op}): the native engine has no such operation")
    return f"lrnn_engine_{node.op}", arguments
