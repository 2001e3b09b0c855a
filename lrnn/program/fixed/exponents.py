"""Which exponent and width every value of a fixed-point program gets.

A *message* is a value that a matrix, a table, a product, a norm or a mean reads: it has the scheme's
`activation_bits`. Any other value (what a recurrence or a sum reads, and what leaves the program) lives where
the sum that makes it lives, and keeps WIDE bits. A *gate* of a recurrence, as its sigmoid makes it and as a
bound leaves it, has the scheme's `gate_bits`: a memory of many frames is a small number.
"""

from __future__ import annotations

from functools import cache

from lrnn.program import nodes as op
from lrnn.program.calibrate import gates
from lrnn.program.program import Program
from lrnn.quant import Ranges, Scheme, exponent_for_range
from lrnn.quant.exponent import MOST_EXPONENT, MOST_GATE_EXPONENT, SATURATED_SIGMOID

WIDE = 24
"""Bits of values that are no messages: float32 holds them exactly, and two sum in 32 bits."""
GUARD = 6
"""Bits that what a sum reads has below what it makes."""
STATE_HEADROOM = 1
"""Bits of a state above its calibrated range: saturation there is heard as long as the state remembers."""
OUTPUT_HEADROOM = 3
"""Bits of the output above its calibrated range; a wide value has them to spare."""

TABLE_BITS = 16
"""Most bits of what a table or a norm reads, and a table makes."""

_RELUS = (op.Relu, op.PairRelu)
_TABLES = (op.Sigmoid, op.Silu, op.Gelu)
_ANY_WIDTH = (op.Add, op.Diagonal)


class Exponents:
    """Exponent and width of the value that each node of a float program makes.

    Args:
        program: in float.
        ranges: of its values.
        scheme: widths.
    """

    def __init__(self, program: Program, ranges: Ranges, scheme: Scheme):
        self.output, self.ranges, self.scheme = program.output, ranges, scheme
        self.nodes, self.gates = {node.name: node for node in program.nodes}, gates(program)
        self.readers: dict[str, list[op.Node]] = {program.input: [], **{name: [] for name in self.nodes}}
        for node in program.nodes:
            for name in node.inputs:
                self.readers[name].append(node)
        # One object asks for the same values again and again.
        self.is_message, self.exponent = cache(self._is_message), cache(self._exponent)

    def bits(self, name: str) -> int:
        """Width of a value."""
        if name in self.gates:
            return self.scheme.gate_bits
        bits = self.scheme.activation_bits if self.is_message(name) else WIDE
        if isinstance(self.nodes.get(name), _TABLES):
            return min(bits, self.scheme.activation_bits, TABLE_BITS)
        return bits

    def _is_message(self, name: str) -> bool:
        return any(self._asks_for_message(name, reader) for reader in self.readers[name])

    def _asks_for_message(self, name: str, reader: op.Node) -> bool:
        if isinstance(reader, _RELUS):
            return self.is_message(reader.name)
        if isinstance(reader, op.Gated):
            return name == reader.inputs[0]
        return not isinstance(reader, _ANY_WIDTH)

    def _exponent(self, name: str) -> int:
        """Exponent of a value."""
        bits = self.bits(name)
        if self.is_message(name):
            return self._fitting(name, bits)
        wanted = [self._wanted(name, reader) for reader in self.readers[name]]
        headroom = OUTPUT_HEADROOM if name == self.output and bits == WIDE else 0
        return min([*wanted, self._fitting(name, bits - headroom)])

    def _wanted(self, name: str, reader: op.Node) -> int:
        """How fine a reader of any width would have a value."""
        if isinstance(reader, (op.Diagonal, op.Gated)):
            return self.state_exponent(reader)
        if isinstance(reader, _RELUS):
            return self.exponent(reader.name)
        return self.exponent(reader.name) + GUARD

    def state_exponent(self, node: op.Diagonal | op.Gated) -> int:
        """Of what a recurrence carries: the range of the value that it makes or, where it is a mean of what
        it reads, all of that; a part of a complex mean may be sqrt(2) times as large.
        """
        if isinstance(node, op.Gated):
            x = node.inputs[1]
            more = self.scheme.state_bits - self.bits(x)
            return _capped(self._fitting(x, self.bits(x)) + more - (node.rotation is not None))
        largest = self._whole(node.name)
        return _capped(exponent_for_range(largest, self.scheme.state_bits) - STATE_HEADROOM)

    def _fitting(self, name: str, bits: int) -> int:
        """The finest exponent at which all of a value that matters to its readers fits."""
        if isinstance(self.nodes.get(name), op.Sigmoid):
            return bits - 1  # 1 itself saturates, by the last bit
        if name in self.gates:
            return min(exponent_for_range(self._whole(name), bits), MOST_GATE_EXPONENT)
        readers = self.readers[name]
        if readers and name != self.output:
            if all(isinstance(r, _RELUS) for r in readers):  # what they do not pass on may saturate
                return min(self.exponent(r.name) for r in readers)
            if all(isinstance(r, op.Sigmoid) for r in readers):
                return _capped(exponent_for_range(min(self._whole(name), SATURATED_SIGMOID), bits))
        return _capped(exponent_for_range(self._whole(name), bits))

    def _whole(self, name: str) -> float:
        """The range of a value, above zero; one that never moved has the range of what it is made from."""
        largest = self.ranges[name].max_abs
        if largest > 0:
            return largest
        if name not in self.nodes:
            raise ValueError(f"input {name!r}: its range is zero on the calibration data: no scale fits it")
        return self._whole(self.nodes[name].inputs[0])


def _capped(exponent: int) -> int:
    return max(-MOST_EXPONENT, min(MOST_EXPONENT, exponent))
