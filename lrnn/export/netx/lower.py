"""From a chain of dense layers in float to a fixed-point program that stock netx carries as a whole.

netx leaves no exponent to choose but that of the input: with one exponent w for the 8-bit weights of a layer
and the shift by 6, a value's exponent is w + e(x) - 6. Values are as wide as they have to be instead, so that
none saturates whatever goes in; the input gets as many bits as the proof of that allows. Where those are few,
in wide and deep networks, values are shifted behind their ReLU, which in netx takes a diagonal layer.
"""

from __future__ import annotations

import numpy as np

from lrnn.export.netx.segments import why_not
from lrnn.export.netx.stack import MESSAGE_BITS, SHIFT, Bounds, Layer
from lrnn.program import Program
from lrnn.program import nodes as op
from lrnn.program.fixed import nodes as fixed
from lrnn.program.fixed.compiler import simplified
from lrnn.program.fixed.format import Format
from lrnn.quant import Ranges, Scheme, exponent_for_range, quantize_weight

SCHEME = Scheme(
    "netx",
    activation_bits=16,
    weight_scale="tensor",
    rounding="floor",
    message_bits=None,
    accumulator_bits=32,
)
"""What travels with such a program: 8-bit weights with one scale for each matrix, rounding down."""
_ENOUGH_BITS = 10  # of the input; with fewer, layers that only shift are put in to have more
_FEWEST_BITS = 4


def compile_netx(program: Program, ranges: Ranges) -> Program:
    """A program in fixed point that netx computes bit for bit, of one in float.

    Any executor runs it. Beside `lrnn.compile_fixed` with the scheme w8a16 it loses the scale of its own that
    each row of a matrix has there, bits of the input, the finer part of biases, and rounding to the nearest;
    the mean of rounding down, half a unit, is put into the biases.

    Args:
        program: in float: Linear and Relu nodes in turn, as `lrnn.compile` makes of a `torch.nn.Sequential`.
        ranges: of its values, see `lrnn.calibrate`; only the input's is used.

    Raises:
        ValueError: another kind of node, a branch, a matrix of zeros, or sums that would not fit whatever the
            input's width; the message names the node.
    """
    if program.is_fixed:
        raise ValueError("program is in fixed point already, expected one in float")
    folded = simplified(program)
    chain = _checked_chain(folded)
    try:
        largest = ranges[program.input].max_abs
    except KeyError as error:
        raise ValueError(f"ranges: {error.args[0]}") from None
    if largest <= 0:
        raise ValueError(
            f"input {program.input!r}: its range is zero on the calibration data: no scale fits it"
        )
    meta = {
        **program.meta,
        "scheme": SCHEME.to_json(),
        "calibration": {"observer": ranges.observer, "clips": ranges.clips},
    }
    if folded.output != program.output:
        meta["output"] = "logits"
    problem = None
    for shifting, fewest in ((False, _ENOUGH_BITS), (True, _FEWEST_BITS)):
        for bits in range(SCHEME.activation_bits, fewest - 1, -1):
            try:
                nodes = _Chain(folded, bits, exponent_for_range(largest, bits), shifting).lowered(chain)
                return Program(program.input, program.input_width, nodes, nodes[-1].name, meta)
            except ValueError as error:
                problem = error
    raise problem


def _checked_chain(program: Program) -> list[op.Linear | op.Relu]:
    """The nodes, each of which reads the one before it: they have one input each, and all are needed."""
    for i, node in enumerate(program.nodes):
        expected = (op.Linear, op.Relu)[i % 2]
        if not isinstance(node, expected):
            raise node.error(
                f"it is {node.op}, expected {expected.op}: netx carries dense layers with ReLU between them"
            )
    if not program.nodes:
        raise ValueError("program has no nodes, expected dense layers")
    return list(program.nodes)


class _Chain:
    """The nodes while they are being made.

    Args:
        program: in float.
        bits: of the input.
        exponent: of the input.
        shifting: whether nodes that only shift may stand between layers.
    """

    def __init__(self, program: Program, bits: int, exponent: int, shifting: bool):
        first = f"{program.input}.integers"
        self.nodes: list[op.Node] = [fixed.Quantize(first, (program.input,), exponent=exponent, bits=bits)]
        self.read = self.nodes[0].format((None,))
        self.bounds = Bounds.of(self.read, program.input_width)
        self.shifting = shifting

    def lowered(self, chain: list[op.Node]) -> tuple[op.Node, ...]:
        """All nodes; ValueError names the first layer that is too wide."""
        for i, node in enumerate(chain):
            if isinstance(node, op.Relu):
                self._add(fixed.Relu(node.name, (self.nodes[-1].name,)))
            else:
                self._add_layer(node, rectified=i + 1 < len(chain))
        last = self.nodes[-1].name
        return (*self.nodes, fixed.Dequantize(f"{last}.floats", (last,)))

    def _add(self, node: op.Node) -> None:
        self.read = node.format((self.read,))
        self.nodes.append(node)

    def _add_layer(self, node: op.Linear, rectified: bool) -> None:
        """A layer, behind as small a shift as it needs to fit."""
        before, problem = (len(self.nodes), self.read, self.bounds), None
        most = SHIFT if self.shifting and isinstance(self.nodes[-1], fixed.Relu) else 0
        for shift in range(most + 1):
            self._add_shift(shift)
            made = _linear(node, self.nodes[-1].name, self.read, self.bounds, rectified)
            reason = why_not(made, made.shift(self.read), self.bounds, rectified)
            if reason is None:
                self._add(made)
                self.bounds = self.bounds.rectified(Layer(node.name, made.weight, made.bias >> SHIFT))
                return
            problem = problem or reason
            count, self.read, self.bounds = before
            del self.nodes[count:]
        raise node.error(problem)

    def _add_shift(self, shift: int) -> None:
        """A node that only shifts to the right, where there is something to shift."""
        if not shift:
            return
        exponent, bits = self.read.exponent - shift, max(self.read.bits - shift, 2)
        source = self.nodes[-1].name
        name = f"{source}.bits{bits}.exponent{exponent}"
        self._add(fixed.Rescale(name, (source,), exponent=exponent, bits=bits, rounding=SCHEME.rounding))
        self.bounds = self.bounds.shifted(shift)


def _linear(node: op.Linear, source: str, read: Format, bounds: Bounds, rectified: bool) -> fixed.Linear:
    """A layer, as wide as what it can make."""
    weight, scale = quantize_weight(node.weight, SCHEME.weight_bits, "tensor", node.name)
    exponent = int(scale) + read.exponent - SHIFT
    bias = np.zeros(len(weight)) if node.bias is None else node.bias.astype(np.float64)
    most = 2.0**MESSAGE_BITS  # more is refused anyway
    # To the nearest, and the half that rounding down takes.
    units = np.clip(np.floor(np.ldexp(bias, exponent) + 1), -most, most).astype(np.int64)
    least, greatest = bounds.sums(weight, units)
    reach = max(int(greatest.max()) >> SHIFT, 0 if rectified else -(int(least.min()) >> SHIFT))
    return fixed.Linear(
        node.name,
        (source,),
        exponent=exponent,
        bits=min(max(reach.bit_length() + 1, 2), MESSAGE_BITS),
        rounding=SCHEME.rounding,
        weight=weight.astype(np.int8),
        weight_exponent=np.full(len(weight), int(scale), np.int8),
        bias=(units << SHIFT).astype(np.int32),
    )
