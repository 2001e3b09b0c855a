"""A Program as plain PyTorch, one frame at a time: the fastest eager form we know, for `lrnn bench stream`.

Weights are baked (no discretisation, no masks, no norms left), every node is one or a few torch functions on
vectors, their tensors bound beforehand, states are updated in place: nothing is left to take out but Python.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lrnn.program import nodes as op
from lrnn.program.program import Program


class EagerStep:
    """Runs a program's nodes as dense float32 torch functions.

    Args:
        program: what to run.
        shape: of a frame without its width: () for one stream, (streams,) for a batch of them.

    Raises:
        ValueError: the program holds a node with no form here.
    """

    def __init__(self, program: Program, shape: tuple[int, ...] = ()):
        places = {program.input: 0, **{node.name: i + 1 for i, node in enumerate(program.nodes)}}
        self._calls = []
        for node in program.nodes:
            if type(node) not in _FORMS:
                raise ValueError(f"node {node.name!r} ({node.op}) has no eager form to compare with")
            self._calls.append((_FORMS[type(node)](node, shape), [places[name] for name in node.inputs]))
        self._output = places[program.output]

    def __call__(self, frame: Tensor) -> Tensor:
        """The output (*shape, output_width) of the next frame (*shape, input_width)."""
        values = [frame]
        for call, inputs in self._calls:
            values.append(call(*[values[i] for i in inputs]))
        return values[self._output]


def _linear(node: op.Linear, shape: tuple[int, ...]) -> Callable[[Tensor], Tensor]:
    weight = torch.tensor(node.weight)
    bias = None if node.bias is None else torch.tensor(node.bias)
    if shape:
        return lambda x: F.linear(x, weight, bias)
    if bias is None:
        return partial(torch.mv, weight)
    return lambda x: torch.addmv(bias, weight, x)


def _affine(node: op.Affine, shape: tuple[int, ...]) -> Callable[[Tensor], Tensor]:
    scale, shift = torch.tensor(node.scale), torch.tensor(node.shift)
    if not np.any(node.shift):
        return lambda x: scale * x
    return lambda x: torch.addcmul(shift, scale, x)


def _diagonal(node: op.Diagonal, shape: tuple[int, ...]) -> Callable[[Tensor], Tensor]:
    a = torch.view_as_complex(torch.tensor(node.a))  # (P,)
    pairs = torch.zeros(*shape, len(node.a), 2)  # the state
    h, flat = torch.view_as_complex(pairs), pairs.view(*shape, -1)

    def step(x: Tensor) -> Tensor:
        h.mul_(a)
        return flat.add_(x)

    return step


def _gated(node: op.Gated, shape: tuple[int, ...]) -> Callable[[Tensor, Tensor], Tensor]:
    if node.rotation is None:
        h = torch.zeros(*shape, node.size)  # the state
        return lambda g, x: h.lerp_(x, g)
    turn = torch.view_as_complex(torch.tensor(node.rotation))  # (N,)
    pairs = torch.zeros(*shape, node.size, 2)
    h, flat = torch.view_as_complex(pairs), pairs.view(*shape, -1)

    def step(g: Tensor, x: Tensor) -> Tensor:
        h.mul_(turn)
        pairs.lerp_(x.view(pairs.shape), g.unsqueeze(-1))
        return flat

    return step


def _embedding(node: op.Embedding, shape: tuple[int, ...]) -> Callable[[Tensor], Tensor]:
    weight = torch.tensor(node.weight)
    if shape:
        return lambda x: weight[x[..., 0].long()]
    return lambda x: weight[int(x)]


def _rms_norm(node: op.RmsNorm, shape: tuple[int, ...]) -> Callable[[Tensor], Tensor]:
    if shape:
        scale = torch.tensor(node.scale)
        return lambda x: F.rms_norm(x, scale.shape, scale, node.eps)
    # Half the time of F.rms_norm on one vector of 512.
    n, scale = len(node.scale), torch.tensor(node.scale) * math.sqrt(len(node.scale))
    return lambda x: torch.mul(x, scale).mul_((torch.dot(x, x).item() + n * node.eps) ** -0.5)


def _layer_norm(node: op.LayerNorm, shape: tuple[int, ...]) -> Callable[[Tensor], Tensor]:
    scale, shift = torch.tensor(node.scale), torch.tensor(node.shift)
    return lambda x: F.layer_norm(x, scale.shape, scale, shift, node.eps)


_FORMS: dict[type[op.Node], Callable[[op.Node, tuple[int, ...]], Callable[..., Tensor]]] = {
    op.Linear: _linear,
    op.Affine: _affine,
    op.Diagonal: _diagonal,
    op.Gated: _gated,
    op.Embedding: _embedding,
    op.LayerNorm: _layer_norm,
    op.RmsNorm: _rms_norm,
    op.Relu: lambda node, shape: torch.relu,
    op.Sigmoid: lambda node, shape: torch.sigmoid,
    op.Silu: lambda node, shape: F.silu,
    op.Gelu: lambda node, shape: partial(F.gelu, approximate="tanh"),
    op.Add: lambda node, shape: torch.add,
    op.Product: lambda node, shape: torch.mul,
}
