"""Masks over frames of bands, after SpecAugment (Park et al. 2019, arXiv 1904.08779), without its warping."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class SpecAugment:
    """How much of each clip is masked. Widths are drawn uniformly from 0 to the greatest.

    Args:
        spans: masks in time.
        span_frames: greatest width of one, in frames.
        bands: masks in frequency.
        band_width: greatest width of one, in bands.
    """

    spans: int = 0
    span_frames: int = 10
    bands: int = 0
    band_width: int = 8

    def __post_init__(self):
        for name in ("spans", "span_frames", "bands", "band_width"):
            if getattr(self, name) < 0:
                raise ValueError(f"spec_augment.{name} is {getattr(self, name)}, expected at least 0")

    def __call__(self, frames: Tensor, stack: int = 1) -> Tensor:
        """Frames (B, T, stack F), masks drawn from torch's generator and filled with zeros, the mean of
        log-mel frames; the `stack` spectra of a frame have the same bands masked.
        """
        B, T, width = frames.shape
        kept = torch.ones(B, T, 1, 1, dtype=torch.bool, device=frames.device)
        for _ in range(self.spans):
            kept = kept & ~_mask(B, T, self.span_frames, frames.device)[:, :, None, None]
        for _ in range(self.bands):
            kept = kept & ~_mask(B, width // stack, self.band_width, frames.device)[:, None, None, :]
        return (frames.unflatten(-1, (stack, -1)) * kept).flatten(-2)


def _mask(batch: int, length: int, greatest: int, device: torch.device) -> Tensor:
    """One span for each of a batch, (batch, length) bool."""
    width = torch.rand(batch, 1, device=device) * (min(greatest, length) + 1)
    start = torch.rand(batch, 1, device=device) * (length - width.floor() + 1)
    place = torch.arange(length, device=device)
    return (place >= start.floor()) & (place < start.floor() + width.floor())
