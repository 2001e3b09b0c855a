"""What the machine can do at most, measured beside the kernels: the limits in the tables and the roofline."""

from __future__ import annotations

import functools
from ctypes import CDLL, c_double, c_int32, c_int64
from pathlib import Path

import numpy as np

from lrnn.engine.core import open_core
from lrnn.engine.packed import aligned_bytes, read_seconds

_SIGNATURES = {
    "lrnn_copy_time": (c_double, c_int64, c_int64),
    "lrnn_arithmetic_rate": (c_double, c_int32, c_int64),
}
_FLOATS, _BYTES = 0, 1  # lrnn_arithmetic
_ROUNDS = 7
_UNKNOWN_CACHE = 32 << 20
# Bytes that a read of each level goes over: well inside it, where levels are of the usual sizes.
_LEVELS = {"read L1": 16 << 10, "read L2": 512 << 10, "read L3": 8 << 20, "read memory": 256 << 20}
_COPIED = 64 << 20


@functools.cache
def _core() -> CDLL:
    return open_core(_SIGNATURES, "limits are")


def measure() -> dict[str, float]:
    """The best of a few rounds of each, on the calling thread, with the instruction set that is active.

    Returns:
        bytes per second of "read L1", "read L2", "read L3", "read memory" and "copy" (read and written both
        counted; larger than the caches), operations per second of "multiply-add" (float32) and
        "byte product" (int8; 0 where the ISA has no instruction for it).

    Raises:
        RuntimeError: the core is not built here.
    """
    reads = {
        name: size / min(read_seconds(size, max(1, (1 << 25) // size)) for _ in range(_ROUNDS))
        for name, size in _LEVELS.items()
    }
    copy = 2 * _COPIED / min(_core().lrnn_copy_time(_COPIED, 1) for _ in range(_ROUNDS))
    return {**reads, "copy": copy, "multiply-add": multiply_add_rate(), "byte product": _rate(_BYTES)}


def multiply_add_rate() -> float:
    """Floating-point operations per second of float32 multiply-adds on registers alone."""
    return _rate(_FLOATS)


def _rate(kind: int) -> float:
    return max(_core().lrnn_arithmetic_rate(kind, 500) for _ in range(_ROUNDS))


def more_than_caches() -> np.ndarray:
    """Memory to read between products so that no cache holds their weights: twice the largest cache."""
    return aligned_bytes(2 * _largest_cache())


def _largest_cache() -> int:
    """Bytes, as Linux tells; a large guess where it does not."""
    sizes = [_UNKNOWN_CACHE // 2]
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = path.read_text().strip()
        if text[:-1].isdigit() and text[-1:] in "KM":
            sizes.append(int(text[:-1]) << {"K": 10, "M": 20}[text[-1]])
    return max(sizes)


def table(limits: dict[str, float]) -> str:
    """One line for people."""
    gigas = {name: f"{rate / 1e9:.0f}" for name, rate in limits.items()}
    integers = f", {gigas['byte product']} G byte products" if limits["byte product"] else ""
    return (
        f"limits of this run: reads {gigas['read L1']} (L1), {gigas['read L2']} (L2), {gigas['read L3']} "
        f"(L3), {gigas['read memory']} (memory) GB/s; copy {gigas['copy']} GB/s; "
        f"{gigas['multiply-add']} GFLOP/s float32{integers}"
    )
