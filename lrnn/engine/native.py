"""The native engine from Python: csrc/core/engine/engine.h through ctypes, one call per step or per chunk."""

from __future__ import annotations

import ctypes
import functools
import weakref
from collections.abc import Callable
from ctypes import c_char_p, c_float, c_int32, c_int64, c_void_p

import numpy as np

from lrnn.engine.core import open_core
from lrnn.engine.stream import Stream, checked_state, real_array
from lrnn.program import nodes as op
from lrnn.program.program import Program

FORMATS = {"auto": 0, "dense": 1, "sparse": 2, "tiles": 3}
_TILE = 64  # frames that an engine of tiles takes at a time
_WORTH_A_TILE = (
    16  # frames that take single steps as long as a tile: 64 frames cost it what 10 to 15 do there
)
_FLOAT32 = np.dtype(np.float32)
_NOT_FINITE = -3
_engines: weakref.WeakKeyDictionary[Program, dict[tuple[str, str], NativeEngine]] = (
    weakref.WeakKeyDictionary()
)

_SIGNATURES = {
    "lrnn_isa": (c_char_p,),
    "lrnn_engine_new": (c_void_p, c_int32, c_int32),
    "lrnn_engine_free": (None, c_void_p),
    "lrnn_engine_linear": (c_int32, c_void_p, c_int32, c_int32, c_int32, c_void_p, c_void_p),
    "lrnn_engine_affine": (c_int32, c_void_p, c_int32, c_int32, c_void_p, c_void_p),
    "lrnn_engine_diagonal": (c_int32, c_void_p, c_int32, c_int32, c_void_p),
    "lrnn_engine_relu": (c_int32, c_void_p, c_int32),
    "lrnn_engine_pair_relu": (c_int32, c_void_p, c_int32),
    "lrnn_engine_sigmoid": (c_int32, c_void_p, c_int32),
    "lrnn_engine_gelu": (c_int32, c_void_p, c_int32),
    "lrnn_engine_layer_norm": (c_int32, c_void_p, c_int32, c_int32, c_void_p, c_void_p, c_float),
    "lrnn_engine_add": (c_int32, c_void_p, c_int32, c_int32),
    "lrnn_engine_product": (c_int32, c_void_p, c_int32, c_int32),
    "lrnn_engine_round": (c_int32, c_void_p, c_int32, c_int32),
    "lrnn_engine_mean_pool": (c_int32, c_void_p, c_int32),
    "lrnn_engine_log_softmax": (c_int32, c_void_p, c_int32),
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
def _core() -> ctypes.CDLL:
    return open_core(_SIGNATURES, "the native engine (engine='numpy' runs without it) is")


class _Builder:
    """Adds a program's nodes to an engine under construction."""

    def __init__(self, core: ctypes.CDLL, handle: int, program: Program):
        self._core = core
        self._handle = handle
        self._ids = {program.input: 0}

    def add(self, node: op.Node) -> None:
        inputs = [self._ids[name] for name in node.inputs]
        if type(node) not in _ADD:
            raise ValueError(f"node {node.name!r} ({node.op}): the native engine has no such operation")
        name, arguments = _ADD[type(node)]
        arrays, values = [], []
        for value in arguments(node):
            if isinstance(value, np.ndarray):
                arrays.append(np.ascontiguousarray(value, np.float32))
                value = arrays[-1].ctypes.data
            values.append(value)
        result = getattr(self._core, f"lrnn_engine_{name}")(self._handle, *inputs, *values)
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


# Function of the C interface and what it takes after the ids of the inputs.
_ADD: dict[type[op.Node], tuple[str, Callable[[op.Node], tuple]]] = {
    op.Linear: ("linear", lambda n: (*n.weight.shape, n.weight, n.bias)),
    op.Affine: ("affine", lambda n: (len(n.scale), n.scale, n.shift)),
    op.Diagonal: ("diagonal", lambda n: (len(n.a), n.a)),
    op.Relu: ("relu", lambda n: ()),
    op.PairRelu: ("pair_relu", lambda n: ()),
    op.Sigmoid: ("sigmoid", lambda n: ()),
    op.Gelu: ("gelu", lambda n: ()),
    op.LayerNorm: ("layer_norm", lambda n: (len(n.scale), n.scale, n.shift, n.eps)),
    op.Add: ("add", lambda n: ()),
    op.Product: ("product", lambda n: ()),
    op.Round: ("round", lambda n: (n.exponent,)),
    op.MeanPool: ("mean_pool", lambda n: ()),
    op.LogSoftmax: ("log_softmax", lambda n: ()),
}


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
        if program.is_fixed:
            raise RuntimeError(
                "the native engine does not run fixed-point programs yet; engine='numpy' and 'torch' do"
            )
        self._core = core = _core()
        self.isa = core.lrnn_isa().decode()
        self._handle = core.lrnn_engine_new(program.input_width, FORMATS[format])
        if self._handle is None:
            raise MemoryError("no memory for a native engine")
        weakref.finalize(self, core.lrnn_engine_free, self._handle)
        builder = _Builder(core, self._handle, program)
        for node in program.nodes:
            builder.add(node)
        self._ids = builder.finish(program.output)
        del self._ids[program.input]

    @classmethod
    def of(cls, program: Program, format: str = "auto") -> NativeEngine:
        """The engine that all streams of `program` share, built on first use and freed with the program."""
        engines = _engines.setdefault(program, {})
        key = _core().lrnn_isa().decode(), format
        if key not in engines:
            engines[key] = cls(program, format)
        return engines[key]

    def bytes(self) -> dict[str, int]:
        """Bytes of each node's tensors as stored, indices and padding included, by node name."""
        return {name: self._core.lrnn_engine_bytes(self._handle, i) for name, i in self._ids.items()}

    def kernels(self) -> dict[str, str]:
        """How each matrix is stored, by node name: "dense", "windows", "csr" or "tiles"."""
        kernels = {
            name: self._core.lrnn_engine_kernel(self._handle, i).decode() for name, i in self._ids.items()
        }
        return {name: kernel for name, kernel in kernels.items() if kernel}


class _CoreStream:
    """A stream of the C interface: owns its memory, and moves arrays across."""

    def __init__(self, engine: NativeEngine):
        core = _core()
        self.handle = core.lrnn_stream_new(engine._handle)
        if self.handle is None:
            raise MemoryError("no memory for a native stream")
        weakref.finalize(self, core.lrnn_stream_free, self.handle)
        self._engine = engine
        self._state_width = core.lrnn_engine_state_width(engine._handle)

    def run(self, x: np.ndarray, y: np.ndarray) -> None:
        if _core().lrnn_stream_run(self.handle, len(x), x.ctypes.data, y.ctypes.data) == _NOT_FINITE:
            raise ValueError("frames has NaN or infinite values, expected finite ones")

    @property
    def state(self) -> np.ndarray:
        flat = np.empty(self._state_width, np.float32)
        _core().lrnn_stream_get_state(self.handle, flat.ctypes.data)
        return flat

    @state.setter
    def state(self, flat: np.ndarray) -> None:
        _core().lrnn_stream_set_state(self.handle, flat.ctypes.data)


class NativeStream(Stream):
    """A stream of the native engine. A call costs about a microsecond on top of the C++.

    Args:
        program: what to run.
        engine: the packed weights, to share or to choose their format; None is `NativeEngine.of(program)`
            and, from the first chunk of 16 frames or more, also the program's engine of tiles.
    """

    def __init__(self, program: Program, engine: NativeEngine | None = None):
        super().__init__(program)
        self.engine = engine if engine is not None else NativeEngine.of(program)
        self._frames = _CoreStream(self.engine)
        self._takes_tiles = engine is None
        self._tiles: _CoreStream | None = None  # its state matters within `run` only
        self._in = np.zeros(self.frames_in, np.float32)
        self._out = np.zeros(self.frames_out, np.float32)
        self._in_shape = self._in.shape
        # Bound once: looking up pointers of arrays costs more than a small network's step.
        pointers = (
            c_void_p(self._frames.handle),
            c_void_p(self._in.ctypes.data),
            c_void_p(self._out.ctypes.data),
        )
        self._step = functools.partial(_core().lrnn_stream_step, *pointers)

    def step(self, frame) -> np.ndarray:
        """See Stream.step."""
        if type(frame) is not np.ndarray or frame.dtype != _FLOAT32 or frame.shape != self._in_shape:
            frame = real_array(frame, "frame", self._in_shape)
        self._in[:] = frame
        if self._step():
            raise ValueError("frame has NaN or infinite values, expected finite ones")
        return self._out.copy()

    def run(self, frames) -> np.ndarray:
        """See Stream.run."""
        x = real_array(frames, "frames", (None, self.frames_in))
        y = np.empty((len(x), self.frames_out), np.float32)
        tiled = _frames_in_tiles(len(x)) if self._takes_tiles else 0
        if not tiled:
            self._frames.run(x, y)
            return y
        before = self._frames.state
        self._frames.state = self._run_tiles(x[:tiled], y[:tiled], before)
        try:
            self._frames.run(x[tiled:], y[tiled:])
        except ValueError:
            self._frames.state = before
            raise
        return y

    def _run_tiles(self, x: np.ndarray, y: np.ndarray, state: np.ndarray) -> np.ndarray:
        if self._tiles is None:
            self._tiles = _CoreStream(NativeEngine.of(self.program, "tiles"))
        self._tiles.state = state
        self._tiles.run(x, y)
        return self._tiles.state

    def reset(self) -> None:
        """See Stream.reset."""
        _core().lrnn_stream_reset(self._frames.handle)

    @property
    def state(self) -> dict[str, np.ndarray]:
        """See Stream.state."""
        flat, widths = self._frames.state, self.program.state_widths
        ends = np.cumsum(list(widths.values()), dtype=int)
        return {
            name: flat[end - width : end].copy()
            for (name, width), end in zip(widths.items(), ends, strict=True)
        }

    @state.setter
    def state(self, value: dict[str, np.ndarray]) -> None:
        arrays = list(checked_state(self.program, value).values())
        self._frames.state = np.concatenate(arrays) if arrays else np.empty(0, np.float32)

    def profile(self, repeats: int = 100) -> dict[str, float]:
        """Seconds per frame of each node, by name, on the values of the last frame.

        Each operation runs `repeats` times in a row, so its weights are in the nearest cache that holds
        them: a lower bound on its share of a step. A node that was fused into a later one counts 0. The state
        is not changed.

        Raises:
            ValueError: repeats is below 1.
        """
        if repeats < 1:
            raise ValueError(f"repeats is {repeats}, expected at least 1")
        seconds = np.zeros(1 + len(self.program.nodes), np.float64)
        if _core().lrnn_stream_profile(self._frames.handle, repeats, seconds.ctypes.data) < 0:
            raise MemoryError("no memory for a copy of the stream")
        return {node.name: float(seconds[i + 1]) for i, node in enumerate(self.program.nodes)}


def _frames_in_tiles(frames: int) -> int:
    """How many of a chunk's frames go through tiles; too few to fill another one go one by one."""
    rest = frames % _TILE
    return frames if rest >= _WORTH_A_TILE else frames - rest
