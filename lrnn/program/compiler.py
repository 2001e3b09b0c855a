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

from lrnn.program.dead import drop_dead
from lrnn.program.fold import fold_affine
from lrnn.program.node import Node
from lrnn.program.program import Program, tensors

Rule = Callable[["Graph", nn.Module, str, str], str]
AnyRule = TypeVar("AnyRule", bound=Rule)

_RULES: dict[type[nn.Module], Rule] = {}
_MODELS: dict[type[nn.Module], Callable[[nn.Module], int]] = {}  # what `compile` takes: width of its frames


def lowers(
    kind: type[nn.Module], input_width: Callable[[nn.Module], int] | None = None
) -> Callable[[AnyRule], AnyRule]:
    """Register the decorated function as the rule of modules of exactly this class.

    Subclasses need rules of their own: they may compute something else.

    Args:
        kind: the class.
        input_width: of those that are whole models, which `compile` takes: a function of the module that
            gives the numbers per frame that it reads, 1 where it reads tokens. The rule then also meets
            the path "" (see `inside`).
    """

    def register(rule: AnyRule) -> AnyRule:
        _RULES[kind] = rule
        if input_width is not None:
            _MODELS[kind] = input_width
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


def inside(path: str, name: str) -> str:
    """The path of a part of what stands at `path`, which is "" for a whole model."""
    return f"{path}.{name}" if path else name


def compile(model: nn.Module, meta: dict | None = None) -> Program:
    """Compile a model, as it is in evaluation mode, to a Program in float32.

    Affine maps (batch norms) are folded into the matrices that read them, masks become zeros, and states and
    units that masks cut off are left out. A classifier's program gives at every frame the log-probabilities
    of what it has seen so far.

    Args:
        model: an lrnn.SequenceModel, an lrnn.HGRNStack, a torch.nn.Sequential that begins with a Linear, or
            of another class whose rule says that it is a whole model (see `lowers`); on any device. It is not
            changed.
        meta: JSON values to travel with the program, such as its front end.

    Raises:
        TypeError: no whole model.
        ValueError: a module cannot stream or has no rule, or a weight is not finite; the message names it.
    """
    kind = parametrize.type_before_parametrizations(model)
    if kind not in _MODELS:
        known = (
            f"{'lrnn' if m.__module__.startswith('lrnn.') else 'torch.nn'}.{m.__name__}" for m in _MODELS
        )
        what = (
            "a layer compiles inside one of these, or inside a class of your own that has a rule"
            if kind in _RULES
            else "a class of your own needs a rule"
        )
        raise TypeError(
            f"model is a {kind.__name__}, expected an {' or '.join(sorted(known))}; {what} "
            "(see lrnn.program.lowers)"
        )
    # A copy in evaluation mode: parametrizations may observe what they see while training.
    model = copy.deepcopy(model).cpu().eval()
    graph = Graph()
    with torch.no_grad():
        output = graph.lower(model, "", "input")
    width = _MODELS[kind](model)
    nodes = drop_dead("input", width, fold_affine(graph.nodes, output), output)
    return Program("input", width, tuple(map(_rounded, nodes)), output, dict(meta or {}))


def array(tensor: Tensor | None) -> np.ndarray | None:
    """A tensor's values in float64; None stays None."""
    return None if tensor is None else tensor.detach().double().numpy()


def _rounded(node: Node) -> Node:
    with np.errstate(over="ignore"):  # what overflows is infinite, and Program names it
        # Adding zero turns the -0.0 of a masked negative weight into 0.0, which a file stores in one bit.
        return replace(
            node, **{name: (value + 0.0).astype(np.float32) for name, value in tensors(node).items()}
        )
