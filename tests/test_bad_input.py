"""Wrong input at every entry to compiled code: one clear error, no crash, nothing read out of bounds.

`make sanitize` runs these too, where a read out of bounds ends the process.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from isas import Library

import lrnn
from lrnn.engine.native import NativeEngine, NativeStream
from lrnn.engine.packed import FORMATS, PRECISIONS, PackedMatrix, aligned_bytes
from lrnn.ops import SparsePattern, SparseWeight, scan, sparse_linear
from lrnn.ops.libraries import core_library, load_op_library
from lrnn.program import Program, nodes

needs_core = pytest.mark.skipif(core_library()[0] is None, reason=f"no core: {core_library()[1]}")
needs_ops = pytest.mark.skipif(load_op_library()[0] is None, reason=f"no ops: {load_op_library()[1]}")
CORE = Library(core_library()[0])

MATRIX = np.arange(1, 7, dtype=np.float32).reshape(2, 3)


def weight(precision: str) -> np.ndarray:
    return MATRIX.astype(np.int8) if precision.startswith("w8") else MATRIX


# Packed matrices


@needs_core
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (np.ones(2), ValueError, r"x has shape \(2,\), expected \(3,\)"),
        (np.ones(4), ValueError, r"x has shape \(4,\), expected \(3,\)"),
        (np.ones((3, 1)), ValueError, r"x has shape \(3, 1\)"),
        (np.ones(()), ValueError, r"x has shape \(\)"),
        (np.array(["a", "b", "c"]), TypeError, "x holds <U1"),
        (np.ones(3, complex), TypeError, "x holds complex128"),
    ],
)
def test_x_of_a_product(precision, x, error, message):
    packed = PackedMatrix(weight(precision), precision)
    if precision.startswith("w8") and x.dtype.kind == "f":
        x = x.astype(np.int64)
    with pytest.raises(error, match=message):
        packed(x)


@needs_core
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_none(precision, bad):
    matrix = MATRIX.copy()
    matrix[1, 2] = bad
    with pytest.raises(ValueError, match="weight has NaN or infinite"):
        PackedMatrix(matrix, precision)
    with pytest.raises(ValueError, match="x has NaN or infinite"):
        PackedMatrix(MATRIX, precision)(np.array([1, bad, 1], np.float32))
    with pytest.raises(ValueError, match="x has NaN or infinite"):
        PackedMatrix(weight("w8a16"), "w8a16").quantized(np.array([1, bad, 1]), 1.0, np.ones(2))


@needs_core
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_strided_reversed_and_misaligned_arrays_are_right(precision, format):
    rng = np.random.default_rng(0)
    big = rng.integers(-9, 9, (40, 300))
    big = big.astype(np.int8 if precision.startswith("w8") else np.float32)
    kind = np.int16 if precision.startswith("w8") else np.float32
    for matrix in (big.T, big[::2, ::3], big[::-1, ::-1]):
        columns = matrix.shape[1]
        raw = np.zeros(columns * kind(0).itemsize + 1, np.uint8)
        misaligned = raw[1:].view(kind)
        misaligned[:] = rng.integers(-9, 9, columns)
        spread = np.repeat(misaligned, 2)[::2]
        packed = PackedMatrix(matrix, precision, format)
        expected = matrix.astype(np.float64) @ misaligned.astype(np.float64)
        assert np.array_equal(packed(misaligned), expected)
        assert np.array_equal(packed(spread), expected)
        assert np.array_equal(packed(misaligned[::-1]), matrix.astype(np.float64) @ misaligned[::-1])


@needs_core
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((np.ones(2), 1.0, np.ones(2)), ValueError, r"x has shape \(2,\)"),
        ((np.ones(3), 1.0, np.ones(3)), ValueError, r"row_scale has shape \(3,\)"),
        ((np.ones(3), 0.0, np.ones(2)), ValueError, "x_scale is 0.0"),
        ((np.ones(3), float("nan"), np.ones(2)), ValueError, "x_scale is nan"),
    ],
)
def test_quantized_products(arguments, error, message):
    with pytest.raises(error, match=message):
        PackedMatrix(weight("w8a16"), "w8a16").quantized(*arguments)
    with pytest.raises(TypeError, match="weights are float32, expected one of w8a16"):
        PackedMatrix(MATRIX).quantized(*arguments)


@needs_core
def test_timings():
    packed = PackedMatrix(MATRIX)
    with pytest.raises(ValueError, match="repeats is 0"):
        packed.seconds(0)
    with pytest.raises(ValueError, match="other: expected contiguous uint8"):
        packed.seconds_cold(aligned_bytes(256)[1:])
    with pytest.raises(ValueError, match="other: expected contiguous uint8"):
        packed.seconds_cold(np.ones(64, np.float32))
    assert packed.seconds_cold(aligned_bytes(100)) > 0  # no multiple of a register


# Streams


@needs_core
@pytest.mark.parametrize(
    ("frame", "error", "message"),
    [
        (np.ones(2), ValueError, r"frame has shape \(2,\)"),
        (np.ones((1, 3)), ValueError, r"frame has shape \(1, 3\)"),
        (np.array([1, np.nan, 1]), ValueError, "frame has NaN"),
        (np.array([object()] * 3), TypeError, "frame holds object"),
    ],
)
def test_frames(frame, error, message):
    stream = NativeStream(Program("x", 3, (nodes.Linear("y", ("x",), MATRIX),), "y"))
    with pytest.raises(error, match=message):
        stream.step(frame)
    misaligned = np.zeros(13, np.uint8)[1:].view(np.float32)
    misaligned[:] = 1, 2, 3
    assert np.array_equal(stream.step(misaligned), MATRIX @ misaligned)
    assert np.array_equal(stream.run(np.ones((6, 9))[::2, ::3]), np.ones((3, 3)) @ MATRIX.T)


@needs_core
@pytest.mark.parametrize("field", ["weight", "bias"])
def test_weights_of_a_program_that_are_none(field, tmp_path):
    values = {"weight": MATRIX.copy(), "bias": np.ones(2, np.float32)}
    values[field].flat[0] = np.nan
    with pytest.raises(ValueError, match=r"y.*(NaN|finite)"):
        NativeEngine(Program("x", 3, (nodes.Linear("y", ("x",), **values),), "y"))


# Ops


@needs_ops
@pytest.mark.parametrize(
    ("a", "b", "h0", "reset"),
    [
        (torch.ones(4), torch.ones(2, 3, 5), None, None),
        (torch.ones(2, 3, 4), torch.ones(2, 3, 5), None, None),
        (torch.ones(5), torch.ones(3, 5), None, None),
        (torch.ones(5), torch.ones(2, 3, 5), torch.ones(2, 4), None),
        (torch.ones(5), torch.ones(2, 3, 5), None, torch.zeros(2, 4, dtype=torch.bool)),
        (torch.ones(5), torch.ones(2, 3, 5), None, torch.zeros(2, 3)),
        (torch.ones(5, dtype=torch.complex64), torch.ones(2, 3, 5), None, None),
        (torch.ones(5), torch.ones(2, 3, 5, dtype=torch.int64), None, None),
        (torch.ones(5), torch.ones(2, 3, 5, device="meta"), None, None),
    ],
)
def test_the_scan(a, b, h0, reset):
    with pytest.raises((ValueError, TypeError), match=r"^(a|b|h0|reset): "):
        scan(a, b, h0, reset)
    if b.device.type == "cpu" and b.dtype != torch.int64:  # and below Python's checks
        with pytest.raises((ValueError, RuntimeError, TypeError)):
            torch.ops.lrnn.scan(a, b, h0, reset, False)


@needs_ops
@pytest.mark.parametrize(
    ("grad_h", "grad_last"), [((2, 2, 5), (2, 5)), ((2, 3, 5), (2, 4)), ((2, 3, 5), (5,)), ((3, 5), (2, 5))]
)
def test_gradients_of_a_scan_that_do_not_fit(grad_h, grad_last):
    with pytest.raises(RuntimeError, match="a gradient does not fit h"):
        torch.ops.lrnn.scan_backward(
            torch.ones(grad_h), torch.ones(grad_last), torch.ones(5), torch.ones(2, 3, 5), None, None, False
        )


@needs_ops
def test_a_scan_of_misaligned_and_strided_tensors():
    raw = torch.arange(2 * 40 * 70 + 1, dtype=torch.float32) / 9000
    b = raw[1:].view(2, 40, 70)  # 4 bytes past an aligned start
    a = torch.full((141,), 0.5)[1::2]
    want, _ = scan(a.contiguous(), b.clone())
    assert torch.equal(scan(a, b)[0], want)
    assert torch.equal(scan(a, b.transpose(1, 2).contiguous().transpose(1, 2))[0], want)


def pattern_of(**changes) -> SparsePattern:
    return SparsePattern.from_mask(torch.ones(4, 6) > 0)._replace(**changes)


@needs_ops
@pytest.mark.parametrize(
    "changes",
    [
        {"columns": torch.zeros(23, dtype=torch.int16)},
        {"columns": torch.zeros(24, dtype=torch.int64)},
        {"columns": torch.zeros(48, dtype=torch.int16)[::2]},
        {"cuts": torch.zeros(1, 4, dtype=torch.int32)},
        {"cuts": torch.zeros(2, 4)},
        {"cuts": torch.full((2, 4), 25, dtype=torch.int32)},
        {"cuts_t": torch.zeros(6, dtype=torch.int32)},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_pattern_that_does_not_fit_its_values(changes):
    with pytest.raises((RuntimeError, ValueError, IndexError)):
        torch.ops.lrnn.sparse_linear(torch.ones(2, 6), torch.ones(24), None, *pattern_of(**changes))


@needs_ops
@pytest.mark.parametrize(
    ("grad", "x", "order"),
    [
        (torch.ones(2, 5), torch.ones(2, 6), None),
        (torch.ones(3, 4), torch.ones(2, 6), None),
        (torch.ones(2, 4), torch.ones(2, 7), None),
        (torch.ones(2, 4, dtype=torch.float64), torch.ones(2, 6), None),
        (torch.ones(2, 4), torch.ones(2, 6), torch.zeros(5, dtype=torch.int32)),
    ],
)
def test_gradients_of_a_sparse_linear_that_do_not_fit(grad, x, order):
    pattern = pattern_of() if order is None else pattern_of(order=order)
    with pytest.raises(RuntimeError, match="lrnn::sparse_linear"):
        torch.ops.lrnn.sparse_linear_backward(grad, x, torch.ones(24), *pattern, True, True)


@needs_ops
@pytest.mark.parametrize(
    ("x", "bias", "error"),
    [
        (torch.ones(2, 5), None, ValueError),
        (torch.ones(()), None, ValueError),
        (torch.ones(2, 6, dtype=torch.int64), None, TypeError),
        (torch.ones(2, 6, device="meta"), None, ValueError),
        (torch.ones(2, 6), torch.ones(5), ValueError),
        (torch.ones(2, 6), torch.ones(4, device="meta"), ValueError),
    ],
)
def test_a_sparse_linear(x, bias, error):
    w = SparseWeight(torch.ones(24), pattern_of())
    with pytest.raises(error, match=r"^(x|bias): "):
        sparse_linear(x, w, bias)


# Files


def test_a_file_whose_shape_outgrows_its_mask(tmp_path):
    """What a file says of sizes and places is checked before anything is read through it."""
    import json

    from safetensors.numpy import load_file, save_file

    sparse = np.zeros((64, 48), np.float32)
    sparse[3, 5] = 1
    Program("x", 48, (nodes.Linear("y", ("x",), sparse),), "y").save(tmp_path / "m.lrnn")
    from lrnn.files import read_header

    header = read_header(tmp_path / "m.lrnn", "lrnn-program")
    entry = header["nodes"][0]["tensors"]["weight"]
    for shape in ([64, 49], [1 << 40, 1 << 40], [-64, -48], [64.0, 48]):
        entry["shape"] = shape
        save_file(load_file(tmp_path / "m.lrnn"), tmp_path / "n.lrnn", {"lrnn": json.dumps(header)})
        with pytest.raises(ValueError, match=r"n\.lrnn: node 'y': (mask|a length)"):
            lrnn.load(tmp_path / "n.lrnn")


def test_a_truncated_file(tmp_path):
    Program("x", 3, (nodes.Linear("y", ("x",), MATRIX),), "y").save(tmp_path / "m.lrnn")
    whole = (tmp_path / "m.lrnn").read_bytes()
    for length in (0, 4, 20, len(whole) - 1):
        (tmp_path / "n.lrnn").write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"n\.lrnn: not a safetensors file"):
            lrnn.load(tmp_path / "n.lrnn")
