"""The denoiser's front end over whole clips: short-time Fourier transform, features, mask, inverse.

The streaming form of the same transform is lrnn.data.stft_stream; both lie on one grid of frames. Frame t
covers the samples from `hop * t - n_fft / 2` on; what lies outside the clip is zero. Spectra are divided by
n_fft, as scipy.signal.stft does with a boxcar window, so the boxcar transform is the paper's (SPEC: the N-DNS
task).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from lrnn.data.features import FEATURES, OFFSET, check_kind

WINDOWS = ("hann", "boxcar")
FRONTEND_KIND = "stft-mask"


@dataclass(frozen=True)
class Stft:
    """A short-time Fourier transform with exact reconstruction and a stated latency.

    Args:
        n_fft: samples per frame; an even multiple of `hop`.
        hop: samples from one frame to the next.
        window: "hann" is the square root of a periodic Hann window in analysis and in synthesis; "boxcar" is
            the paper's.
        sample_rate: in Hz; the transform does not use it, it travels with the setting.
        features: what the network reads of the spectra, see lrnn.data.features; it travels too.
    """

    n_fft: int = 512
    hop: int = 128
    window: str = "hann"
    sample_rate: int = 16000
    features: str = "magnitude"

    def __post_init__(self):
        check_kind(self.features)
        if self.window not in WINDOWS:
            raise ValueError(f"window is {self.window!r}, expected one of {WINDOWS}")
        if self.hop < 1 or self.n_fft < 2 * self.hop or self.n_fft % (2 * self.hop):
            raise ValueError(f"n_fft is {self.n_fft}, expected an even multiple of hop ({self.hop})")
        if self.sample_rate < 1:
            raise ValueError(f"sample_rate is {self.sample_rate}, expected a positive number of Hz")

    @property
    def n_bins(self) -> int:
        """Frequencies per frame, from 0 Hz to half the sample rate."""
        return self.n_fft // 2 + 1

    @property
    def delay(self) -> int:
        """Samples by which a stream's output lags: input sample n is output sample n + delay."""
        return self.n_fft - self.hop

    @property
    def latency(self) -> int:
        """Samples from a sample's arrival to that of its output: the delay and one hop to gather."""
        return self.delay + self.hop

    def n_frames(self, n_samples: int) -> int:
        """Frames of a clip of this many samples: every sample is covered (480,000 samples make 3751)."""
        return -(-n_samples // self.hop) + 1

    def taper(self, dtype: torch.dtype = torch.float64, device: torch.device | None = None) -> Tensor:
        """The window's samples, (n_fft,)."""
        if self.window == "boxcar":
            return torch.ones(self.n_fft, dtype=dtype, device=device)
        return torch.hann_window(self.n_fft, periodic=True, dtype=dtype, device=device).sqrt()

    def analyse(self, audio: Tensor) -> Tensor:
        """Spectra of whole clips.

        Args:
            audio: (..., N) real.

        Returns:
            (..., T, F) complex with T = n_frames(N), F = n_bins; float32 and narrower input gives complex64.
        """
        if audio.ndim < 1 or audio.is_complex():
            raise ValueError(f"audio has shape {tuple(audio.shape)}, {audio.dtype}; expected real (..., N)")
        audio = audio if audio.dtype == torch.float64 else audio.float()
        n = audio.shape[-1]
        flat = audio.reshape(audio.shape[:-1].numel(), n)
        half, tail = self.n_fft // 2, -n % self.hop
        frames = pad(flat, (half, half + tail)).unfold(-1, self.n_fft, self.hop)  # (B, T, n_fft)
        X = torch.fft.rfft(frames * (self.taper(flat.dtype, flat.device) / self.n_fft))
        return X.reshape(*audio.shape[:-1], *X.shape[1:])

    def synthesise(self, X: Tensor, length: int) -> Tensor:
        """Audio from spectra: overlap-add of the windowed frames divided by the sum of squared windows.

        Args:
            X: (..., T, F) complex, as `analyse` makes it.
            length: samples N of the clip; T must be n_frames(N).

        Returns:
            (..., N) real.
        """
        expected = (self.n_frames(length), self.n_bins)
        if X.ndim < 2 or tuple(X.shape[-2:]) != expected:
            raise ValueError(
                f"X has shape {tuple(X.shape)}, expected (..., T, F) with {expected} for {length} samples"
            )
        frames = torch.fft.irfft(X.reshape(X.shape[:-2].numel(), *expected), self.n_fft)
        return self._overlap_add(frames, length).reshape(*X.shape[:-2], length)

    def resynthesise(self, X: Tensor, M: Tensor, length: int) -> Tensor:
        """`synthesise(apply_mask(X, M), length)` with a gradient to the mask alone.

        With autograd's way through complex products, and transposed spectra, a training step at k = 1 was a
        quarter longer (0.235 s against 0.185 s; 16 x 2 s, one core).

        Args:
            X: (..., T, F) complex, as `analyse` makes it; it gets no gradient.
            M: (..., T, F) real.
            length: samples N of the clip.

        Returns:
            (..., N) real.
        """
        if M.shape != X.shape:
            raise ValueError(f"M has shape {tuple(M.shape)}, expected that of X, {tuple(X.shape)}")
        return _Resynthesis.apply(X.detach(), M, self, length)

    def _overlap_add(self, frames: Tensor, length: int) -> Tensor:
        """Frames (B, T, n_fft), unwindowed, to (B, N): least squares (Griffin and Lim 1984, equation 6)."""
        n_hops, overlap = frames.shape[1] + self.n_fft // self.hop - 1, self.n_fft // self.hop
        frames = frames * (self.taper(frames.dtype, frames.device) * self.n_fft)
        hops = frames.unflatten(-1, (overlap, self.hop))  # (B, T, overlap, hop)
        total = frames.new_zeros(frames.shape[0], n_hops, self.hop)
        for j in range(overlap):
            total[:, j : j + frames.shape[1]] += hops[:, :, j]
        half = self.n_fft // 2
        return total.flatten(1)[:, half : half + length] / self._envelope(frames, length)

    def _envelope(self, like: Tensor, length: int) -> Tensor:
        """Sum of the squared windows of all frames over a clip's samples, (N,)."""
        count, overlap = self.n_frames(length), self.n_fft // self.hop
        squares = self.taper(like.dtype, like.device).square().view(overlap, self.hop)
        total = like.new_zeros(count + overlap - 1, self.hop)
        for j in range(overlap):
            total[j : j + count] += squares[j]
        half = self.n_fft // 2
        return total.flatten()[half : half + length]

    def to_meta(self) -> dict:
        """The front end as a Program's meta["frontend"] holds it."""
        return {
            "kind": FRONTEND_KIND,
            "n_fft": self.n_fft,
            "hop": self.hop,
            "window": self.window,
            "sample_rate": self.sample_rate,
            "features": self.features,
            "offset": OFFSET,
        }

    def read(self, X: Tensor) -> Tensor:
        """What the network reads of the spectra (..., T, F) of whole clips: real, of the same shape."""
        return FEATURES[self.features](X)

    @classmethod
    def from_meta(cls, meta: dict) -> Stft:
        """The transform that `to_meta` described; ValueError says what is missing or another front end's."""
        if not isinstance(meta, dict) or meta.get("kind") != FRONTEND_KIND:
            kind = meta.get("kind") if isinstance(meta, dict) else meta
            raise ValueError(f"frontend kind is {kind!r}, expected {FRONTEND_KIND!r}")
        missing = [key for key in ("n_fft", "hop", "window", "sample_rate") if key not in meta]
        if missing:
            raise ValueError(f"frontend has no {missing[0]!r}")
        if meta.get("offset", OFFSET) != OFFSET:
            raise ValueError(f"frontend offset is {meta['offset']}, expected {OFFSET}")
        kind = meta.get("features", "magnitude")  # files written before there was a choice
        return cls(meta["n_fft"], meta["hop"], meta["window"], meta["sample_rate"], kind)


class _Resynthesis(torch.autograd.Function):
    """Mask, inverse transform, overlap-add: linear in the mask, so its gradient is the adjoint.

    With g the gradient of the windowed frames, dL/dM[k] = c[k] Re(conj(X[k]) rfft(g)[k]), where c is 1 at
    0 Hz and at half the sample rate and 2 between: each of those bins stands for its conjugate too.
    """

    @staticmethod
    def forward(ctx, X: Tensor, M: Tensor, stft: Stft, length: int) -> Tensor:
        ctx.save_for_backward(X)
        ctx.stft, ctx.length = stft, length
        return stft.synthesise(apply_mask(X, M), length)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: Tensor):
        (X,), stft = ctx.saved_tensors, ctx.stft
        flat = gradient.reshape(gradient.shape[:-1].numel(), ctx.length)
        half, tail = stft.n_fft // 2, -ctx.length % stft.hop
        flat = pad(flat / stft._envelope(flat, ctx.length), (half, half + tail))
        frames = flat.unfold(-1, stft.n_fft, stft.hop) * stft.taper(flat.dtype, flat.device)
        G = torch.fft.rfft(frames).view(X.shape)
        dM = X.real * G.real + X.imag * G.imag
        dM[..., 1 : stft.n_bins - 1] *= 2
        return None, dM, None, None


def apply_mask(X, M):
    """X (1 + M): magnitude |X| (1 + M), which may be negative, and the noisy phase. Torch or numpy."""
    return X * (1 + M)
