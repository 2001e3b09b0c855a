"""A Program: a short causal list of nodes, the one artefact that runs at inference."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from functools import cached_property

import numpy as np

from lrnn.program.nodes import Node


@dataclass(frozen=True, eq=False)
class Program:
    """A causal graph in execution order.

    Args:
        input: name of the input value.
        input_width: numbers per input frame.
        nodes: in execution order; each reads the input or an earlier node's value.
        output: name of the output value.
        meta: JSON values that travel with the program (front end, provenance, card).
    """

    input: str
    input_width: int
    nodes: tuple[Node, ...]
    output: str
    meta: dict = field(default_factory=dict)

    def __post_init__(self):
        self.widths  # noqa: B018  raises on a graph that does not fit
        for node in self.nodes:
            for name, tensor in tensors(node).items():
                if not np.isfinite(tensor).all():
                    raise ValueError(f"node {node.name!r} ({node.op}): {name} has NaN or infinite values")

    @cached_property
    def widths(self) -> dict[str, int]:
        """Width of every value by name; ValueError names the node that does not fit."""
        widths = {self.input: self.input_width}
        for node in self.nodes:
            missing = [i for i in node.inputs if i not in widths]
            if missing:
                raise ValueError(f"node {node.name!r} ({node.op}) reads {missing[0]!r}, which no earlier node makes")
            if len(node.inputs) != node.arity:
                raise ValueError(
                    f"node {node.name!r} ({node.op}) has {len(node.inputs)} inputs, expected {node.arity}"
                )
            if node.name in widths:
                raise ValueError(f"two values are named {node.name!r}")
            widths[node.name] = node.width(tuple(widths[i] for i in node.inputs))
        if self.output not in widths:
            raise ValueError(f"output {self.output!r} is made by no node")
        return widths

    @property
    def output_width(self) -> int:
        """Numbers per output frame."""
        return self.widths[self.output]

    def stream(self, engine: str = "native"):
        """A running instance with its own state: `step(frame)`, `run(frames)`, `reset()`. See lrnn.engine."""
        from lrnn.engine import open_stream

        return open_stream(self, engine)

    def save(self, path) -> None:
        """Write one safetensors file with the graph as metadata, whole or not at all."""
        from lrnn.program.file import save

        save(self, path)


def tensors(node: Node) -> dict[str, np.ndarray]:
    """The arrays of a node by field name, absent ones left out."""
    values = {f.name: getattr(node, f.name) for f in fields(node)}
    return {k: v for k, v in values.items() if isinstance(v, np.ndarray)}


def attributes(node: Node) -> dict:
    """The plain values of a node by field name, without its name and inputs."""
    values = {f.name: getattr(node, f.name) for f in fields(node) if f.name not in ("name", "inputs")}
    return {k: v for k, v in values.items() if v is not None and not isinstance(v, np.ndarray)}
