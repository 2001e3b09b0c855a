"""One packed matrix on its own: csrc/core/matvec/packed.h through ctypes."""

from __future__ import annotations

import ctypes
import functools
import weakref
from ctypes import POINTER, byref, c_char_p, c_double, c_float, c_int32, c_int64, c_void_p

import numpy as np

from lrnn.engine.core import open_core
from lrnn.engine.stream import real_array

PRECISIONS = {"float32": 0, "bfloat16": 1, "w8a16": 2, "w8a8": 3}
FORMATS = {"auto": 0, "dense": 1, "sparse": 2, "event": 3}
_CACHE_LINE = 64
_BITS = {"w8a16": 16, "w8a8": 8}

_SIGNATURES = {
    "lrnn_isa": (c_char_p,),
    "lrnn_matvec_new": (c_void_p, c_int32, c_int32, c_int32, c_int32, c_void_p, POINTER(c_char_p)),
    "lrnn_matvec_free": (None, c_void_p),
    "lrnn_matvec_bytes": (c_int64, c_void_p),
    "lrnn_matvec_kernel": (c_char_p, c_void_p),
    "lrnn_matvec_costs": (None, c_void_p, c_void_p),
    "lrnn_matvec_floats": (None, c_void_p, c_void_p, c_void_p),
    "lrnn_matvec_integers": (None, c_void_p, c_void_p, c_void_p),
    "lrnn_matvec_quantized": (None, c_void_p, c_void_p, c_float, c_void_p, c_void_p),
    "lrnn_matvec_time": (c_double, c_void_p, c_int32, c_double, c_int64),
    "lrnn_matvec_time_cold": (c_double, c_void_p, c_int32, c_double, c_void_p, c_int64),
    "lrnn_read_time": (c_double, c_int64, c_int64),
}


@functools.cache
def _core() -> ctypes.CDLL:
    return open_core(_SIGNATURES, "packed matrices are")


