"""What a denoising network reads of a spectrum: magnitudes as the paper takes them, or relative to the level.

The level is a causal mean of |X| over frequency and time,

    L[t] = d[t] L[t-1] + (1 - d[t]) mean_f |X[t, f]|,        d[t] = min(n / (n + 1), DECAY),

with n the frames heard before t: the plain mean at first, then an exponential one. Frames of digital silence
are not heard. On ndns-mini, at k = 0.5 and equal steps, roots of relative magnitudes gain 0.4 to 0.7 dB over
the paper's magnitudes (experiments/results): the network need not learn that recordings may be loud.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lrnn.ops import scan

OFFSET = 0.0007
"""Mean of |X| on the N-DNS training set, subtracted by the paper's recipe."""

DECAY = 0.995
"""Of the level's exponential mean: 1.6 s at 125 frames a second."""
FLOOR = 1e-5
"""Added to the level: |X| of noise at -75 dBFS. Below it nothing is amplified."""
SILENCE = 1e-7
"""Mean |X| of a frame that is not heard; the last bit of 16-bit audio, toggling, makes 4e-7."""
MEAN_ROOT, SCALE = 0.7, 0.1
"""Centre of the roots, and a size at which the residual stream passes them on without drowning the layers."""


def magnitude_features(X):
    """|X| - 0.0007: the paper's. Torch or numpy, any shape; the gradient at X = 0 is zero."""
    return abs(X) - OFFSET


def level_features(X: Tensor) -> Tensor:
    """0.1 (sqrt(|X| / (L + FLOOR)) - 0.7) with the running level L, which starts anew with each clip.

    Args:
        X: (..., T, F) complex.

    Returns:
        (..., T, F) real.
    """
    magnitude = X.detach().abs()
    mean = magnitude.mean(-1)  # (..., T)
    decay = _decay(torch.cumsum(mean > SILENCE, -1).to(mean.dtype), mean > SILENCE)
    flat = [x.reshape(-1, mean.shape[-1], 1) for x in (decay, (1 - decay) * mean)]
    level = scan(*flat)[0].view(mean.shape)
    return _relative(magnitude, level[..., None])


class StreamingFeatures:
    """The features of a stream of frames, in numpy.

    Args:
        kind: "magnitude" or "level".
    """

    def __init__(self, kind: str):
        self._kind = check_kind(kind)
        self.reset()

    def reset(self) -> None:
        """The next frame is the first of a clip."""
        self._level, self._heard = 0.0, 0

    def push(self, X: np.ndarray) -> np.ndarray:
        """Take spectra (T, F) complex64; return features (T, F) float32."""
        if self._kind == "magnitude":
            return magnitude_features(X)
        magnitude = np.abs(X)
        levels = [self._hear(mean) for mean in magnitude.mean(-1).tolist()]
        return _relative(magnitude, np.array(levels, np.float32)[:, None])

    def _hear(self, mean: float) -> float:
        """The level with one more frame, whose mean |X| is given."""
        if mean > SILENCE:
            self._heard += 1
            decay = min(1 - 1 / self._heard, DECAY)
            self._level = decay * self._level + (1 - decay) * mean
        return self._level


def _decay(heard: Tensor, audible: Tensor) -> Tensor:
    """d[t] from the number of frames heard up to and with t."""
    decay = (1 - 1 / heard.clamp(min=1)).clamp(max=DECAY)
    return torch.where(audible, decay, 1.0)


def _relative(magnitude, level):
    return SCALE * ((magnitude / (level + FLOOR)) ** 0.5 - MEAN_ROOT)


FEATURES = {"magnitude": magnitude_features, "level": level_features}
"""What each kind does to the spectra (..., T, F) of whole clips."""


def check_kind(kind: str) -> str:
    """The kind itself, or ValueError."""
    if kind not in FEATURES:
        raise ValueError(f"features is {kind!r}, expected one of {', '.join(map(repr, FEATURES))}")
    return kind
