"""From a model to a Program: one rule per kind of module, then folding.

A rule adds nodes to a graph and returns the name of the value that is the module's output in evaluation mode:

    @lowers(nn.Linear)
    def linear(graph: Graph, module: nn.Linear, path: str, x: str) -> str:
        return graph.add(op.Linear(path, (x,), array(module.weight), array(module.bias)))

Rules read weights through the module's attributes, so that parametrizations (masks) apply. While a graph is
built its tensors are float64; they are rounded to float32 once, after folding.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from lrnn.nn import SequenceModel
from lrnn.program.dead import drop_dead_states
from lrnn.program.fold import fold_affine
from lrnn.program.node import Node
from lrnn.program.program import Program, tensors

Rule = Callable[["Graph", nn.Module, str, str], str]
AnyRule = TypeVar("AnyRule", bound=Rule)

_RULES: dict[type[nn.Module], Rule] = {}


def lowers(kind: type[nn.Module]) -> Callable[[AnyRule], AnyRule]:
    """Register the decorated function as the rule of modules of exactly this class.

    Subclasses need rules of their own: they may compute something else.
    """

    def register(rule: AnyRule) -> AnyRule:
        _RULES[kind] = rule
        return rule

    return register


class Graph:
    """Nodes in execution order, while a program is being made of them."""

    def __init__(self):
        self.nodes: list[Node] = []

    def add(self, node: Node) -> str:
        """Append a node; returns the name of its value."""
        self.nodes.append(node)
        return node.name

    def lower(self, module: nn.Module, path: str, x: str) -> str:
        """Add the nodes of a module.

        Args:
            module: any module whose class has a rule.
            path: its dotted name in the model; names the nodes.
            x: the value it reads.

        Returns:
            The name of the value it makes.

        Raises:
            ValueError: no rule for its class, or it cannot stream; the message names `path`.
        """
        kind = parametrize.type_before_parametrizations(module)
        if kind not in _RULES:
            raise ValueError(
                f"{path}: no rule compiles a {kind.__module__}.{kind.__qualname__} (see lrnn.program.lowers)"
            )
        return _RULES[kind](self, module, path, x)


def compile(model: SequenceModel, meta: dict | None = None) -> Program:
    """Compile a model, as it is in evaluation mode, to a Program in float32.

    Affine maps (batch norms) are folded into the matrices that read them, masks become zeros, and states that
    masks cut off are left out. A
    classifier's program gives at every frame the log-probabilities of what it has seen so far.

    Args:
        model: on any device; it is not changed.
        meta: JSON values to travel with the program, such as its front end.

    Raises:
        TypeError: not a SequenceModel.
        ValueError: a module cannot stream or has no rule, or a weight is not finite; the message names it.
    """
    if not isinstance(model, SequenceModel):
        raise TypeError(f"model is a {type(model).__name__}, expected an lrnn.SequenceModel")
    # A copy in evaluation mode: parametrizations may observe what they see while training.
    model = copy.deepcopy(model).cpu().eval()
    graph = Graph()
    with torch.no_grad():
        output = graph.lower(model, "model", "input")
    nodes = drop_dead_states(fold_affine(graph.nodes, output), output)
    nodes = tuple(_rounded(node) for node in nodes)
    return Program("input", model.config.d_in, nodes, output, dict(meta or {}))


def array(tensor: Tensor | None) -> np.ndarray | None:
    """A tensor's values in float64; None stays None."""
    return None if tensor is None else tensor.detach().double().numpy()


def _rounded(node: Node) -> Node:
    with np.errstate(over="ignore"):  # what overflows is infinite, and Program names it
        # Adding zero turns the -0.0 of a masked negative weight into 0.0, which a file stores in one bit.
        return replace(
            node, **{name: (value + 0.0).astype(np.float32) for name, value in tensors(node).items()}
        )
