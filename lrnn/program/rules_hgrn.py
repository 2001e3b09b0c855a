"""How an HGRN model becomes nodes, in the order of lrnn.nn's hgrn_stack.py and hgrn.py."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from lrnn.nn import HGRN, HGRNBlock, HGRNStack
from lrnn.nn.hgrn_stack import GLU
from lrnn.program import nodes as op
from lrnn.program.compiler import Graph, array, inside, lowers


@lowers(HGRNStack, input_width=lambda stack: stack.config.d_model)
def hgrn_stack(graph: Graph, stack: HGRNStack, path: str, x: str) -> str:
    """The blocks, each with its bound, and the norm."""
    bounds = stack.bounds()
    for i, block in enumerate(stack.blocks):
        x = hgrn_block(graph, block, inside(path, f"blocks.{i}"), x, bounds[i])
    return graph.lower(stack.norm, inside(path, "norm"), x)


@lowers(HGRNBlock)
def hgrn_block(graph: Graph, block: HGRNBlock, path: str, x: str, bound: Tensor | None = None) -> str:
    """Norm, HGRN, residual; norm, gated linear unit, residual. `bound` (N,): gamma, None is 0."""
    y = graph.lower(block.mixer_norm, f"{path}.mixer_norm", x)
    y = graph.lower(block.mixer_relu, f"{path}.mixer_relu", y)
    y = hgrn(graph, block.mixer, f"{path}.mixer", y, bound)
    x = graph.add(op.Add(f"{path}.mixer_sum", (x, y)))
    y = graph.lower(block.glu_norm, f"{path}.glu_norm", x)
    y = graph.lower(block.glu_relu, f"{path}.glu_relu", y)
    return graph.add(op.Add(f"{path}.glu_sum", (x, graph.lower(block.glu, f"{path}.glu", y))))


@lowers(HGRN)
def hgrn(graph: Graph, layer: HGRN, path: str, x: str, bound: Tensor | None = None) -> str:
    """The recurrence reads what is written, 1 - f = (1 - bound) sigmoid(-z), exact where f rounds to 1."""
    bias = layer.f_proj.bias
    z = op.Linear(f"{path}.f_proj", (x,), -array(layer.f_proj.weight), None if bias is None else -array(bias))
    write = graph.add(op.Sigmoid(f"{path}.write", (graph.add(z),)))
    if bound is not None and bool(bound.any()):
        scale = 1 - array(bound)
        write = graph.add(op.Affine(f"{path}.bound", (write,), scale, np.zeros_like(scale)))
    i = graph.lower(layer.i_proj, f"{path}.i_proj", x)
    i = graph.lower(layer.input_activation, f"{path}.input", i)
    rotation = array(layer.turn()) if layer.is_complex else None
    h = graph.add(op.Gated(f"{path}.state", (write, i), layer.d_state, rotation))
    h = graph.lower(layer.norm, f"{path}.norm", h)
    gate = graph.lower(layer.g_proj, f"{path}.g_proj", x)
    gate = graph.lower(layer.gate_activation, f"{path}.gate", gate)
    return graph.lower(layer.o_proj, f"{path}.o_proj", graph.add(op.Product(f"{path}.gated", (h, gate))))


@lowers(GLU)
def glu(graph: Graph, module: GLU, path: str, x: str) -> str:
    """down(activation(gate(x)) * up(x))."""
    gate = graph.lower(module.gate_proj, f"{path}.gate_proj", x)
    gate = graph.lower(module.activation, f"{path}.activation", gate)
    up = graph.lower(module.up_proj, f"{path}.up_proj", x)
    product = graph.add(op.Product(f"{path}.product", (gate, up)))
    return graph.lower(module.down_proj, f"{path}.down_proj", product)
