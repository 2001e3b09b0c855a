"""A Program's step as an ONNX graph of standard operators with explicit state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from lrnn.program import nodes as op
from lrnn.program.program import Program, tensors

_OPSET, _IR = 20, 9  # what ONNX Runtime 1.20 reads
_INT64 = 7  # onnx.TensorProto.INT64
_MOST_BYTES = 2**31 - 2**20  # of a protocol buffer, less room for names


def onnx_model(program: Program, streams: int = 1):
    """One frame of a float program, dense, as an onnx.ModelProto.

    Inputs are a frame (streams, input_width), named as the program's input, and each state (streams, width),
    named as its node with " before" at the end, zeros at first. Outputs are (streams, output_width), named as
    the program's output, and the states in the same order, " after" at the end.

    Args:
        program: in float32.
        streams: of a frame, each with its own state.

    Raises:
        ImportError: onnx is not installed.
        ValueError: streams is no count, or the program is in fixed point or holds 2 GiB.
    """
    if program.is_fixed:
        raise ValueError("program is in fixed point, expected one in float32: the one it was made of")
    if streams < 1:
        raise ValueError(f"streams is {streams}, expected at least 1")
    size = sum(value.nbytes for node in program.nodes for value in tensors(node).values())
    if size > _MOST_BYTES:
        raise ValueError(f"program holds {size:,} bytes, expected at most {_MOST_BYTES:,}: ONNX's limit")
    graph = _Graph(_import(), program.widths)
    states = program.state_widths
    made = {n.name: _after(n.name) for n in program.nodes if isinstance(n, (op.Diagonal, op.Gated))}
    for node in program.nodes:
        inputs = tuple(made.get(name, name) for name in node.inputs)
        _FORMS[type(node)](graph, replace(node, inputs=inputs))
    output = program.output
    if output in made:  # a name may not go out twice
        graph.add("Identity", [made[output]], output)
    elif output == program.input:
        output = graph.add("Identity", [output], output + " out")
    inputs = {program.input: program.input_width, **{_before(name): width for name, width in states.items()}}
    outputs = {output: program.output_width, **{_after(name): width for name, width in states.items()}}
    return graph.model(inputs, outputs, streams)


class _Graph:
    """Nodes and constants, gathered; `widths` are those of the program's values."""

    def __init__(self, onnx, widths: dict[str, int]):
        self._onnx, self.widths = onnx, widths
        self._nodes: list = []
        self._constants: list = []

    def add(self, kind: str, inputs: list[str], output: str, **attributes) -> str:
        """One ONNX node; its output's name."""
        self._nodes.append(self._onnx.helper.make_node(kind, inputs, [output], **attributes))
        return output

    def split(self, x: str, sizes: str, outputs: list[str]) -> list[str]:
        """The parts of x along its last axis; their names."""
        self._nodes.append(self._onnx.helper.make_node("Split", [x, sizes], outputs, axis=-1))
        return outputs

    def constant(self, name: str, value: np.ndarray) -> str:
        """A weight; its name."""
        self._constants.append(self._onnx.numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def model(self, inputs: dict[str, int], outputs: dict[str, int], streams: int):
        """The graph, checked; inputs and outputs are (streams, width) by name."""
        helper = self._onnx.helper

        def values(widths: dict[str, int]) -> list:
            kind = self._onnx.TensorProto.FLOAT
            return [helper.make_tensor_value_info(name, kind, [streams, n]) for name, n in widths.items()]

        graph = helper.make_graph(self._nodes, "step", values(inputs), values(outputs), self._constants)
        opset = helper.make_opsetid("", _OPSET)
        model = helper.make_model(graph, opset_imports=[opset], ir_version=_IR, producer_name="lrnn")
        self._onnx.checker.check_model(model, full_check=True)
        return model


def _before(name: str) -> str:
    return name + " before"


def _after(name: str) -> str:
    return name + " after"


def _linear(graph: _Graph, node: op.Linear) -> None:
    name = node.name
    product = name if node.bias is None else name + " product"
    graph.add("MatMul", [node.inputs[0], graph.constant(name + " weight", node.weight.T)], product)
    if node.bias is not None:
        graph.add("Add", [product, graph.constant(name + " bias", node.bias)], name)


def _affine(graph: _Graph, node: op.Affine) -> None:
    name = node.name
    shifted = bool(np.any(node.shift))
    scaled = name + " scaled" if shifted else name
    graph.add("Mul", [node.inputs[0], graph.constant(name + " scale", node.scale)], scaled)
    if shifted:
        graph.add("Add", [scaled, graph.constant(name + " shift", node.shift)], name)


def _diagonal(graph: _Graph, node: op.Diagonal) -> None:
    graph.add("Add", [_turned(graph, node.name, node.a), node.inputs[0]], _after(node.name))


def _gated(graph: _Graph, node: op.Gated) -> None:
    name, (g, x) = node.name, node.inputs
    u = _before(name)
    if node.rotation is not None:
        u = _turned(graph, name, node.rotation)
        twice = graph.constant(name + " twice", np.arange(2 * node.size) // 2)
        g = graph.add("Gather", [g, twice], name + " gate", axis=1)
    written = graph.add("Mul", [g, graph.add("Sub", [x, u], name + " missing")], name + " written")
    graph.add("Add", [u, written], _after(name))


def _turned(graph: _Graph, name: str, a: np.ndarray) -> str:
    """The state of node `name`, (re, im) pairs, times a (P, 2)."""
    h, re, im = _before(name), a[:, 0], a[:, 1]
    swap = np.arange(2 * len(re)).reshape(-1, 2)[:, ::-1].reshape(-1)  # im, re of each pair
    straight = graph.add("Mul", [h, graph.constant(name + " re", np.repeat(re, 2))], name + " straight")
    swapped = graph.add("Gather", [h, graph.constant(name + " swap", swap)], name + " swapped", axis=1)
    signed = graph.constant(name + " im", np.stack([-im, im], axis=-1).reshape(-1))
    crossed = graph.add("Mul", [swapped, signed], name + " crossed")
    return graph.add("Add", [straight, crossed], name + " turned")


def _embedding(graph: _Graph, node: op.Embedding) -> None:
    name = node.name
    row = graph.add("Cast", [node.inputs[0]], name + " row", to=_INT64)
    flat = graph.add("Squeeze", [row, graph.constant(name + " axis", np.array([1]))], name + " flat")
    graph.add("Gather", [graph.constant(name + " weight", node.weight), flat], name, axis=0)


def _silu(graph: _Graph, node: op.Silu) -> None:
    x = node.inputs[0]
    graph.add("Mul", [x, graph.add("Sigmoid", [x], node.name + " sigmoid")], node.name)


def _rms_norm(graph: _Graph, node: op.RmsNorm) -> None:
    """In the form that ONNX Runtime fuses."""
    x, name = node.inputs[0], node.name
    square = graph.add("Pow", [x, graph.constant(name + " two", np.float32(2))], name + " square")
    mean = graph.add("ReduceMean", [square, graph.constant(name + " axes", np.array([-1]))], name + " mean")
    shifted = graph.add("Add", [mean, graph.constant(name + " eps", np.float32(node.eps))], name + " shifted")
    unit = graph.add("Div", [x, graph.add("Sqrt", [shifted], name + " root")], name + " unit")
    graph.add("Mul", [unit, graph.constant(name + " scale", node.scale)], name)


def _layer_norm(graph: _Graph, node: op.LayerNorm) -> None:
    scale = graph.constant(node.name + " scale", node.scale)
    shift = graph.constant(node.name + " shift", node.shift)
    graph.add("LayerNormalization", [node.inputs[0], scale, shift], node.name, axis=-1, epsilon=node.eps)


def _pair_relu(graph: _Graph, node: op.PairRelu) -> None:
    x, name, zero = node.inputs[0], node.name, graph.constant(node.name + " zero", np.float32(0))
    pairs = np.arange(graph.widths[name]) // 2 * 2  # of every number the place of its pair's re
    re = graph.add("Gather", [x, graph.constant(name + " even", pairs)], name + " re", axis=1)
    im = graph.add("Gather", [x, graph.constant(name + " odd", pairs + 1)], name + " im", axis=1)
    level = graph.add("Equal", [re, zero], name + " level")
    above = graph.add("And", [level, graph.add("Greater", [im, zero], name + " up")], name + " above")
    keep = graph.add("Or", [graph.add("Greater", [re, zero], name + " right"), above], name + " keep")
    graph.add("Where", [keep, x, zero], name)


def _round(graph: _Graph, node: op.Round) -> None:
    name, scale = node.name, np.float32(2.0**node.exponent)
    scaled = graph.add("Mul", [node.inputs[0], graph.constant(name + " up", scale)], name + " scaled")
    whole = graph.add("Round", [scaled], name + " whole")
    graph.add("Mul", [whole, graph.constant(name + " down", 1 / scale)], name)


def _mean_pool(graph: _Graph, node: op.MeanPool) -> None:
    name = node.name
    sizes = graph.constant(name + " sizes", np.array([node.size, 1]))
    sums, count = graph.split(_before(name), sizes, [name + " sums", name + " count"])
    sums = graph.add("Add", [sums, node.inputs[0]], name + " new sums")
    count = graph.add("Add", [count, graph.constant(name + " one", np.float32(1))], name + " new count")
    graph.add("Concat", [sums, count], _after(name), axis=1)
    graph.add("Div", [sums, count], name)


def _plain(kind: str, **attributes) -> Callable[[_Graph, op.Node], None]:
    def add(graph: _Graph, node: op.Node) -> None:
        graph.add(kind, list(node.inputs), node.name, **attributes)

    return add


_FORMS: dict[type[op.Node], Callable[[_Graph, op.Node], None]] = {
    op.Linear: _linear,
    op.Affine: _affine,
    op.Diagonal: _diagonal,
    op.Gated: _gated,
    op.Embedding: _embedding,
    op.LayerNorm: _layer_norm,
    op.RmsNorm: _rms_norm,
    op.Relu: _plain("Relu"),
    op.Sigmoid: _plain("Sigmoid"),
    op.Silu: _silu,
    op.Gelu: _plain("Gelu", approximate="tanh"),
    op.Round: _round,
    op.LogSoftmax: _plain("LogSoftmax", axis=-1),
    op.PairRelu: _pair_relu,
    op.MeanPool: _mean_pool,
    op.Add: _plain("Add"),
    op.Product: _plain("Mul"),
}


def _import():
    """The onnx package, or ImportError that names the extra."""
    try:
        import onnx
    except ImportError:
        raise ImportError("ONNX needs onnx: pip install 'lrnn[onnx]'") from None
    return onnx
