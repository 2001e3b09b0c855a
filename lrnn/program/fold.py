"""Folding: fewer nodes that compute the same."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from lrnn.program.node import Node
from lrnn.program.nodes import Affine, Linear


def fold_affine(nodes: Iterable[Node], output: str) -> list[Node]:
    """Fold every Affine node whose readers are all Linear or Affine into them.

    With u = s x + t:  W u + b = (W diag(s)) x + (W t + b)  and  S u + T = (S s) x + (S t + T). The readers
    then read x itself, which after a ReLU is sparse where u is dense. Zeros of W stay zeros.

    Args:
        nodes: in execution order.
        output: name of the value that must remain.
    """
    nodes = list(nodes)
    for affine in [n for n in nodes if isinstance(n, Affine) and n.name != output]:
        affine = next(n for n in nodes if n.name == affine.name)  # an earlier fold may have replaced it
        readers = [n for n in nodes if affine.name in n.inputs]
        if all(isinstance(n, (Linear, Affine)) for n in readers):
            folded = {n.name: _fold(affine, n) for n in readers}
            nodes = [folded.get(n.name, n) for n in nodes if n is not affine]
    return nodes


def _fold(affine: Affine, reader: Linear | Affine) -> Linear | Affine:
    if isinstance(reader, Affine):
        return replace(
            reader,
            inputs=affine.inputs,
            scale=reader.scale * affine.scale,
            shift=reader.scale * affine.shift + reader.shift,
        )
    bias = reader.weight @ affine.shift
    return replace(
        reader,
        inputs=affine.inputs,
        weight=reader.weight * affine.scale,
        bias=bias if reader.bias is None else bias + reader.bias,
    )
