"""Products as called from Python: other libraries' dense and sparse ones beside lrnn's, one thread each."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable

import numpy as np
import torch

from lrnn.profile.bench.matrices import pack, random_matrix
from lrnn.profile.bench.timing import interleaved, interleaved_cold
from lrnn.quant.exponent import quantize_weight

_BLOCK = 8  # calls of one timed function: the loop around them costs little then


def measure(sizes: tuple[int, ...], sparsity: float, rounds: int, seed: int, other: np.ndarray) -> list[dict]:
    """A row for each size with the seconds of every library that is installed here, warm and cold.

    Args:
        sizes: of square matrices; dense libraries get the same matrix with its zeros.
        sparsity: fraction of zeros, Bernoulli.
        rounds: most timed rounds.
        seed: of weights and masks.
        other: memory that empties the caches.

    Raises:
        RuntimeError: a product differs from numpy's by more than its precision allows.
    """
    rows = []
    for n in sizes:
        weight = random_matrix(n, n, sparsity, seed)
        x = np.random.default_rng(seed).uniform(-1, 1, n).astype(np.float32)
        calls, left_out = _subjects(weight, x)
        _check(calls, weight, x)
        blocks = {name: lambda call=call: [call() for _ in range(_BLOCK)] for name, call in calls.items()}
        warm = interleaved(blocks, rounds=rounds, chunk=1e-3)
        cold = interleaved_cold(
            {name: lambda call=call: _once_after(other, call) for name, call in calls.items()}, rounds
        )
        seconds = {
            name: {"median": t.median / _BLOCK, "minimum": t.minimum / _BLOCK} for name, t in warm.items()
        }
        cold_seconds = {name: {"median": t.median, "minimum": t.minimum} for name, t in cold.items()}
        rows.append(
            {
                "name": f"{n} from Python",
                "size": n,
                "seconds": seconds,
                "seconds_cold": cold_seconds,
                "left_out": left_out,
            }
        )
    return rows


def _subjects(weight: np.ndarray, x: np.ndarray) -> tuple[dict[str, Callable], dict[str, str]]:
    """Functions that return y of W x, by name, and why others are missing."""
    w, v, y = torch.from_numpy(weight), torch.from_numpy(x), torch.empty(len(weight))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls its CSR beta
        csr = w.to_sparse_csr()
    calls: dict[str, Callable] = {
        "torch float32 (MKL)": lambda: torch.mv(w, v, out=y),
        "torch CSR (MKL)": lambda: torch.mv(csr, v, out=y),
    }
    left_out = {}
    try:
        calls["ONNX Runtime float32"] = _onnx(weight, x, quantized=False)
        calls["ONNX Runtime int8, dynamic"] = _onnx(weight, x, quantized=True)
    except ImportError as error:
        left_out["ONNX Runtime"] = f"{error.name} is not installed"
    for format in ("dense", "sparse"):
        packed, _ = pack(weight, "float32", format)
        calls[f"lrnn float32 {format}"] = lambda packed=packed: packed(x)
        integers, _ = pack(weight, "w8a16", format)
        scale = np.ldexp(1.0, -quantize_weight(weight, 8)[1]).astype(np.float32) / 32767
        calls[f"lrnn w8a16 {format}"] = lambda p=integers, scale=scale: p.quantized(x, 32767.0, scale)
    return calls, left_out


def _onnx(weight: np.ndarray, x: np.ndarray, *, quantized: bool) -> Callable:
    """A session over one product, inputs and outputs bound: float32, or x rounded to uint8 in every call."""
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    n, m = weight.T.shape
    if quantized:
        integers, exponents = quantize_weight(weight, 8)
        constants = {"w": integers.astype(np.int8).T.copy(), "s": np.ldexp(np.float32(1), -exponents)}
        nodes = [
            helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"]),
            helper.make_node("MatMulInteger", ["q", "w", "zero"], ["sums"]),
            helper.make_node("Cast", ["sums"], ["floats"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["scale", "s"], ["scales"]),
            helper.make_node("Mul", ["floats", "scales"], ["y"]),
        ]
    else:
        constants = {"w": weight.T.copy()}
        nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    graph = helper.make_graph(
        nodes,
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, n])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, m])],
        [numpy_helper.from_array(np.asarray(value, value.dtype), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    bound = session.io_binding()
    bound.bind_ortvalue_input("x", onnxruntime.OrtValue.ortvalue_from_numpy(x[None]))
    result = onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros((1, m), np.float32))
    bound.bind_ortvalue_output("y", result)

    def call():
        session.run_with_iobinding(bound)
        return result

    return call


def _check(calls: dict[str, Callable], weight: np.ndarray, x: np.ndarray) -> None:
    expected = weight.astype(np.float64) @ x
    most = max(np.abs(expected).max(), 1e-30)
    for name, call in calls.items():
        found = call()
        found = (found.numpy() if hasattr(found, "numpy") else found).reshape(-1)
        error = np.abs(found - expected).max() / most
        allowed = 1e-4 if "float32" in name or "CSR" in name else 0.05
        if not error < allowed:
            raise RuntimeError(f"{name} differs by {error:.1e} of the largest output")


def _once_after(other: np.ndarray, call: Callable) -> float:
    """Seconds of one call after a pass over `other`."""
    int(other.view(np.uint64).max())
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def table(result: dict) -> str:
    """A line for each library, a column for each size: microseconds, and times faster than torch's dense."""
    rows = result["python"]
    base = "torch float32 (MKL)"
    lines = [
        f"called from Python, {100 * result['sparsity']:g} % zeros: us warm (x {base}) | us cold (x)",
        f"{'':28}" + "".join(f"{row['size']:>34}" for row in rows),
    ]
    for name in rows[0]["seconds"]:
        cells = ""
        for row in rows:
            parts = []
            for times in (row["seconds"], row["seconds_cold"]):
                us, ratio = times[name]["median"] * 1e6, times[base]["median"] / times[name]["median"]
                parts.append(f"{us:.1f} ({ratio:.1f})")
            cells += f"{' | '.join(parts):>34}"
        lines.append(f"{name:28}{cells}")
    lines += [f"left out: {name}: {why}" for name, why in rows[0]["left_out"].items()]
    return "\n".join(lines)
