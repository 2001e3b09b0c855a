"""A Program as an ONNX graph with explicit state, run by ONNX Runtime, for `lrnn bench stream`.

Inputs and outputs are bound to numpy arrays once: a call copies a frame in and an output out, and runs. Two
bindings take turns, so that a step's last state is the next one's first without a copy.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from lrnn.program import nodes as op
from lrnn.program.program import Program

_OPSET, _IR = 20, 9  # what ONNX Runtime 1.20 reads
_INT64 = 7  # onnx.TensorProto.INT64


class OnnxStep:
    """Runs a program frame by frame in ONNX Runtime, on one thread with all its graph optimisations.

    Args:
        program: the network, all weights dense.
        int8: quantise it with ONNX Runtime's dynamic quantisation: 8-bit weights, one scale a matrix, and
            8-bit inputs whose scale is found anew in every product.

    Attributes:
        version: of ONNX Runtime.

    Raises:
        ImportError: onnx or onnxruntime is not installed.
        ValueError: the program holds a node with no form here.
    """

    def __init__(self, program: Program, *, int8: bool = False):
        runtime = _import()[1]
        self.version = runtime.__version__
        options = runtime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 3
        model = model_of(program)
        data = _quantised(model) if int8 else model.SerializeToString()
        self._session = runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        self._frame = np.zeros((1, program.input_width), np.float32)
        self._y = np.zeros((1, program.output_width), np.float32)
        states = [
            [np.zeros((1, width), np.float32) for width in program.state_widths.values()] for _ in range(2)
        ]
        self._runs = [self._bound(runtime, states[i], states[1 - i]) for i in range(2)]
        self._next = 0

    def _bound(self, runtime, before: list[np.ndarray], after: list[np.ndarray]) -> Callable[[], None]:
        """A run from these states to those."""
        binding = self._session.io_binding()
        value = runtime.OrtValue.ortvalue_from_numpy  # shares the array's memory
        for spec, array in zip(self._session.get_inputs(), [self._frame, *before], strict=True):
            binding.bind_ortvalue_input(spec.name, value(array))
        for spec, array in zip(self._session.get_outputs(), [self._y, *after], strict=True):
            binding.bind_ortvalue_output(spec.name, value(array))
        return partial(self._session.run_with_iobinding, binding)

    def __call__(self, frame: np.ndarray) -> np.ndarray:
        """The output (output_width,) of the next frame (input_width,), a fresh array."""
        self._frame[0] = frame
        self._runs[self._next]()
        self._next ^= 1
        return self._y[0].copy()


def model_of(program: Program):
    """The graph as an onnx.ModelProto: inputs are a frame (1, input_width) and each state (1, width).

    A state's input is called after its node with " before" at the end; outputs are the program's output and
    the states, by the names of their nodes.

    Raises:
        ImportError: onnx is not installed.
        ValueError: the program holds a node with no form here.
    """
    graph = _Graph(_import()[0])
    for node in program.nodes:
        if type(node) not in _FORMS:
            raise ValueError(f"node {node.name!r} ({node.op}) has no ONNX form to compare with")
        _FORMS[type(node)](graph, node)
    return graph.model(program)


class _Graph:
    """Nodes and constants, gathered."""

    def __init__(self, onnx):
        self._onnx = onnx
        self._nodes: list = []
        self._constants: list = []

    def add(self, kind: str, inputs: list[str], output: str, **attributes) -> str:
        """One ONNX node; its output's name."""
        self._nodes.append(self._onnx.helper.make_node(kind, inputs, [output], **attributes))
        return output

    def constant(self, name: str, value: np.ndarray) -> str:
        """A weight; its name."""
        self._constants.append(self._onnx.numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def model(self, program: Program):
        def value(name: str, width: int):
            return self._onnx.helper.make_tensor_value_info(name, self._onnx.TensorProto.FLOAT, [1, width])

        states = program.state_widths
        output = program.output
        if output in states or output == program.input:  # a name may not go out twice
            output = self.add("Identity", [output], output + " out")
        graph = self._onnx.helper.make_graph(
            self._nodes,
            "step",
            [value(program.input, program.input_width)]
            + [value(_before(name), width) for name, width in states.items()],
            [value(output, program.output_width)] + [value(name, width) for name, width in states.items()],
            self._constants,
        )
        opset = self._onnx.helper.make_opsetid("", _OPSET)
        model = self._onnx.helper.make_model(graph, opset_imports=[opset], ir_version=_IR)
        self._onnx.checker.check_model(model, full_check=True)
        return model


def _before(name: str) -> str:
    return name + " before"


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
    graph.add("Add", [_turned(graph, node.name, node.a), node.inputs[0]], node.name)


def _gated(graph: _Graph, node: op.Gated) -> None:
    name, (g, x) = node.name, node.inputs
    u = _before(name)
    if node.rotation is not None:
        u = _turned(graph, name, node.rotation)
        twice = graph.constant(name + " twice", np.arange(2 * node.size) // 2)
        g = graph.add("Gather", [g, twice], name + " gate", axis=1)
    written = graph.add("Mul", [g, graph.add("Sub", [x, u], name + " missing")], name + " written")
    graph.add("Add", [u, written], name)


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
    op.Add: _plain("Add"),
    op.Product: _plain("Mul"),
}


def _quantised(model) -> bytes:
    """The model with 8-bit products, serialised."""
    from onnxruntime.quantization import QuantType, quantize_dynamic, shape_inference

    with tempfile.TemporaryDirectory() as folder:
        whole, prepared, out = (Path(folder, f"{name}.onnx") for name in ("whole", "prepared", "int8"))
        whole.write_bytes(model.SerializeToString())  # given a model, it moves even axes to external data
        shape_inference.quant_pre_process(whole, prepared, skip_symbolic_shape=True)
        quantize_dynamic(prepared, out, weight_type=QuantType.QInt8)
        return out.read_bytes()


def _import():
    """The onnx and onnxruntime packages, or ImportError that names the extra."""
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise ImportError(f"ONNX Runtime needs {error.name}: pip install 'lrnn[bench]'") from None
    return onnx, onnxruntime
