"""The front end's transform hop by hop, in numpy: the same frames and the same samples as lrnn.data.stft.

Frame t needs the samples up to `hop * t + n_fft / 2`; the hop that brings the last of them makes the frame.
Frame t in turn finishes the samples up to `hop * (t + 1) - n_fft / 2`: hence the delay of
`n_fft - hop` samples.
"""

from __future__ import annotations

import numpy as np

from lrnn.data.stft import Stft


class StreamingStft:
    """Spectra of the frames that the samples so far complete.

    Args:
        stft: the setting.
    """

    def __init__(self, stft: Stft):
        self._stft = stft
        self._overlap = stft.n_fft // stft.hop
        self._window = (stft.taper() / stft.n_fft).float().numpy()
        self.reset()

    def reset(self) -> None:
        """Forget all samples: the next one is the first of a clip."""
        self._past = np.zeros((self._overlap - 1, self._stft.hop), np.float32)
        self._missing = self._overlap // 2 - 1  # hops until the first frame is complete

    def push(self, samples: np.ndarray) -> np.ndarray:
        """Take whole hops.

        Args:
            samples: (K hop,) float32.

        Returns:
            (T, F) complex64: the spectra of the frames that end with one of these hops. T is K but for the
            first hops of a clip, which complete no frame.
        """
        hops = np.concatenate((self._past, samples.reshape(-1, self._stft.hop)))
        count = len(hops) - len(self._past)
        skipped = min(self._missing, count)
        self._missing -= skipped
        shifted = [hops[j + skipped : j + count] for j in range(self._overlap)]
        frames = np.concatenate(shifted, axis=1)  # (T, n_fft)
        self._past = hops[count:]
        return np.fft.rfft(frames * self._window).astype(np.complex64, copy=False)


class StreamingIstft:
    """Samples finished by the spectra so far: overlap-add divided by the sum of squared windows.

    Args:
        stft: the setting.
    """

    def __init__(self, stft: Stft):
        self._stft = stft
        self._overlap = stft.n_fft // stft.hop
        self._window = (stft.taper() * stft.n_fft).float().numpy()
        # Row j of the squares is what a frame adds to the sum j hops after its start. Row t of the envelope
        # divides the hop that frame t finishes; the last row serves all later frames.
        squares = stft.taper().square().reshape(self._overlap, stft.hop)
        self._squares = squares.float().numpy()
        self._envelope = squares.cumsum(0).float().numpy()
        self._envelope[: self._overlap // 2] = np.inf  # before the clip's first sample: x / inf makes silence
        self.reset()

    def reset(self) -> None:
        """Forget all spectra: the next one is the first of a clip."""
        self._begun = np.zeros(
            (self._overlap - 1, self._stft.hop), np.float32
        )  # later frames add to these hops
        self._seen = 0  # frames, as far as the envelope depends on their number

    def push(self, X: np.ndarray) -> np.ndarray:
        """Take spectra (T, F) complex64; return the T hops they finish, (T hop,) float32.

        The first frames of a clip finish hops that lie before its first sample: these are zeros.
        """
        hop, overlap, count = self._stft.hop, self._overlap, len(X)
        frames = np.fft.irfft(X, self._stft.n_fft).astype(np.float32, copy=False) * self._window
        frames = frames.reshape(count, overlap, hop)
        total = np.zeros((count + overlap - 1, hop), np.float32)
        total[: overlap - 1] = self._begun
        for j in reversed(range(overlap)):  # from the oldest frame to the newest, as single pushes would
            total[j : j + count] += frames[:, j]
        self._begun = total[count:]
        rows = np.minimum(np.arange(self._seen, self._seen + count), overlap - 1)
        self._seen = min(self._seen + count, overlap)
        return (total[:count] / self._envelope[rows]).reshape(-1)

    def flush(self) -> np.ndarray:
        """The samples after the last finished hop up to the middle of the last frame, where the clip ends."""
        half = self._overlap // 2
        envelope = np.full((half - 1, self._stft.hop), np.inf, np.float32)
        for i in range(max(0, half - self._seen), half - 1):  # a very short clip's first hops lie before it
            envelope[i] = self._squares[i + 1 : i + 1 + self._seen].sum(0)
        return (self._begun[: half - 1] / envelope).reshape(-1)
