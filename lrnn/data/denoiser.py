"""A Program with its front end around it: noisy audio goes in, clean audio comes out, hop by hop or whole."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lrnn.data.audio import Resampler, resample
from lrnn.data.features import StreamingFeatures
from lrnn.data.stft import Stft, apply_mask
from lrnn.data.stft_stream import StreamingIstft, StreamingStft
from lrnn.models import DENOISER
from lrnn.program import Program, load

if TYPE_CHECKING:
    from torch import Tensor


class Denoiser:
    """A denoising Program and the front end that its meta["frontend"] names.

    Args:
        program: reads `features` of a spectrum and makes a mask, both as wide as the transform has bins.
    """

    def __init__(self, program: Program):
        if "frontend" not in program.meta:
            raise ValueError(
                "program has no frontend in its meta, expected a denoiser's: it takes features, not audio"
            )
        self.program = program
        self.stft = Stft.from_meta(program.meta["frontend"])
        widths = (program.input_width, program.output_width)
        if widths != (self.stft.n_bins, self.stft.n_bins):
            raise ValueError(
                f"program has widths {widths}, expected {self.stft.n_bins} in and out for its frontend"
            )

    @classmethod
    def load(cls, path: str | os.PathLike | None = None) -> Denoiser:
        """Read a program's file; None is the model that ships with the package."""
        path = Path(DENOISER if path is None else path)
        if path == DENOISER and not path.is_file():
            raise FileNotFoundError(f"{DENOISER}: this build of lrnn ships no denoiser; name one of your own")
        return cls(load(path))

    @property
    def sample_rate(self) -> int:
        """Of the audio that streams take, in Hz."""
        return self.stft.sample_rate

    def stream(self, engine: str = "native") -> DenoiseStream:
        """A running instance at the denoiser's own sample rate; output lags input by `delay` samples."""
        return DenoiseStream(self, engine)

    def aligned_stream(self, rate: int, engine: str = "native") -> AlignedStream:
        """A running instance at any sample rate whose output lines up with its input."""
        return AlignedStream(self, rate, engine)

    def denoise(self, audio: np.ndarray, rate: int, engine: str = "native") -> np.ndarray:
        """Denoise a recording through the streaming path.

        Args:
            audio: (n,) or (n, channels) real samples in -1..1; each channel has a stream of its own.
            rate: of the audio in Hz; resampled to the denoiser's and back.
            engine: "native", "numpy" or "torch".

        Returns:
            float32 of the same shape, sample n in line with sample n of the input.
        """
        audio = np.asarray(audio)
        if audio.ndim not in (1, 2) or audio.shape[1:] == (0,):
            raise ValueError(f"audio has shape {audio.shape}, expected (n,) or (n, channels)")
        if audio.ndim == 1:
            return self._denoise_channel(audio, rate, engine)
        return np.stack([self._denoise_channel(channel, rate, engine) for channel in audio.T], axis=1)

    def _denoise_channel(self, samples: np.ndarray, rate: int, engine: str) -> np.ndarray:
        stream = self.aligned_stream(rate, engine)
        return np.concatenate((stream.push(samples), stream.flush()))

    def offline(self, audio: Tensor) -> Tensor:
        """Denoise a batch of whole clips at once with the torch executor; equal to the stream up to rounding.

        Args:
            audio: torch (..., N) float at the denoiser's sample rate.

        Returns:
            Tensor of the same shape.
        """
        import torch

        with torch.inference_mode():
            X = self.stft.analyse(audio)  # (..., T, F)
            frames = self.stft.read(X)
            mask, _ = self._executor(frames.reshape(-1, *frames.shape[-2:]))
            return self.stft.resynthesise(X, mask.reshape(X.shape), audio.shape[-1])

    def features(self, audio: np.ndarray, rate: int) -> np.ndarray:
        """What the program reads when this recording is denoised: (T, F) float32; channels are averaged.

        Args:
            audio: (n,) or (n, channels).
            rate: in Hz.
        """
        import torch

        audio = np.asarray(audio, np.float32)
        mono = resample(audio if audio.ndim == 1 else audio.mean(1), rate, self.sample_rate)
        return self.stft.read(self.stft.analyse(torch.from_numpy(np.ascontiguousarray(mono)))).numpy()

    @cached_property
    def _executor(self):
        from lrnn.program.torch_executor import TorchExecutor

        return TorchExecutor(self.program)


