"""A Program: a short causal list of nodes, the one artefact that runs at inference."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from lrnn.program.node import Node, tensor_fields

if TYPE_CHECKING:
    from lrnn.engine import Stream
    from lrnn.program.fixed.format import Format


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
        if self.input_width < 1:
            raise ValueError(f"input_width is {self.input_width}, expected at least 1")
        self.widths  # noqa: B018  raises on a graph that does not fit
        for node in self.nodes:
            if node.tokens and node.inputs != (self.input,):
                raise node.error(f"it reads {node.inputs[0]!r}, expected {self.input!r}, the program's input")
            for name, tensor in tensors(node).items():
                dtypes = tensor_fields(node)[name].metadata["dtypes"]
                if tensor.dtype.name not in dtypes:
                    raise node.error(f"{name} is {tensor.dtype}, expected {' or '.join(dtypes)}")
                if not np.isfinite(tensor).all():
                    raise node.error(f"{name} has NaN or infinite values")
        self.formats  # noqa: B018  raises where integers and floats meet, or a sum could overflow

    @cached_property
    def widths(self) -> dict[str, int]:
        """Width of every value by name; ValueError names the node that does not fit."""
        widths = {self.input: self.input_width}
        for node in self.nodes:
            missing = [i for i in node.inputs if i not in widths]
            if missing:
                raise node.error(f"it reads {missing[0]!r}, which no earlier node makes")
            if len(node.inputs) != node.arity:
                raise node.error(f"it has {len(node.inputs)} inputs, expected {node.arity}")
            if node.name in widths:
                raise ValueError(f"two values are named {node.name!r}")
            widths[node.name] = node.width(tuple(widths[i] for i in node.inputs))
        if self.output not in widths:
            raise ValueError(f"output {self.output!r} is made by no node")
        return widths

    @cached_property
    def formats(self) -> dict[str, Format | None]:
        """Format of every value by name, None for floats; ValueError names the node that does not fit."""
        formats: dict[str, Format | None] = {self.input: None}
        for node in self.nodes:
            formats[node.name] = node.format(tuple(formats[i] for i in node.inputs))
        if formats[self.output] is not None:
            raise ValueError(f"output {self.output!r} holds integers, expected floats: a dequantize node's")
        return formats

    @property
    def is_fixed(self) -> bool:
        """Whether it computes with integers."""
        return any(self.formats.values())

    @property
    def output_width(self) -> int:
        """Numbers per output frame."""
        return self.widths[self.output]

    @cached_property
    def state_dtypes(self) -> dict[str, np.dtype]:
        """What the numbers of `state_widths` are."""
        return {node.name: np.dtype(node.state_dtype) for node in self.nodes if node.state_width}

    @cached_property
    def state_widths(self) -> dict[str, int]:
        """Numbers carried from frame to frame, by the name of the node, in execution order."""
        return {node.name: node.state_width for node in self.nodes if node.state_width}

    @property
    def reads_tokens(self) -> bool:
        """Whether a frame is one number, that of a token."""
        return any(node.tokens for node in self.nodes)

    def check_tokens(self, x: np.ndarray, name: str) -> None:
        """ValueError where frames x (..., input_width), called `name` in the error, should be tokens of the
        program and are not; anything passes where it reads none.
        """
        for node in self.nodes:
            wrong = x[(x < 0) | (x >= node.tokens) | (x != np.floor(x))] if node.tokens else x[:0]
            if wrong.size:
                raise node.error(
                    f"{name} has {wrong[0]:g}, expected a token's number, 0 to {node.tokens - 1}"
                )

    def check_state(self, shapes: dict[str, tuple[int, ...]], batch: tuple[int, ...] = ()) -> None:
        """ValueError unless `shapes` names every node that remembers, each with the shape (*batch, width)."""
        expected = {name: (*batch, width) for name, width in self.state_widths.items()}
        if shapes != expected:
            wrong = min(set(shapes.items()) ^ set(expected.items()))[0]
            found, wanted = shapes.get(wrong, "missing"), expected.get(wrong, "no such entry")
            raise ValueError(f"state[{wrong!r}] is {found}, expected {wanted}")

    def stream(self, engine: str = "native") -> Stream:
        """A running instance with its own state: `step(frame)`, `run(frames)`, `reset()`. See lrnn.engine."""
        from lrnn.engine import open_stream

        return open_stream(self, engine)

    def save(self, path: str | os.PathLike) -> None:
        """Write one safetensors file with the graph as metadata, whole or not at all."""
        from lrnn.program.file import save

        save(self, path)


def tensors(node: Node) -> dict[str, np.ndarray]:
    """The arrays of a node by field name, absent ones left out."""
    values = {name: getattr(node, name) for name in tensor_fields(node)}
    return {name: value for name, value in values.items() if value is not None}


def attributes(node: Node) -> dict:
    """The plain values of a node by field name, without its name, inputs and tensors."""
    skipped = {"name", "inputs", *tensor_fields(node)}
    return {f.name: getattr(node, f.name) for f in fields(node) if f.name not in skipped}
