"""Sparse matrices times many columns, timed without a caller: csrc/core/spmm/spmm_time.h through ctypes."""

from __future__ import annotations

import ctypes
import functools
from ctypes import POINTER, byref, c_char_p, c_double, c_int32, c_int64, c_void_p

import torch
from torch import Tensor

from lrnn.engine.core import open_core
from lrnn.ops import SparseWeight

SUBJECTS = {"kernel": 0, "xnnpack": 1, "panels": 2}
_PANEL = 64


class _Matrix(ctypes.Structure):
    _fields_ = (
        ("rows", c_int64),
        ("cols", c_int64),
        ("is_double", c_int32),
        ("wide_columns", c_int32),
        ("cuts", c_void_p),
        ("columns", c_void_p),
        ("values", c_void_p),
    )


@functools.cache
def _core() -> ctypes.CDLL:
    signatures = {
        "lrnn_isa": (c_char_p,),
        "lrnn_spmm_time": (c_double, POINTER(_Matrix), c_int32, c_int64, c_void_p, c_void_p, c_int64),
        "lrnn_load_multiply_add_rate": (c_double, c_int64),
    }
    return open_core(signatures, "timings of sparse products are")


class TimedProduct:
    """y = x W^T inside C++, on this thread.

    Args:
        w: float32, on the CPU.
        x: (T, cols) float32.
        subject: "kernel", what `lrnn.sparse_linear` runs; "xnnpack", a product in XNNPACK's manner, which has
            x as (cols, T) and y as (rows, T); or "panels", the kernel without transposing, T a multiple of
            64. What the last two need transposed is not timed.

    Raises:
        RuntimeError: the core is not built here; the message says why.
        TypeError, ValueError: arguments that do not fit.
    """

    def __init__(self, w: SparseWeight, x: Tensor, subject: str = "kernel"):
        if subject not in SUBJECTS:
            raise ValueError(f"subject is {subject!r}, expected one of {', '.join(SUBJECTS)}")
        rows, cols = w.pattern.shape
        for name, tensor in (("w", w.values), ("x", x)):
            if tensor.dtype != torch.float32 or tensor.device.type != "cpu":
                raise TypeError(
                    f"{name}: found {tensor.dtype} on {tensor.device}, expected float32 on the CPU"
                )
        if x.dim() != 2 or x.shape[1] != cols or not x.numel():
            raise ValueError(f"x: shape is {tuple(x.shape)}, expected (T, {cols}) to fit w, not empty")
        if subject == "xnnpack" and 4 * cols * len(x) >= 2**31:
            raise ValueError(f"x: found {len(x)} x {cols} numbers, expected fewer than 2^29 (32-bit offsets)")
        if subject == "panels" and len(x) % _PANEL:
            raise ValueError(f"x: found {len(x)} time steps, expected a multiple of {_PANEL} for panels")
        self._core, self._subject, self._steps = _core(), SUBJECTS[subject], len(x)
        # Every layout is (panels, width, steps of a panel): one step in each, all in one, or 64.
        panel = {"kernel": 1, "xnnpack": len(x), "panels": _PANEL}[subject]
        self._x = x.reshape(-1, panel, cols).transpose(1, 2).contiguous()
        self._y = torch.zeros(len(x) // panel, rows, panel)
        self._kept = w.values.detach().contiguous(), w.pattern
        is_wide = w.pattern.columns.dtype == torch.int32
        pointers = (w.pattern.cuts.data_ptr(), w.pattern.columns.data_ptr(), self._kept[0].data_ptr())
        self._matrix = _Matrix(rows, cols, False, is_wide, *pointers)

    @property
    def y(self) -> Tensor:
        """(T, rows), what the last call computed."""
        return self._y.transpose(1, 2).reshape(self._steps, -1)

    def __call__(self, repeats: int) -> float:
        """Seconds of one product, from `repeats` in a row."""
        return self._core.lrnn_spmm_time(
            byref(self._matrix), self._subject, self._steps, self._x.data_ptr(), self._y.data_ptr(), repeats
        )


def load_multiply_add_rate(count: int = 3000) -> float:
    """Floating-point operations per second of multiply-adds with a load for each."""
    return _core().lrnn_load_multiply_add_rate(count)


def isa() -> str:
    """Name of the instruction set that is active."""
    return _core().lrnn_isa().decode()
