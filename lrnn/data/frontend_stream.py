"""A classifier's front end as samples arrive, in numpy: the frames of lrnn.data.frontend up to rounding.

A frame is computed from its own samples in the same way whatever came with it, so that any cutting of a
stream gives the same bits.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lrnn.data.frontend import FLOOR, MEAN_LOG, SCALE, FrontEnd, LogMel, RawFrames

Maker = Callable[[np.ndarray, int], np.ndarray]
"""Takes samples, the first `past` of which came before, and the number T of frames; gives (T, width)."""


class StreamingFrames:
    """The frames of a stream of samples, finished as samples arrive.

    Args:
        frontend: that makes them.
    """

    def __init__(self, frontend: FrontEnd):
        self._make = _MAKERS[frontend.kind](frontend)
        self._past, self._step, self._width = frontend.past, frontend.step, frontend.width
        self.reset()

    def reset(self) -> None:
        """The next sample is the first of a clip."""
        self._held = np.zeros(self._past, np.float32)

    def push(self, samples: np.ndarray) -> np.ndarray:
        """Take (n,) float32 samples; return the frames they finish, (T, width) float32."""
        held = np.concatenate((self._held, samples), dtype=np.float32)
        count = (len(held) - self._past) // self._step
        self._held = held[count * self._step :].copy()
        return self._make(held, count) if count else np.zeros((0, self._width), np.float32)


def _raw(frontend: RawFrames) -> Maker:
    hop = frontend.hop
    return lambda held, count: held[: count * hop].reshape(count, hop)


def _log_mel(frontend: LogMel) -> Maker:
    taper, bands = (constant.numpy() for constant in frontend.constants)
    bands = np.repeat(bands, 2, axis=0)  # a row for the real part of a bin and one for its imaginary part
    hop, window, stack, width = frontend.hop, frontend.window, frontend.stack, frontend.width

    def make(held: np.ndarray, count: int) -> np.ndarray:
        cut = np.ndarray((count * stack, window), np.float32, held, 0, (4 * hop, 4))
        X = np.fft.rfft(cut * taper).astype(np.complex64, copy=False)
        squares = np.square(X.view(np.float32))
        # A product of one shape for every frame: a taller one would be rounded in another way.
        logs = squares.reshape(count, stack, -1) @ bands
        logs += FLOOR
        np.log(logs, logs)
        logs -= MEAN_LOG
        logs *= SCALE
        return logs.reshape(count, width)

    return make


_MAKERS = {LogMel.kind: _log_mel, RawFrames.kind: _raw}