class DenoiseStream:
    """One channel at the denoiser's sample rate, hop by hop.

    Output sample n + delay is input sample n, denoised. The first `delay` samples are zeros. Everything
    returned together has `delay` samples more than was taken.

    Args:
        denoiser: program and front end.
        engine: "native", "numpy" or "torch".
    """

    def __init__(self, denoiser: Denoiser, engine: str = "native"):
        self.hop, self.delay, self.latency = denoiser.stft.hop, denoiser.stft.delay, denoiser.stft.latency
        self._program = denoiser.program.stream(engine)
        self._analysis, self._synthesis = StreamingStft(denoiser.stft), StreamingIstft(denoiser.stft)
        self._features = StreamingFeatures(denoiser.stft.features)
        self.reset()

    def reset(self) -> None:
        """Start a new clip."""
        self._program.reset()
        self._analysis.reset()
        self._features.reset()
        self._synthesis.reset()
        self._waiting = np.zeros(0, np.float32)  # samples short of a hop, taken by `run`

    def step(self, samples) -> np.ndarray:
        """Take one hop of samples, (hop,) float; return one hop, (hop,) float32."""
        samples = _checked(samples)
        if len(samples) != self.hop:
            raise ValueError(f"samples has shape {samples.shape}, expected ({self.hop},)")
        if len(self._waiting):
            raise ValueError(
                f"run() left {len(self._waiting)} samples short of a hop; go on with run() or flush()"
            )
        X = self._analysis.push(samples)
        if not len(X):
            return np.zeros(self.hop, np.float32)
        mask = self._program.step(self._features.push(X)[0])
        return self._synthesis.push(apply_mask(X, mask))

    def run(self, samples) -> np.ndarray:
        """Take any number of samples, (n,) float; return the hops they finish, (K hop,) float32.

        Samples short of a hop wait for the next call. The result is that of steps, up to rounding.
        """
        samples = np.concatenate((self._waiting, _checked(samples)))
        whole = len(samples) - len(samples) % self.hop
        self._waiting = samples[whole:]
        X = self._analysis.push(samples[:whole])
        mask = self._program.run(self._features.push(X))
        early = np.zeros(whole - len(X) * self.hop, np.float32)  # the first hops of a clip complete no frame
        return np.concatenate((early, self._synthesis.push(apply_mask(X, mask))))

    def flush(self) -> np.ndarray:
        """End the clip: return the last `delay` samples and those for what waited, and start anew."""
        rest = len(self._waiting) + self.delay
        ahead = (
            self.latency // 2
        )  # half a frame of zeros completes the last frame, whose middle is the clip's end
        silence = np.zeros(-len(self._waiting) % self.hop + ahead, np.float32)
        tail = np.concatenate((self.run(silence), self._synthesis.flush()))[:rest]
        self.reset()
        return tail


class AlignedStream:
    """One channel at any sample rate, piece by piece; what comes out, put together, lines up with what went
    in.

    The delay is hidden: the first calls return less than they take, `flush` the rest.

    Args:
        denoiser: program and front end.
        rate: of the input and the output in Hz.
        engine: "native", "numpy" or "torch".
    """

    def __init__(self, denoiser: Denoiser, rate: int, engine: str = "native"):
        if rate < 1:
            raise ValueError(f"rate is {rate}, expected a positive number of Hz")
        self._stream = denoiser.stream(engine)
        self._down, self._up = Resampler(rate, denoiser.sample_rate), Resampler(denoiser.sample_rate, rate)
        self._late = self._stream.delay  # samples of the stream's output still to drop
        self._owed = 0  # samples taken and not yet returned

    def push(self, samples) -> np.ndarray:
        """Take any number of samples, (n,) float; return those that are finished, float32."""
        samples = _checked(samples)
        self._owed += len(samples)
        return self._pay(self._up.push(self._on_time(self._stream.run(self._down.push(samples)))))

    def flush(self) -> np.ndarray:
        """The rest, so that as many samples have come out as went in; nothing may be pushed afterwards."""
        last = np.concatenate((self._stream.run(self._down.flush()), self._stream.flush()))
        rest = self._pay(np.concatenate((self._up.push(self._on_time(last)), self._up.flush())))
        return np.concatenate(
            (rest, np.zeros(self._owed, np.float32))
        )  # two resamplings round lengths down at most

    def _on_time(self, samples: np.ndarray) -> np.ndarray:
        dropped = min(self._late, len(samples))
        self._late -= dropped
        return samples[dropped:]

    def _pay(self, samples: np.ndarray) -> np.ndarray:
        samples = samples[: self._owed]
        self._owed -= len(samples)
        return samples


def _checked(samples) -> np.ndarray:
    samples = np.asarray(samples)
    if samples.ndim != 1:
        raise ValueError(f"samples has shape {samples.shape}, expected (n,)")
    if samples.dtype.kind != "f":
        raise TypeError(f"samples is {samples.dtype}, expected float in -1..1")
    samples = samples.astype(np.float32, copy=False)
    if not np.isfinite(samples).all():
        at = int(np.argmin(np.isfinite(samples)))
        raise ValueError(f"samples[{at}] is {samples[at]}, expected finite numbers")
    return samples
