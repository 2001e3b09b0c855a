"""Fixed-point nodes while they are being made: names, formats, and what a reader needs of a value."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from lrnn.program import nodes as op
from lrnn.program.fixed import nodes as fixed
from lrnn.program.fixed.exponents import Exponents
from lrnn.program.fixed.format import Format
from lrnn.program.program import Program
from lrnn.quant import Ranges, Scheme
from lrnn.quant.exponent import MOST_EXPONENT

Rule = Callable[["Lowering", op.Node], None]


class Lowering:
    """Fixed-point nodes while they are being made.

    Args:
        program: in float.
        ranges: of its values.
        scheme: widths.
    """

    def __init__(self, program: Program, ranges: Ranges, scheme: Scheme):
        self.program, self.scheme = program, scheme
        self.exponents = Exponents(program, ranges, scheme)
        self.nodes: list[op.Node] = []
        self.names: dict[str, str] = {}  # of the integers of each value
        self.formats: dict[str, Format | None] = {program.input: None}

    def run(self, rules: Mapping[type[op.Node], Rule], meta: dict) -> Program:
        """All nodes, between a quantize and a dequantize node; a token goes in as it is."""
        source = self.program.input
        if not self.program.reads_tokens:
            name = self._free(f"{source}.integers")
            exponent, bits = self._input_exponent(), self.exponents.bits(source)
            self.add(source, fixed.Quantize(name, (source,), exponent=exponent, bits=bits))
        for node in self.program.nodes:
            if type(node) not in rules:
                raise node.error("it has no integer form")
            rules[type(node)](self, node)
        output = self.names[self.program.output]
        last = self._free(f"{output}.floats")
        self.nodes.append(fixed.Dequantize(last, (output,)))
        return Program(source, self.program.input_width, tuple(self.nodes), last, meta)

    def add(self, value: str, node: op.Node) -> None:
        """Append a node that makes the integers of a value of the float program."""
        formats = tuple(self.formats[name] for name in node.inputs)
        self.formats[node.name] = node.format(formats)  # raises where a sum could overflow
        self._check_accumulator(node, formats)
        self.nodes.append(node)
        self.names[value] = node.name

    def read(
        self, node: op.Node, bits: int = 32, exponent: int = MOST_EXPONENT
    ) -> tuple[tuple[str, ...], list[Format]]:
        """Names and formats of the integers that a node of the float program reads.

        Args:
            node: the reader.
            bits: the most it can read; a wider value is made narrower first.
            exponent: the finest it can read.
        """
        names = [self._narrowed(self.names[name], bits, exponent) for name in node.inputs]
        return tuple(names), [self.formats[name] for name in names]

    def made(self, node: op.Node) -> dict:
        """Exponent, width and rounding of the value that a node of the float program makes."""
        return {
            "exponent": self.exponents.exponent(node.name),
            "bits": self.exponents.bits(node.name),
            "rounding": self.scheme.rounding,
        }

    def _narrowed(self, name: str, bits: int, exponent: int) -> str:
        """A value at these bits and this exponent at most, made when first asked for."""
        found = self.formats[name]
        bits = min(bits, found.bits)
        exponent = min(exponent, found.exponent - (found.bits - bits))
        if (bits, exponent) == (found.bits, found.exponent):
            return name
        narrow = f"{name}.bits{bits}.exponent{exponent}"
        if narrow not in self.formats:
            rounding = self.scheme.rounding
            node = fixed.Rescale(narrow, (name,), exponent=exponent, bits=bits, rounding=rounding)
            self.formats[narrow] = node.format((found,))
            self.nodes.append(node)
        return narrow

    def _input_exponent(self) -> int:
        """No finer than a model rounds its input."""
        exponent = self.exponents.exponent(self.program.input)
        readers = self.exponents.readers[self.program.input]
        if readers and all(isinstance(reader, op.Round) for reader in readers):
            exponent = min(exponent, max(reader.exponent for reader in readers))
        return exponent

    def _check_accumulator(self, node: op.Node, formats: tuple) -> None:
        most = self.scheme.accumulator_bits
        if most < 64 and isinstance(node, fixed.Linear):
            for row, bound in enumerate(node.bounds(formats[0])):
                if bound >= 1 << (most - 1):
                    raise node.error(
                        f"the sum of row {row} could reach {bound}, expected less than 2 ** {most - 1} "
                        f"(scheme {self.scheme.name!r}: accumulator_bits is {most})"
                    )

    def _free(self, name: str) -> str:
        while name in self.program.widths:
            name += "_"
        return name
