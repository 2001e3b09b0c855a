"""A program's weights, packed for this machine: csrc/core/engine/engine.h through ctypes."""

from __future__ import annotations

import ctypes
import functools
import weakref
from ctypes import c_char_p, c_int32, c_int64, c_void_p

import numpy as np

from lrnn.engine.core import open_core
from lrnn.engine.native_nodes import SIGNATURES, call_of
from lrnn.program import nodes as op
from lrnn.program.program import Program

FORMATS = {"auto": 0, "dense": 1, "sparse": 2, "tiles": 3}
_engines: weakref.WeakKeyDictionary[Program, dict[tuple[str, str], NativeEngine]] = (
    weakref.WeakKeyDictionary()
)

_SIGNATURES = {
    **SIGNATURES,
    "lrnn_isa": (c_char_p,),
    "lrnn_engine_new": (c_void_p, c_int32, c_int32),
    "lrnn_engine_free": (None, c_void_p),
    "lrnn_engine_finish": (c_int32, c_void_p, c_int32),
    "lrnn_engine_error": (c_char_p, c_void_p),
    "lrnn_engine_width": (c_int32, c_void_p, c_int32),
    "lrnn_engine_state_width": (c_int32, c_void_p),
    "lrnn_engine_bytes": (c_int64, c_void_p, c_int32),
    "lrnn_engine_kernel": (c_char_p, c_void_p, c_int32),
    "lrnn_stream_new": (c_void_p, c_void_p),
    "lrnn_stream_free": (None, c_void_p),
    "lrnn_stream_step": (c_int32, c_void_p, c_void_p, c_void_p),
    "lrnn_stream_run": (c_int32, c_void_p, c_int64, c_void_p, c_void_p),
    "lrnn_stream_reset": (None, c_void_p),
    "lrnn_stream_get_state": (None, c_void_p, c_void_p),
    "lrnn_stream_set_state": (None, c_void_p, c_void_p),
    "lrnn_stream_profile": (c_int32, c_void_p, c_int32, c_void_p),
}


@functools.cache
def engine_core() -> ctypes.CDLL:
    """The core, with the functions of engine.h typed; RuntimeError where it is not built."""
    return open_core(_SIGNATURES, "the native engine (engine='numpy' runs without it) is")


class _Builder:
    """Adds a program's nodes to an engine under construction."""

    def __init__(self, core: ctypes.CDLL, handle: int, program: Program):
        self._core = core
        self._handle = handle
        self._formats = program.formats
        self._ids = {program.input: 0}

    def add(self, node: op.Node) -> None:
        name, arguments = call_of(node, tuple(self._formats[i] for i in node.inputs))
        inputs = [self._ids[name] for name in node.inputs]
        values = [v.ctypes.data if isinstance(v, np.ndarray) else v for v in arguments]
        result = getattr(self._core, name)(self._handle, *inputs, *values)
        if result < 0:
            raise ValueError(f"node {node.name!r} ({node.op}): {self.error()}")
        self._ids[node.name] = result

    def finish(self, output: str) -> dict[str, int]:
        """Ids of the values by name."""
        if self._core.lrnn_engine_finish(self._handle, self._ids[output]) < 0:
            raise ValueError(f"program: {self.error()}")
        return self._ids

    def error(self) -> str:
        return self._core.lrnn_engine_error(self._handle).decode()


class NativeEngine:
    """A program's weights packed for this machine; any number of streams share it. Immutable.

    Args:
        program: what to run. The engine keeps no reference to it.
        format: "auto" stores each matrix in the way that should be faster at its density; "dense" and
            "sparse" force one way, to compare them. "tiles" is for chunks: it takes 64 frames at a time, a
            fraction of the time per frame, but for a single frame as long as for all.

    Attributes:
        isa: the instruction set its kernels use: "avx512vnni", "avx512", "avx2", "neon" or "scalar".

    Raises:
        RuntimeError: the native engine is not built here; the message says why.
        ValueError: an unknown format, or a node that the engine cannot run.
    """

    def __init__(self, program: Program, format: str = "auto"):
        if format not in FORMATS:
            raise ValueError(f"format is {format!r}, expected one of {', '.join(FORMATS)}")
        self._core = core = engine_core()
        self.isa = core.lrnn_isa().decode()
        self.handle = core.lrnn_engine_new(program.input_width, FORMATS[format])
        if self.handle is None:
            raise MemoryError("no memory for a native engine")
        weakref.finalize(self, core.lrnn_engine_free, self.handle)
        builder = _Builder(core, self.handle, program)
        for node in program.nodes:
            builder.add(node)
        self._ids = builder.finish(program.output)
        del self._ids[program.input]

    @classmethod
    def of(cls, program: Program, format: str = "auto") -> NativeEngine:
        """The engine that all streams of `program` share, built on first use and freed with the program."""
        engines = _engines.setdefault(program, {})
        key = engine_core().lrnn_isa().decode(), format
        if key not in engines:
            engines[key] = cls(program, format)
        return engines[key]

    def bytes(self) -> dict[str, int]:
        """Bytes of each node's tensors as stored, indices and padding included, by node name."""
        return {name: self._core.lrnn_engine_bytes(self.handle, i) for name, i in self._ids.items()}

    def kernels(self) -> dict[str, str]:
        """How each matrix is stored, by node name: "dense", "windows", "csr" or "tiles"."""
        kernels = {
            name: self._core.lrnn_engine_kernel(self.handle, i).decode() for name, i in self._ids.items()
        }
        return {name: kernel for name, kernel in kernels.items() if kernel}