class PackedMatrix:
    """A matrix packed for products with one vector at a time, for the instruction set that is active now.

    Args:
        weight: (rows, cols); float32 for the float precisions, int8 for "w8a16" and "w8a8".
        precision: "float32"; "bfloat16" (weights rounded, float32 sums); "w8a16" and "w8a8" (int8 weights, x
            of 16 or 8 bits, exact sums).
        format: "auto" takes dense or sparse as the cost model has it; "event" skips columns whose x is zero.

    Attributes:
        shape: (rows, cols).
        isa: the instruction set its kernel uses.
        kernel: "dense", "windows", "csr" or "event".
        nbytes: all that a product reads of the weights, indices and padding included.

    Raises:
        RuntimeError: the core is not built here; the message says why.
        ValueError: an unknown name, a shape out of range, NaN or infinity.
        TypeError: the weight's dtype does not fit the precision.
    """

    def __init__(self, weight: np.ndarray, precision: str = "float32", format: str = "auto"):
        for name, value, known in (("precision", precision, PRECISIONS), ("format", format, FORMATS)):
            if value not in known:
                raise ValueError(f"{name} is {value!r}, expected one of {', '.join(known)}")
        dtype = np.dtype(np.int8 if precision in _BITS else np.float32)
        weight = np.asarray(weight)
        if weight.dtype != dtype:
            raise TypeError(f"weight holds {weight.dtype}, expected {dtype} for {precision}")
        if weight.ndim != 2:
            raise ValueError(f"weight has shape {weight.shape}, expected (rows, cols)")
        weight = np.ascontiguousarray(weight)
        self._core, error = _core(), c_char_p()
        handle = self._core.lrnn_matvec_new(
            PRECISIONS[precision], FORMATS[format], *weight.shape, weight.ctypes.data, byref(error)
        )
        if handle is None:
            raise ValueError(f"weight {weight.shape}: {error.value.decode()}")
        weakref.finalize(self, self._core.lrnn_matvec_free, handle)
        self._handle = handle
        self.isa = self._core.lrnn_isa().decode()
        self.precision = precision
        self.shape = weight.shape
        self.kernel = self._core.lrnn_matvec_kernel(handle).decode()
        self.nbytes = self._core.lrnn_matvec_bytes(handle)

    @property
    def costs(self) -> dict[str, float]:
        """Cycles that the model behind "auto" expects: "dense", "sparse", and "event" per active weight."""
        out = np.zeros(3)
        self._core.lrnn_matvec_costs(self._handle, out.ctypes.data)
        return dict(zip(("dense", "sparse", "event"), out.tolist(), strict=True))

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """y = W x: float32 in and out, or integers of x's width in and exact int64 out.

        Raises:
            TypeError: x holds the wrong kind of numbers.
            ValueError: x has another shape, NaN or infinity, or an integer does not fit the width.
        """
        if self.precision not in _BITS:
            x = self._finite(x)
            y = np.empty(self.shape[0], np.float32)
            self._core.lrnn_matvec_floats(self._handle, x.ctypes.data, y.ctypes.data)
            return y
        x = self._words(x)
        sums = np.empty(self.shape[0], np.int64)
        self._core.lrnn_matvec_integers(self._handle, x.ctypes.data, sums.ctypes.data)
        return sums

    def quantized(self, x: np.ndarray, x_scale: float, row_scale: np.ndarray) -> np.ndarray:
        """y = W x between floats, for integer weights: x is rounded to multiples of 1 / x_scale.

        Args:
            x: (cols,) float32; rounded half to even and saturated to its 16 or 8 bits.
            x_scale: above zero.
            row_scale: (rows,) float32: what an exact sum is multiplied with.

        Returns:
            (rows,) float32.

        Raises:
            TypeError: the weights are floats, or an argument does not hold real numbers.
            ValueError: a shape, x_scale or a number that is not finite.
        """
        if self.precision not in _BITS:
            raise TypeError(f"the weights are {self.precision}, expected one of {', '.join(_BITS)}")
        x = self._finite(x)
        row_scale = real_array(row_scale, "row_scale", (self.shape[0],))
        if not 0 < x_scale < np.inf:
            raise ValueError(f"x_scale is {x_scale}, expected a finite number above 0")
        y = np.empty(self.shape[0], np.float32)
        pointers = (x.ctypes.data, x_scale, row_scale.ctypes.data, y.ctypes.data)
        self._core.lrnn_matvec_quantized(self._handle, *pointers)
        return y

    def _finite(self, x: np.ndarray) -> np.ndarray:
        x = real_array(x, "x", (self.shape[1],))
        if not np.isfinite(x).all():  # in packed rows one would reach sums that have no weight for it
            raise ValueError("x has NaN or infinite values, expected finite ones")
        return x

    def _words(self, x: np.ndarray) -> np.ndarray:
        x = np.asarray(x)
        if x.dtype.kind not in "iu":
            raise TypeError(f"x holds {x.dtype}, expected integers for {self.precision}")
        if x.shape != (self.shape[1],):
            raise ValueError(f"x has shape {x.shape}, expected ({self.shape[1]},)")
        most = 1 << (_BITS[self.precision] - 1)
        if x.size and (x.min() < -most or x.max() >= most):
            raise ValueError(f"x holds {x.min()} to {x.max()}, expected {-most} to {most - 1}")
        return np.ascontiguousarray(x, np.int16)

    def seconds(self, repeats: int, *, whole: bool = False, density: float = 1.0) -> float:
        """Seconds of one product inside C++, from `repeats` in a row.

        Args:
            repeats: how many.
            whole: from float32 x to float32 y: what turns x into integers and sums into floats, and what puts
                sums in their places, counted in.
            density: share of x that is not zero (only "event" minds).
        """
        if repeats < 1:
            raise ValueError(f"repeats is {repeats}, expected at least 1")
        return self._core.lrnn_matvec_time(self._handle, int(whole), density, repeats)

    def seconds_cold(self, other: np.ndarray, *, whole: bool = False, density: float = 1.0) -> float:
        """Seconds of one product inside C++ whose weights come from memory.

        Args:
            other: bytes that are read first, more than the caches hold; `aligned_bytes` makes them.
            whole, density: see `seconds`.

        Raises:
            ValueError: `other` does not start on a cache line, or is not contiguous bytes.
        """
        if other.dtype != np.uint8 or not other.flags.c_contiguous or other.ctypes.data % _CACHE_LINE:
            raise ValueError("other: expected contiguous uint8 that starts on a cache line (aligned_bytes)")
        return self._core.lrnn_matvec_time_cold(
            self._handle, int(whole), density, other.ctypes.data, other.nbytes
        )


def aligned_bytes(count: int) -> np.ndarray:
    """(count,) uint8 from the start of a cache line; all one, so that every page has memory of its own."""
    memory = np.ones(count + _CACHE_LINE, np.uint8)
    start = -memory.ctypes.data % _CACHE_LINE
    return memory[start : start + count]


def read_seconds(nbytes: int, repeats: int) -> float:
    """Seconds of one read of `nbytes` bytes, from `repeats` in a row: the floor of a product of that size."""
    return _core().lrnn_read_time(nbytes, repeats)
