"""Leaving out what pruning cut off: states and units that are always zero, or that nothing reads.

Numbers of values that are tied together element by element (a state, its ReLU, the gate that multiplies it)
go together, between one matrix and the next. What comes out is the same without them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from lrnn.program import nodes as op
from lrnn.program.node import Node

_ELEMENTWISE = (op.Affine, op.Relu, op.Silu, op.Gelu, op.Sigmoid, op.Round, op.MeanPool)
_TYING = (*_ELEMENTWISE, op.PairRelu, op.Diagonal, op.Gated, op.RmsNorm, op.Add, op.Product)
"""Kinds whose value and inputs have the same numbers, that mix none of them or only their squares."""

Flags = np.ndarray  # one bool per number of a value


def drop_dead(source: str, input_width: int, nodes: Iterable[Node], output: str) -> list[Node]:
    """Drop the numbers that are dead in every value they are tied to: always zero, or read by nothing.

    A state whose row of B is zero stays zero, one whose column of C is zero is not read; a hidden unit of a
    GLU needs a row of both matrices before it and a column of the one behind. An HGRN's states meet in a
    norm, which reads all of them: there only states that are written to by no weight go, and the norm's mean
    is taken over the others. One number remains where all are dead. In the shipped denoiser, where B keeps
    8 % of its weights, three in five states go.

    Args:
        source: name of the program's input.
        input_width: its numbers per frame.
        nodes: in execution order, in float.
        output: name of the value that must remain as it is.
    """
    nodes = list(nodes)
    zero, read = _liveness(nodes, source, input_width, output)
    alive: dict[str, Flags] = {}
    for values in _tied(nodes, source, output):
        alive.update(_alive(nodes, values, zero, read))
    return [_shrunk(node, alive) for node in nodes]


def _liveness(
    nodes: list[Node], source: str, input_width: int, output: str
) -> tuple[dict[str, Flags], dict[str, Flags]]:
    """Which numbers are always zero, and which are read where they are not, by the names of the values."""
    zero = {source: np.zeros(input_width, bool)}
    for node in nodes:
        zero[node.name] = _is_zero(node, [zero[i] for i in node.inputs])
    read = {name: np.zeros(len(flags), bool) for name, flags in zero.items()}
    read[output][:] = True
    for node in reversed(nodes):
        wanted = read[node.name] & ~zero[node.name]
        for name in node.inputs:
            read[name] |= _is_read(node, wanted, len(zero[name]))
    return zero, read


def _is_zero(node: Node, x: list[Flags]) -> Flags:
    if isinstance(node, op.Linear):
        silent = ~((node.weight != 0) & ~x[0]).any(1)
        return silent if node.bias is None else silent & (node.bias == 0)
    if isinstance(node, op.Embedding):
        return ~(node.weight != 0).any(0)
    if isinstance(node, op.Affine):
        return (x[0] | (node.scale == 0)) & (node.shift == 0)
    if isinstance(node, op.RmsNorm):
        return x[0] | (node.scale == 0)
    if isinstance(node, op.Add):
        return x[0] & x[1]
    if isinstance(node, op.Product):
        return x[0] | x[1]
    if isinstance(node, (op.Relu, op.Silu, op.Gelu, op.Round, op.MeanPool)):
        return x[0]
    if isinstance(node, op.Gated):
        return x[1] if node.rotation is None else _whole_pairs(x[1])
    if isinstance(node, (op.Diagonal, op.PairRelu)):
        return _whole_pairs(x[0])
    return np.zeros(node.width(tuple(map(len, x))), bool)


def _is_read(node: Node, wanted: Flags, width: int) -> Flags:
    """What a node reads of an input of this width, where these numbers of its value are wanted."""
    if isinstance(node, op.Linear):
        return (node.weight[wanted] != 0).any(0)
    if isinstance(node, (*_ELEMENTWISE, op.Add, op.Product)):
        return wanted
    if isinstance(node, (op.Diagonal, op.PairRelu)) or (
        isinstance(node, op.Gated) and node.rotation is not None
    ):
        pairs = wanted.reshape(-1, 2).any(1)
        return pairs if width == len(pairs) else np.repeat(pairs, 2)
    if isinstance(node, op.Gated):
        return wanted
    return np.full(width, wanted.any())


def _whole_pairs(flags: Flags) -> Flags:
    return np.repeat(flags.reshape(-1, 2).all(1), 2)


def _tied(nodes: list[Node], source: str, output: str) -> Iterable[set[str]]:
    """Sets of values that have their numbers in common, those left out whose numbers have to stay."""
    group = {name: {name} for name in (source, *(n.name for n in nodes))}
    fixed = {source, output}
    for node in nodes:
        if isinstance(node, _TYING):
            together = set().union(group[node.name], *(group[i] for i in node.inputs))
            group.update(dict.fromkeys(together, together))
        elif not isinstance(node, (op.Linear, op.Embedding)):
            fixed |= {node.name, *node.inputs}
    distinct = {id(values): values for values in group.values()}
    return [values for values in distinct.values() if not values & fixed]


def _alive(
    nodes: list[Node], values: set[str], zero: dict[str, Flags], read: dict[str, Flags]
) -> dict[str, Flags]:
    """The numbers to keep of tied values, by name; nothing where all stay."""
    ties = [n for n in nodes if n.name in values and isinstance(n, _TYING)]
    turned = [n for n in ties if isinstance(n, (op.Diagonal, op.PairRelu))]
    turned += [n for n in ties if isinstance(n, op.Gated) and n.rotation is not None]
    widths = {name: len(zero[name]) for name in values}
    count = max(widths.values()) // (2 if turned else 1)
    if any(width not in (count, 2 * count) for width in widths.values()):
        return {}
    dead = np.ones(count, bool)
    for name in values:
        dead &= (zero[name] | ~read[name]).reshape(count, -1).all(1)
    dead[0] &= not dead.all()
    if not dead.any():
        return {}
    return {name: np.repeat(~dead, width // count) for name, width in widths.items()}


def _shrunk(node: Node, alive: dict[str, Flags]) -> Node:
    kept = alive.get(node.name)
    if isinstance(node, op.Linear):
        columns = alive.get(node.inputs[0])
        weight = node.weight if columns is None else np.ascontiguousarray(node.weight[:, columns])
        if kept is not None:
            bias = None if node.bias is None else node.bias[kept]
            return replace(node, weight=weight[kept], bias=bias)
        return node if columns is None else replace(node, weight=weight)
    if kept is None:
        return node
    if isinstance(node, op.Embedding):
        return replace(node, weight=np.ascontiguousarray(node.weight[:, kept]))
    if isinstance(node, op.Affine):
        return replace(node, scale=node.scale[kept], shift=node.shift[kept])
    if isinstance(node, op.RmsNorm):
        more = len(kept) / int(kept.sum())  # what is left out counted in the mean: as zeros
        return replace(node, scale=node.scale[kept] * math.sqrt(more), eps=node.eps * more)
    if isinstance(node, op.Diagonal):
        return replace(node, a=node.a[kept[::2]])
    if isinstance(node, op.Gated):
        if node.rotation is None:
            return replace(node, size=int(kept.sum()))
        return replace(node, size=int(kept.sum()) // 2, rotation=node.rotation[kept[::2]])
    if isinstance(node, op.MeanPool):
        return replace(node, size=int(kept.sum()))
    return node
