"""A Program's ONNX graph (lrnn.export.onnx) run by ONNX Runtime, for `lrnn bench stream`.

Inputs and outputs are bound to numpy arrays once: a call copies a frame in and an output out, and runs. Two
bindings take turns, so that a step's last state is the next one's first without a copy.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from lrnn.export.onnx import onnx_model
from lrnn.program.program import Program


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
        ValueError: the program is in fixed point.
    """

    def __init__(self, program: Program, *, int8: bool = False):
        runtime = _import()
        self.version = runtime.__version__
        options = runtime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 3
        model = onnx_model(program)
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
    """The onnxruntime package, or ImportError that names the extra."""
    try:
        import onnxruntime
    except ImportError:
        raise ImportError("ONNX Runtime needs onnxruntime: pip install 'lrnn[bench]'") from None
    return onnxruntime
