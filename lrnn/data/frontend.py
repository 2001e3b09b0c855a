"""Front ends of classifiers: what a network reads of a waveform, whole clips at once, in torch.

Both are causal: frame t is finished with sample (t + 1) * step - 1, and what lies before a clip is silence.
lrnn.data.frontend_stream makes the same frames of a stream of samples, cut in any way, up to rounding.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

FLOOR = 1e-8
"""Added to the power in a band: -80 dB below a sine at full scale."""
MEAN_LOG, SCALE = -8.5, 0.3
"""Centre of the logarithms of speech, and a size at which their deviation is about 1."""


@dataclass(frozen=True)
class FrontEnd(ABC):
    """Turns samples at `sample_rate` into frames of `width` numbers, one every `step` samples."""

    kind: ClassVar[str]
    sample_rate: int

    @property
    @abstractmethod
    def width(self) -> int:
        """Numbers per frame."""

    @property
    @abstractmethod
    def step(self) -> int:
        """Samples from one frame to the next."""

    @property
    @abstractmethod
    def past(self) -> int:
        """Samples before its own step that a frame reads."""

    @abstractmethod
    def frames(self, samples: Tensor) -> Tensor:
        """(..., past + T * step) samples, the first `past` of which came before -> (..., T, width)."""

    def __call__(self, audio: Tensor) -> Tensor:
        """Frames of whole clips.

        Args:
            audio: (..., N) real, in -1..1; samples short of a step at the end are left out.

        Returns:
            (..., N // step, width) float32.
        """
        whole = audio.shape[-1] // self.step * self.step
        if not whole:
            return audio.new_zeros((*audio.shape[:-1], 0, self.width), dtype=torch.float32)
        return self.frames(pad(audio[..., :whole].float(), (self.past, 0)))

    def to_meta(self) -> dict:
        """Plain values, for `from_meta`."""
        return {"kind": self.kind, **asdict(self)}

    @staticmethod
    def from_meta(values: dict) -> FrontEnd:
        """The front end that a program's meta describes.

        Raises:
            ValueError: no such kind, or values that do not fit it.
        """
        kinds = {kind.kind: kind for kind in (LogMel, RawFrames)}
        values = dict(values)
        kind = values.pop("kind", None)
        if kind not in kinds:
            raise ValueError(f"frontend has kind {kind!r}, expected one of {', '.join(map(repr, kinds))}")
        try:
            return kinds[kind](**values)
        except TypeError as error:
            raise ValueError(f"frontend {kind!r}: {error}") from None


@dataclass(frozen=True)
class RawFrames(FrontEnd):
    """The waveform itself, `hop` samples to a frame; a hop of 1 is the paper's network on Speech Commands.

    Args:
        sample_rate: in Hz.
        hop: samples per frame.
    """

    kind: ClassVar[str] = "raw"
    sample_rate: int = 16000
    hop: int = 1

    def __post_init__(self):
        if self.hop < 1 or self.sample_rate < 1:
            raise ValueError(f"hop, sample_rate are {self.hop}, {self.sample_rate}, expected at least 1")

    @property
    def width(self) -> int:
        """`hop`."""
        return self.hop

    @property
    def step(self) -> int:
        """`hop`."""
        return self.hop

    @property
    def past(self) -> int:
        """None: frames do not overlap."""
        return 0

    def frames(self, samples: Tensor) -> Tensor:
        """The samples, cut."""
        return samples.unflatten(-1, (-1, self.hop))


@dataclass(frozen=True)
class LogMel(FrontEnd):
    """Logarithms of the power in mel bands; `stack` spectra side by side make a frame.

    A spectrum is the rfft of `window` samples under a periodic Hann window, scaled so that a sine at full
    scale has a peak of 1; bands are triangles on the mel scale of O'Shaughnessy (2595 log10(1 + f / 700)),
    each with weights that sum to one. The network reads 0.3 (ln(power + 1e-8) + 8.5).

    Args:
        sample_rate: in Hz.
        hop: samples from one spectrum to the next.
        window: samples of a spectrum, a multiple of 2 and at least `hop`.
        n_mels: bands.
        f_min, f_max: in Hz; what the bands cover.
        stack: spectra per frame.
    """

    kind: ClassVar[str] = "log-mel"
    sample_rate: int = 16000
    hop: int = 160
    window: int = 480
    n_mels: int = 40
    f_min: float = 40.0
    f_max: float = 7800.0
    stack: int = 2

    def __post_init__(self):
        if min(self.hop, self.n_mels, self.stack) < 1:
            raise ValueError(
                f"hop, n_mels, stack are {self.hop}, {self.n_mels}, {self.stack}, expected at least 1"
            )
        if self.window < self.hop or self.window % 2:
            raise ValueError(f"window is {self.window}, expected an even number of at least hop, {self.hop}")
        if not 0 <= self.f_min < self.f_max <= self.sample_rate / 2:
            raise ValueError(
                f"f_min, f_max are {self.f_min}, {self.f_max}, expected 0 <= f_min < f_max <= "
                f"{self.sample_rate / 2:g} Hz"
            )

    @property
    def width(self) -> int:
        """Bands times spectra."""
        return self.n_mels * self.stack

    @property
    def step(self) -> int:
        """Samples of a frame's hops."""
        return self.hop * self.stack

    @property
    def past(self) -> int:
        """What the first spectrum of a frame reaches back."""
        return self.window - self.hop

    def frames(self, samples: Tensor) -> Tensor:
        """Spectra, bands, logarithms; in float32 under autocast too."""
        taper, bands = self.constants
        cut = samples.unfold(-1, self.window, self.hop)  # (..., T stack, window)
        X = torch.fft.rfft(cut * taper.to(samples.device))
        power = X.real.square() + X.imag.square()
        with torch.autocast(samples.device.type, enabled=False):  # FLOOR is zero in float16
            power = power @ bands.to(samples.device)  # (..., T stack, n_mels)
        logs = torch.log(power + FLOOR)
        return (SCALE * (logs - MEAN_LOG)).unflatten(-2, (-1, self.stack)).flatten(-2)

    @cached_property
    def constants(self) -> tuple[Tensor, Tensor]:
        """The window (window,) and the bands' weights (window / 2 + 1, n_mels), float32."""
        taper = torch.hann_window(self.window, periodic=True)
        return taper * (2 / taper.sum()), torch.from_numpy(self._bands()).float()

    def _bands(self) -> np.ndarray:
        """Triangles over the bins, (bins, n_mels); one too narrow for a bin takes the two nearest bins."""
        bins = np.linspace(0, self.sample_rate / 2, self.window // 2 + 1)
        mels = np.linspace(_mel(self.f_min), _mel(self.f_max), self.n_mels + 2)
        edges = 700 * (10 ** (mels / 2595) - 1)
        weights = np.zeros((len(bins), self.n_mels))
        for m, (low, centre, high) in enumerate(zip(edges, edges[1:], edges[2:], strict=False)):
            rising, falling = (bins - low) / (centre - low), (high - bins) / (high - centre)
            weights[:, m] = np.maximum(0, np.minimum(rising, falling))
            if not weights[:, m].any():
                weights[:, m] = np.maximum(0, 1 - np.abs(bins - centre) / bins[1])
        return weights / weights.sum(0)


def _mel(hertz: float) -> float:
    return 2595 * np.log10(1 + hertz / 700)
