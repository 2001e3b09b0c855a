"""From a Program in float to one in fixed point: exponents from ranges, integers from weights, one rule per
kind of node.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from lrnn.program import nodes as op
from lrnn.program.dead import drop_dead
from lrnn.program.fixed import nodes as fixed
from lrnn.program.fixed.exponents import TABLE_BITS, Exponents
from lrnn.program.fixed.format import Format
from lrnn.program.fixed.tables import make_table
from lrnn.program.fixed.weights import BIAS_BITS, decay_integers, map_integers
from lrnn.program.fold import fold_affine
from lrnn.program.program import Program, tensors
from lrnn.quant import Ranges, Scheme, get_scheme
from lrnn.quant.exponent import MOST_EXPONENT

NORM_SCALE_BITS = 16
MOST_EPS_BITS = 60  # of a norm's eps, which its sums of squares have to leave room for


def compile_fixed(program: Program, ranges: Ranges, scheme: str | Scheme = "w8a16") -> Program:
    """A program in fixed point that does what a program in float does: the same values by the same names.

    Its frames go in and out as floats, so that it takes the place of the other anywhere; in between there are
    integers only. Nothing in it depends on the data that run through it: exponents are static.

    A classifier ends at its logits, and `meta["output"]` says so: log-softmax has no integer form.

    Args:
        program: in float, as `lrnn.compile` makes it.
        ranges: of its values, see `calibrate`.
        scheme: a name of lrnn.quant.SCHEMES, or a Scheme.

    Raises:
        ValueError: a node has no integer form, a range is missing or that of the input is zero, a state does
            not decay, or a sum could overflow the accumulators of the scheme; the message names the node.
    """
    scheme = get_scheme(scheme)
    if scheme.float_weights is not None:
        raise ValueError(f"scheme {scheme.name!r} runs in float, expected one of integers")
    if program.is_fixed:
        raise ValueError("program is in fixed point already, expected one in float")
    meta, folded = _meta(program, ranges, scheme), simplified(program)
    if folded.output != program.output:
        meta["output"] = "logits"
    try:
        return _Lowering(folded, ranges, scheme).run(meta)
    except KeyError as error:
        raise ValueError(f"ranges: {error.args[0]}") from None


def simplified(program: Program) -> Program:
    """The program in float as it is lowered: affine maps folded, without dead states and units, without nodes
    that the output does not need and without a last log-softmax.
    """
    output = program.output
    for last in program.nodes:
        if last.name == output and isinstance(last, op.LogSoftmax):
            output = last.inputs[0]
    nodes = _needed(fold_affine(program.nodes, output), output)
    nodes = drop_dead(program.input, program.input_width, nodes, output)
    return Program(program.input, program.input_width, tuple(map(_float32, nodes)), output)


def _needed(nodes: list[op.Node], output: str) -> list[op.Node]:
    """The nodes that the output depends on."""
    needed, kept = {output}, []
    for node in reversed(nodes):
        if node.name in needed:
            kept.append(node)
            needed.update(node.inputs)
    return kept[::-1]


def _float32(node: op.Node) -> op.Node:
    return replace(node, **{name: value.astype(np.float32) for name, value in tensors(node).items()})


def _meta(program: Program, ranges: Ranges, scheme: Scheme) -> dict:
    calibration = {"observer": ranges.observer, "clips": ranges.clips}
    return {**program.meta, "scheme": scheme.to_json(), "calibration": calibration}


class _Lowering:
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

    def run(self, meta: dict) -> Program:
        """All nodes, between a quantize and a dequantize node."""
        source = self.program.input
        name = self._free(f"{source}.integers")
        exponent, bits = self._input_exponent(), self.exponents.bits(source)
        self.add(source, fixed.Quantize(name, (source,), exponent=exponent, bits=bits))
        for node in self.program.nodes:
            if type(node) not in _RULES:
                raise node.error("it has no integer form")
            _RULES[type(node)](self, node)
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


def _linear(to: _Lowering, node: op.Linear) -> None:
    names, (x,) = to.read(node, to.scheme.matrix_input_bits)
    made = to.made(node)
    bits = to.scheme.weight_bits
    if any(isinstance(reader, op.Diagonal) for reader in to.exponents.readers[node.name]):
        bits = to.scheme.b_bits
    elif _reads_a_state(to.program, node):
        bits = to.scheme.c_bits
    bias = np.zeros(len(node.weight), np.float32) if node.bias is None else node.bias
    room = min(BIAS_BITS, to.scheme.accumulator_bits - 1)  # for half of an accumulator
    scale = to.scheme.weight_scale
    integers = map_integers(node.weight, bias, bits, scale, x.exponent, made["exponent"], room)
    to.add(node.name, fixed.Linear(node.name, names, **integers.named("weight"), **made))


def _reads_a_state(program: Program, node: op.Linear) -> bool:
    """Whether it is the C of an S5: what it reads is a state, or a state's ReLU."""
    makers = {n.name: n for n in program.nodes}
    maker = makers.get(node.inputs[0])
    if isinstance(maker, (op.Relu, op.PairRelu)):
        maker = makers.get(maker.inputs[0])
    return isinstance(maker, op.Diagonal)


