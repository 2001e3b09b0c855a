"""What a denoiser is trained to make small."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from lrnn.data.metrics import paper_loss, si_snr
from lrnn.data.stft import Stft

Loss = Literal["si_snr", "multi_resolution", "paper"]

RESOLUTIONS = (256, 512, 1024)
"""Samples per frame of the spectra that `multi_resolution` compares, with a hop of a quarter."""
SPECTRAL_WEIGHT = 2.0
"""Weight of the spectral term, a distance of about 1 in natural logarithms, beside decibels of SI-SNR."""
MAGNITUDE_FLOOR = 1e-3
"""Below it magnitudes count as silence: a frame's worth of noise at -80 dBFS."""


class Estimate(NamedTuple):
    """What a denoiser makes of a batch."""

    audio: Tensor  # (B, N)
    spectrum: Tensor  # (B, T, F) complex, of the noisy input
    mask: Tensor  # (B, T, F)

    @property
    def magnitude(self) -> Tensor:
        """|X| (1 + M), (B, T, F); may be negative."""
        return self.spectrum.abs() * (1 + self.mask)


def training_loss(kind: Loss, estimate: Estimate, clean: Tensor, stft: Stft) -> tuple[Tensor, Tensor]:
    """What training makes small, a scalar, and the batch's mean SI-SNR in dB, which is worth a log.

    - "si_snr": negative SI-SNR in dB. Blind to level.
    - "multi_resolution": the same and the distance of log-magnitudes at three resolutions (the second term of
      Yamamoto et al. 2020, equation 5), which sees the level and weighs quiet parts as loud ones.
    - "paper": the reference's, see lrnn.data.metrics.paper_loss.

    Args:
        kind: which.
        estimate: the network's.
        clean: (B, N).
        stft: the transform the estimate's magnitudes were made with.
    """
    quality = si_snr(estimate.audio, clean).mean()
    if kind == "paper":
        loss = paper_loss(estimate.audio, clean, estimate.magnitude, stft.analyse(clean).abs())
    elif kind == "multi_resolution":
        loss = -quality + SPECTRAL_WEIGHT * spectral_distance(estimate.audio, clean)
    else:
        loss = -quality
    return loss, quality.detach()


def spectral_distance(estimate: Tensor, clean: Tensor) -> Tensor:
    """Mean absolute difference of log-magnitudes, averaged over RESOLUTIONS; (B, N) each, a scalar."""
    distances = [(_log_magnitude(estimate, n) - _log_magnitude(clean, n)).abs().mean() for n in RESOLUTIONS]
    return torch.stack(distances).mean()


def _log_magnitude(audio: Tensor, n_fft: int) -> Tensor:
    window = torch.hann_window(n_fft, dtype=audio.dtype, device=audio.device)
    X = torch.stft(audio, n_fft, n_fft // 4, window=window, return_complex=True, pad_mode="constant")
    power = torch.view_as_real(X).square().sum(-1)
    return 0.5 * (power + MAGNITUDE_FLOOR**2).log()
