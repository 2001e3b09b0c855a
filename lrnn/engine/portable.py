"""Streams over the numpy and torch executors: slower than the native engine, there wherever Python is."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from lrnn.engine.stream import Stream, checked_state, real_array
from lrnn.program.numpy_executor import NumpyExecutor
from lrnn.program.program import Program


class NumpyStream(Stream):
    """A stream over the normative executor, frame by frame."""

    def __init__(self, program: Program):
        super().__init__(program)
        self._executor = NumpyExecutor(program)
        self.reset()

    def step(self, frame: ArrayLike) -> np.ndarray:
        """See Stream.step."""
        x = real_array(frame, "frame", (self.frames_in,))
        _check_frames(self.program, x, "frame")
        y, self._state = self._executor.step(x, self._state)
        return np.array(y, dtype=np.float32)  # a copy: a program may return its input or part of its state

    def run(self, frames: ArrayLike) -> np.ndarray:
        """See Stream.run."""
        x = real_array(frames, "frames", (None, self.frames_in))
        _check_frames(self.program, x, "frames")
        y = np.empty((len(x), self.frames_out), np.float32)
        for t, frame in enumerate(x):
            y[t], self._state = self._executor.step(frame, self._state)
        return y

    def reset(self) -> None:
        """See Stream.reset."""
        self._state = self._executor.zero_state()

    @property
    def state(self) -> dict[str, np.ndarray]:
        """See Stream.state."""
        return {name: value.copy() for name, value in self._state.items()}

    @state.setter
    def state(self, value: dict[str, np.ndarray]) -> None:
        self._state = {name: array.copy() for name, array in checked_state(self.program, value).items()}


class TorchStream(Stream):
    """A stream over the batched torch executor, a batch of one."""

    def __init__(self, program: Program):
        # The executor needs torch; a program runs without it through the other engines.
        from lrnn.program.torch_executor import TorchExecutor

        super().__init__(program)
        self._executor = TorchExecutor(program)
        self._state = None

    def step(self, frame: ArrayLike) -> np.ndarray:
        """See Stream.step."""
        x = real_array(frame, "frame", (self.frames_in,))
        _check_frames(self.program, x, "frame")
        return self._forward(x[None])[0]

    def run(self, frames: ArrayLike) -> np.ndarray:
        """See Stream.run."""
        x = real_array(frames, "frames", (None, self.frames_in))
        _check_frames(self.program, x, "frames")
        return self._forward(x)

    def _forward(self, x: np.ndarray) -> np.ndarray:
        import torch

        if len(x) == 0:
            return np.empty((0, self.frames_out), np.float32)
        with torch.inference_mode():
            y, self._state = self._executor(torch.tensor(x)[None], self._state)  # (1, T, n)
        return y[0].numpy().copy()

    def reset(self) -> None:
        """See Stream.reset."""
        self._state = None

    @property
    def state(self) -> dict[str, np.ndarray]:
        """See Stream.state."""
        if self._state is None:
            dtypes = self.program.state_dtypes
            return {name: np.zeros(width, dtypes[name]) for name, width in self.program.state_widths.items()}
        return {name: value[0].numpy().copy() for name, value in self._state.items()}

    @state.setter
    def state(self, value: dict[str, np.ndarray]) -> None:
        import torch

        arrays = checked_state(self.program, value)
        self._state = {name: torch.tensor(array)[None] for name, array in arrays.items()}


def _check_frames(program: Program, x: np.ndarray, name: str) -> None:
    if not np.isfinite(x).all():
        raise ValueError(f"{name} has NaN or infinite values, expected finite ones")
    program.check_tokens(x, name)
