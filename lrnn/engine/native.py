"""Streams of the native engine: one call into C++ per step or per chunk."""

from __future__ import annotations

import functools
import weakref
from ctypes import c_void_p

import numpy as np
from numpy.typing import ArrayLike

from lrnn.engine.native_engine import FORMATS, NativeEngine, engine_core
from lrnn.engine.stream import Stream, checked_state, real_array
from lrnn.program.program import Program

__all__ = ["FORMATS", "NativeEngine", "NativeStream"]

_TILE = 64  # frames that an engine of tiles takes at a time
_WORTH_A_TILE = 21  # a tile takes the time of about 20 single steps (`lrnn bench stream --chunk`)
_FLOAT32 = np.dtype(np.float32)


class _CoreStream:
    """A stream of the C interface: owns its memory, moves arrays across. A state is its bytes as int32."""

    def __init__(self, engine: NativeEngine, program: Program):
        core = engine_core()
        self.handle = core.lrnn_stream_new(engine.handle)
        if self.handle is None:
            raise MemoryError("no memory for a native stream")
        weakref.finalize(self, core.lrnn_stream_free, self.handle)
        self._engine, self._program = engine, program
        self._state_width = core.lrnn_engine_state_width(engine.handle)

    def run(self, x: np.ndarray, y: np.ndarray) -> None:
        if engine_core().lrnn_stream_run(self.handle, len(x), x.ctypes.data, y.ctypes.data):
            raise _refused(self._program, x, "frames")

    @property
    def state(self) -> np.ndarray:
        flat = np.empty(self._state_width, np.int32)
        engine_core().lrnn_stream_get_state(self.handle, flat.ctypes.data)
        return flat

    @state.setter
    def state(self, flat: np.ndarray) -> None:
        engine_core().lrnn_stream_set_state(self.handle, flat.ctypes.data)


class NativeStream(Stream):
    """A stream of the native engine. A call costs about a microsecond on top of the C++.

    Args:
        program: what to run.
        engine: the packed weights, to share or to choose their format; None is `NativeEngine.of(program)`
            and, from the first chunk of 21 frames or more, also the program's engine of tiles.
    """

    def __init__(self, program: Program, engine: NativeEngine | None = None):
        super().__init__(program)
        self.engine = engine if engine is not None else NativeEngine.of(program)
        self._frames = _CoreStream(self.engine, program)
        self._takes_tiles = engine is None and not program.is_fixed
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
        self._step = functools.partial(engine_core().lrnn_stream_step, *pointers)

    def step(self, frame: ArrayLike) -> np.ndarray:
        """See Stream.step."""
        if type(frame) is not np.ndarray or frame.dtype != _FLOAT32 or frame.shape != self._in_shape:
            frame = real_array(frame, "frame", self._in_shape)
        self._in[:] = frame
        if self._step():
            raise _refused(self.program, self._in, "frame")
        return self._out.copy()

    def run(self, frames: ArrayLike) -> np.ndarray:
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
            self._tiles = _CoreStream(NativeEngine.of(self.program, "tiles"), self.program)
        self._tiles.state = state
        self._tiles.run(x, y)
        return self._tiles.state

    def reset(self) -> None:
        """See Stream.reset."""
        engine_core().lrnn_stream_reset(self._frames.handle)

    @property
    def state(self) -> dict[str, np.ndarray]:
        """See Stream.state."""
        flat, state, start = self._frames.state, {}, 0
        for name, width in self.program.state_widths.items():
            dtype = np.dtype(self.program.state_dtypes[name])
            end = start + width * dtype.itemsize // flat.itemsize
            state[name] = flat[start:end].view(dtype).copy()
            start = end
        return state

    @state.setter
    def state(self, value: dict[str, np.ndarray]) -> None:
        arrays = [np.empty(0, np.int32), *checked_state(self.program, value).values()]
        self._frames.state = np.concatenate([np.ascontiguousarray(array).view(np.int32) for array in arrays])

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
        if engine_core().lrnn_stream_profile(self._frames.handle, repeats, seconds.ctypes.data) < 0:
            raise MemoryError("no memory for a copy of the stream")
        return {node.name: float(seconds[i + 1]) for i, node in enumerate(self.program.nodes)}


def _refused(program: Program, x: np.ndarray, name: str) -> ValueError:
    """Why the engine takes no frame of x."""
    if np.isfinite(x).all():
        program.check_tokens(x, name)
    return ValueError(f"{name} has NaN or infinite values, expected finite ones")


def _frames_in_tiles(frames: int) -> int:
    """How many of a chunk's frames go through tiles; too few to fill another one go one by one."""
    rest = frames % _TILE
    return frames if rest >= _WORTH_A_TILE else frames - rest
