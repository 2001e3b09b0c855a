"""Which nodes of a fixed-point program netx carries exactly, in which stacks, and why not the others."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from lrnn.export.netx.stack import (
    MESSAGE_BITS,
    MOST_WEIGHT,
    SHIFT,
    SUM_BITS,
    Bounds,
    Layer,
    Stack,
)
from lrnn.program import Program
from lrnn.program.fixed import nodes as fixed
from lrnn.program.nodes import Node
from lrnn.quant import largest_integer

_MISSING = {
    "fixed_quantize": "floats go in: the host's",
    "fixed_dequantize": "floats come out: the host's",
    "fixed_rescale": "netx has no shift of its own, only that of its dense layers",
    "fixed_affine": "netx is a chain of dense layers: nothing runs beside another layer",
    "fixed_embedding": "netx has no table of rows",
    "fixed_diagonal": "netx has no linear recurrence",
    "fixed_gated": "netx has no recurrence with gates",
    "fixed_pair_relu": "netx rectifies each number by itself",
    "fixed_table": "netx has no table: no sigmoid, SiLU or GELU",
    "fixed_norm": "netx has no norm",
    "fixed_add": "netx is a chain of layers: it joins no branches",
    "fixed_product": "netx has no product of two values",
    "fixed_mean_pool": "netx has no mean over time",
}
_LAYERS = (fixed.Linear, fixed.Rescale)
_NO_RELU = "no ReLU follows it, and it ends neither the program nor a chain of dense layers"


@dataclass(frozen=True)
class Segments:
    """What netx can carry of a program.

    Args:
        stacks: in the order of the program.
        carried: names of the nodes that they do, by the number of the stack.
        left_out: of every other node by name, why.
    """

    stacks: list[Stack] = field(default_factory=list)
    carried: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def obstacle(self, program: Program) -> str | None:
        """What keeps a program from being one stack between the ends where floats go in and out: the first
        node that is left out and why, or None.
        """
        for node in program.nodes:
            if node.name in self.left_out and not isinstance(node, (fixed.Quantize, fixed.Dequantize)):
                return f"node {node.name!r} ({node.op}): {self.left_out[node.name]}"
        return None if len(self.stacks) == 1 else f"it has {len(self.stacks)} chains of dense layers"


def find_segments(program: Program) -> Segments:
    """The longest chains of dense layers that netx computes as the program does, for any input.

    Args:
        program: in fixed point.

    Raises:
        ValueError: it is in float.
    """
    if not program.is_fixed:
        raise ValueError(
            "program is in float, expected one in fixed point: see lrnn.export.netx.compile_netx"
        )
    found = Segments()
    for node in program.nodes:
        if node.name not in found.carried and isinstance(node, fixed.Linear):
            _Chain(program, found).follow(node)
    for node in program.nodes:
        if node.name not in found.carried and node.name not in found.left_out:
            found.left_out[node.name] = _why_missing(node)
    return found


def whole_stack(program: Program) -> Stack:
    """A program in fixed point as the one stack that it is.

    Raises:
        ValueError: netx cannot carry all of it; names the first node in the way and says why.
    """
    found = find_segments(program)
    obstacle = found.obstacle(program)
    if obstacle is not None:
        raise ValueError(f"program: netx cannot carry it as a whole: {obstacle}")
    return found.stacks[0]


def _why_missing(node: Node) -> str:
    if isinstance(node, fixed.Relu):
        return "it follows no layer that netx can carry"
    return _MISSING.get(node.op, f"netx has no {node.op}")


class _Chain:
    """A stack while it grows.

    Args:
        program: in fixed point.
        found: takes the stack, and the reason why it ends.
    """

    def __init__(self, program: Program, found: Segments):
        self.program, self.found = program, found
        self.layers: list[Layer] = []
        self.nodes: list[str] = []
        self.offset = 0
        self.rectified = (
            True  # of the value that the stack makes: what follows one that is not, netx cannot do
        )

    def follow(self, first: fixed.Linear) -> None:
        """From a dense layer on as far as netx goes."""
        source = first.inputs[0]
        read = self.program.formats[source]
        self.bounds, node = Bounds.of(read, self.program.widths[source]), first
        while node is not None:
            reason = self._add_shift(node) if isinstance(node, fixed.Rescale) else self._add_layer(node)
            if reason is not None:
                self.found.left_out[node.name] = reason
                break
            node = self._next()
        if self.layers:
            value = self.nodes[-1]
            exponent = self.program.formats[value].exponent
            number = len(self.found.stacks)
            self.found.stacks.append(Stack(tuple(self.layers), source, value, read, exponent, self.offset))
            self.found.carried.update(dict.fromkeys(self.nodes, number))

    def _add(self, layer: Layer, *names: str) -> None:
        self.layers.append(layer)
        self.nodes += names
        self.bounds = self.bounds.rectified(layer)

    def _add_layer(self, node: fixed.Linear) -> str | None:
        """A dense layer with its ReLU, or the last one without; why not, where it cannot be."""
        relu = self._relu(node)
        self.rectified = relu is not None
        reason = self._why_not(node, relu)
        if reason is not None:
            return reason
        if relu is None:
            self.offset = lift(node, self.bounds)
        bias = (node.bias.astype(np.int64) >> SHIFT) + self.offset
        names = [node.name] if relu is None else [node.name, relu.name]
        self._add(Layer(node.name, node.weight.astype(np.int8), bias), *names)
        return None

    def _add_shift(self, node: fixed.Rescale) -> str | None:
        """A shift of what a ReLU made; why not, where it cannot be."""
        shift = self.program.formats[node.inputs[0]].exponent - node.exponent
        if node.rounding != "floor":
            return f"rounding is {node.rounding}, netx rounds down"
        if not 0 <= shift <= SHIFT:
            return f"it shifts by {shift}, expected 0 to {SHIFT}"
        reach, most = int((self.bounds.high >> shift).max()), largest_integer(node.bits)
        if reach > most:
            return f"it could reach {reach} and saturates at {most}; netx does not saturate"
        width = self.program.widths[node.name]
        weight = (np.eye(width) * (1 << (SHIFT - shift))).astype(np.int8)
        self._add(Layer(node.name, weight, np.zeros(width, np.int64)), node.name)
        return None

    def _readers(self, name: str) -> list[Node]:
        return [n for n in self.program.nodes if name in n.inputs]

    def _relu(self, node: fixed.Linear) -> fixed.Relu | None:
        """The ReLU that is all that reads a layer."""
        readers = self._readers(node.name)
        return readers[0] if len(readers) == 1 and isinstance(readers[0], fixed.Relu) else None

    def _next(self) -> fixed.Linear | fixed.Rescale | None:
        """The layer or shift that is all that reads what the stack makes."""
        readers = self._readers(self.nodes[-1]) if self.rectified else []
        return readers[0] if len(readers) == 1 and isinstance(readers[0], _LAYERS) else None

    def _why_not(self, node: fixed.Linear, relu: fixed.Relu | None) -> str | None:
        """Why netx does not compute a layer as the program does, or None where it does."""
        leaves = all(isinstance(reader, fixed.Dequantize) for reader in self._readers(node.name))
        if relu is None and not self.layers and not leaves:
            return _NO_RELU
        x = self.program.formats[node.inputs[0]]
        return why_not(node, node.shift(x), self.bounds, relu is not None)


def lift(node: fixed.Linear, bounds: Bounds) -> int:
    """What makes every output of a last layer without ReLU at least zero, so that netx's passes it.

    What would be below saturates in the program, at the same value at which netx's ReLU then ends.
    """
    least, _ = bounds.sums(node.weight, node.bias >> SHIFT)
    return min(max(0, -(int(least.min()) >> SHIFT)), largest_integer(node.bits))


def why_not(node: fixed.Linear, shift: np.ndarray, bounds: Bounds, rectified: bool) -> str | None:
    """Why netx does not compute a dense layer as the program does, naming the row; None where it does.

    Args:
        node: the layer.
        shift: (rows,) of its sums.
        bounds: of what it reads.
        rectified: whether a ReLU follows; else it is the last of its stack and gets an offset.
    """
    if node.rounding != "floor":
        return f"rounding is {node.rounding}, netx rounds down"
    if np.abs(node.weight.astype(int)).max(initial=0) > MOST_WEIGHT:
        return f"weight reaches {np.abs(node.weight.astype(int)).max()}, expected at most {MOST_WEIGHT}"
    if not node.weight.any():
        return "its weight is all zeros, and netx cannot load such a matrix"
    wrong = np.flatnonzero(shift != SHIFT)
    if len(wrong):
        return f"row {wrong[0]} is shifted by {shift[wrong[0]]}, netx shifts every row by {SHIFT}"
    wrong = np.flatnonzero(node.bias % (1 << SHIFT))
    if len(wrong):
        return (
            f"bias of row {wrong[0]} is {node.bias[wrong[0]]}, expected a multiple of {1 << SHIFT}: "
            "netx adds whole units of the output"
        )
    return _too_wide(node, bounds, rectified)


def _too_wide(node: fixed.Linear, bounds: Bounds, rectified: bool) -> str | None:
    bias = node.bias.astype(np.int64) >> SHIFT
    least, greatest = bounds.sums(node.weight, bias)
    most = largest_integer(node.bits)
    reach = greatest >> SHIFT
    row = int(reach.argmax())
    if reach[row] > most:
        return f"row {row} could reach {reach[row]} and saturates at {most}; netx does not saturate"
    offset = 0 if rectified else lift(node, bounds)
    sent = (greatest >> SHIFT) + offset
    row = int(sent.argmax())
    if sent[row] > largest_integer(MESSAGE_BITS):
        return f"row {row} could send {sent[row]}, expected less than 2 ** {MESSAGE_BITS - 1}"
    sums = np.maximum(bounds.widest(node.weight), np.maximum(greatest + (offset << SHIFT), -least))
    row = int(sums.argmax())
    if sums[row] >= 1 << (SUM_BITS - 1):
        return f"the sum of row {row} could reach {sums[row]} in netx, expected less than 2 ** {SUM_BITS - 1}"
    return None