def _affine(to: _Lowering, node: op.Affine) -> None:
    names, (x,) = to.read(node)
    made = to.made(node)
    integers = map_integers(node.scale, node.shift, to.scheme.d_bits, "row", x.exponent, made["exponent"])
    to.add(node.name, fixed.Affine(node.name, names, **integers.named("scale"), **made))


def _diagonal(to: _Lowering, node: op.Diagonal) -> None:
    names, _ = to.read(node)
    decay, decay_exponent = decay_integers(node, to.scheme.a_bits)
    state = {"state_exponent": to.exponents.state_exponent(node), "state_bits": to.scheme.state_bits}
    made = to.made(node)
    to.add(
        node.name,
        fixed.Diagonal(node.name, names, decay=decay, decay_exponent=decay_exponent, **state, **made),
    )


def _relu(to: _Lowering, node: op.Relu | op.PairRelu) -> None:
    kind = fixed.Relu if isinstance(node, op.Relu) else fixed.PairRelu
    to.add(node.name, kind(node.name, to.read(node)[0]))


def _table(to: _Lowering, node: op.Sigmoid | op.Gelu) -> None:
    names, (x,) = to.read(node, TABLE_BITS)
    exponent, bits = to.exponents.exponent(node.name), to.exponents.bits(node.name)
    table, max_error = make_table(node.op, x.bits, x.exponent, bits, exponent)
    values = {"function": node.op, "max_error": max_error, "exponent": exponent, "bits": bits}
    to.add(node.name, fixed.Table(node.name, names, table=table, **values))


def _layer_norm(to: _Lowering, node: op.LayerNorm) -> None:
    made, n = to.made(node), len(node.scale)
    finest = (MOST_EPS_BITS - math.frexp(n * n * node.eps)[1]) // 2
    names, (x,) = to.read(node, TABLE_BITS, min(finest, MOST_EXPONENT))
    t = fixed.Norm.NORMAL_EXPONENT
    integers = map_integers(node.scale, node.shift, NORM_SCALE_BITS, "row", t, made["exponent"])
    eps = max(1, round(n * n * node.eps * 2.0 ** (2 * x.exponent)))
    to.add(
        node.name,
        fixed.Norm(node.name, names, **integers.named("scale"), eps=eps, centred=True, **made),
    )


def _two(kind: type[fixed.Add] | type[fixed.Product]) -> Callable:
    return lambda to, node: to.add(node.name, kind(node.name, to.read(node)[0], **to.made(node)))


def _round(to: _Lowering, node: op.Round) -> None:
    """What is that coarse already passes as it is."""
    (name,), (x,) = to.read(node)
    if x.exponent <= node.exponent:
        to.names[node.name] = name
        return
    made = {**to.made(node), "exponent": node.exponent}
    to.add(node.name, fixed.Rescale(node.name, (name,), **made))


def _mean_pool(to: _Lowering, node: op.MeanPool) -> None:
    to.add(node.name, fixed.MeanPool(node.name, to.read(node)[0], size=node.size))


_RULES: dict[type[op.Node], Callable[[_Lowering, op.Node], None]] = {
    op.Linear: _linear,
    op.Affine: _affine,
    op.Diagonal: _diagonal,
    op.Relu: _relu,
    op.PairRelu: _relu,
    op.Sigmoid: _table,
    op.Gelu: _table,
    op.LayerNorm: _layer_norm,
    op.Add: _two(fixed.Add),
    op.Product: _two(fixed.Product),
    op.Round: _round,
    op.MeanPool: _mean_pool,
}
