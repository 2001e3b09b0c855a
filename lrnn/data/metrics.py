"""How good an estimate of a waveform is: SI-SNR, its improvement, and the paper's training loss."""

from __future__ import annotations

import torch
from torch import Tensor

EPS = 1e-8
"""Energy added to both sides of the ratio: silence gives a finite number. Samples lie in -1..1, so a clip of
one second at -60 dBFS has an energy of 0.016."""


def si_snr(estimate: Tensor, target: Tensor) -> Tensor:
    """Scale-invariant signal-to-noise ratio in dB (Le Roux et al. 2019, SI-SDR of zero-mean signals).

    The estimate is split into its projection on the target and the rest; the ratio is that of their energies.
    Finite for every finite input: silence against silence is 0 dB, a silent target is bad in proportion to
    the estimate's energy.

    Args:
        estimate: (..., N) real.
        target: (..., N), same shape.

    Returns:
        (...) dB, differentiable.
    """
    if estimate.shape != target.shape:
        raise ValueError(
            f"estimate has shape {tuple(estimate.shape)}, expected the target's {tuple(target.shape)}"
        )
    estimate = estimate - estimate.mean(-1, keepdim=True)
    target = target - target.mean(-1, keepdim=True)
    scale = (estimate * target).sum(-1, keepdim=True) / (target.square().sum(-1, keepdim=True) + EPS)
    wanted = scale * target
    rest = estimate - wanted
    return 10 * torch.log10((wanted.square().sum(-1) + EPS) / (rest.square().sum(-1) + EPS))


def si_snr_improvement(estimate: Tensor, noisy: Tensor, target: Tensor) -> Tensor:
    """SI-SNR of the estimate above that of the noisy input, in dB; shapes as in `si_snr`."""
    return si_snr(estimate, target) - si_snr(noisy, target)


def speech_gain(estimate: Tensor, target: Tensor) -> Tensor:
    """By how much the target is louder in the estimate than it was, in dB: what SI-SNR does not see.

    Args:
        estimate: (..., N) real.
        target: (..., N), same shape.

    Returns:
        (...) dB of the estimate's projection on the target; NaN where the target is silent or the
        projection is not positive.
    """
    projection = (estimate * target).sum(-1) / target.square().sum(-1)
    return 20 * torch.log10(torch.where(projection > 0, projection, torch.nan))


def paper_si_snr(target: Tensor, estimate: Tensor) -> Tensor:
    """The reference's SI-SNR in dB, without a guard: a silent target gives NaN. Shapes as in `si_snr`."""
    target = target - target.mean(-1, keepdim=True)
    estimate = estimate - estimate.mean(-1, keepdim=True)
    scale = (estimate * target).sum(-1, keepdim=True) / target.square().sum(-1, keepdim=True)
    wanted = scale * target
    rest = estimate - wanted
    return 10 * torch.log10(wanted.square().sum(-1) / (rest.square().sum(-1) + 1e-8) + 1e-8)


def paper_loss(cleaned: Tensor, clean: Tensor, cleaned_mag: Tensor, clean_mag: Tensor) -> Tensor:
    """The reference's loss, kept for parity: 0.001 MSE of the magnitudes + (100 - mean SI-SNR).

    The reference hands SI-SNR its arguments the wrong way round: the cleaned signal is the target. So does
    this function.

    Args:
        cleaned: (B, N) estimate.
        clean: (B, N).
        cleaned_mag: |X| (1 + M), any shape; may be negative.
        clean_mag: |S|, same shape.

    Returns:
        The loss, a scalar.
    """
    mse = (cleaned_mag - clean_mag).square().mean()
    return 0.001 * mse + (100 - paper_si_snr(target=cleaned, estimate=clean).mean())
