"""How the layers that all models are made of become nodes."""

from __future__ import annotations

import numpy as np
from torch import nn

from lrnn.nn import BatchNorm
from lrnn.nn.norm import RMSNorm
from lrnn.program import nodes as op
from lrnn.program.compiler import Graph, array, inside, lowers


@lowers(BatchNorm)
def batch_norm(graph: Graph, norm: BatchNorm, path: str, x: str) -> str:
    """An affine map made of the running statistics."""
    scale, shift = norm.double().scale_shift()  # the compiler's own copy
    return graph.add(op.Affine(path, (x,), array(scale), array(shift)))


@lowers(nn.LayerNorm)
def layer_norm(graph: Graph, norm: nn.LayerNorm, path: str, x: str) -> str:
    """Layer norm over the last axis, with or without scale and shift."""
    n = _one_axis(norm, path)
    scale = np.ones(n) if norm.weight is None else array(norm.weight)
    shift = np.zeros(n) if norm.bias is None else array(norm.bias)
    return graph.add(op.LayerNorm(path, (x,), scale, shift, norm.eps))


@lowers(nn.Linear)
def linear(graph: Graph, module: nn.Linear, path: str, x: str) -> str:
    """A matrix, with or without bias."""
    return graph.add(op.Linear(path, (x,), array(module.weight), array(module.bias)))


def _first_width(modules: nn.Sequential) -> int:
    first = next(iter(modules), None)
    if not isinstance(first, nn.Linear):
        raise TypeError(f"model begins with a {type(first).__name__}, expected a torch.nn.Linear")
    return first.in_features


@lowers(nn.Sequential, input_width=_first_width)
def sequential(graph: Graph, modules: nn.Sequential, path: str, x: str) -> str:
    """One module after another: a stack of dense layers, frame by frame."""
    for name, module in modules.named_children():
        x = graph.lower(module, inside(path, name), x)
    return x


@lowers(nn.Embedding)
def embedding(graph: Graph, module: nn.Embedding, path: str, x: str) -> str:
    """A table of vectors, which are as they are (padding_idx is about training)."""
    if module.max_norm is not None:
        raise ValueError(f"{path}: max_norm is {module.max_norm}, which changes its table, expected None")
    return graph.add(op.Embedding(path, (x,), array(module.weight)))


@lowers(RMSNorm)
@lowers(nn.RMSNorm)
def rms_norm(graph: Graph, norm: nn.RMSNorm, path: str, x: str) -> str:
    """Root mean square norm over the last axis, with or without scale."""
    n = _one_axis(norm, path)
    scale = np.ones(n) if norm.weight is None else array(norm.weight)
    eps = float(np.finfo(np.float32).eps) if norm.eps is None else norm.eps
    return graph.add(op.RmsNorm(path, (x,), scale, eps))


@lowers(nn.ReLU)
def relu(graph: Graph, module: nn.ReLU, path: str, x: str) -> str:
    """max(x, 0)."""
    return graph.add(op.Relu(path, (x,)))


@lowers(nn.SiLU)
def silu(graph: Graph, module: nn.SiLU, path: str, x: str) -> str:
    """x sigmoid(x)."""
    return graph.add(op.Silu(path, (x,)))


@lowers(nn.Identity)
def identity(graph: Graph, module: nn.Identity, path: str, x: str) -> str:
    """No node."""
    return x


def _one_axis(norm: nn.LayerNorm | nn.RMSNorm, path: str) -> int:
    if len(norm.normalized_shape) != 1:
        raise ValueError(f"{path}: normalized_shape is {tuple(norm.normalized_shape)}, expected one axis")
    return norm.normalized_shape[0]
