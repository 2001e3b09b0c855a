"""How good a denoiser is on a set of mixtures: SI-SNR before and after, clip by clip."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch

from lrnn.data.denoiser import Denoiser
from lrnn.data.metrics import si_snr
from lrnn.data.ndns import Clip

SNR_EDGES = (-5, 0, 5, 10, 15, 20)


@dataclass(frozen=True)
class Score:
    """One clip.

    Attributes:
        name: of the mixture.
        snr: at which it was mixed, in dB; NaN where its name does not tell.
        before, after: SI-SNR of the noisy and of the denoised clip in dB.
    """

    name: str
    snr: float
    before: float
    after: float


def scores(denoiser: Denoiser, clips: Iterable[Clip], engine: str = "torch") -> Iterator[Score]:
    """Denoise clips one after another: whole with engine "torch", as a stream with any other."""
    for clip in clips:
        if engine == "torch":
            estimate = denoiser.offline(clip.noisy)
        else:
            estimate = torch.from_numpy(denoiser.denoise(clip.noisy.numpy(), denoiser.sample_rate, engine))
        before, after = si_snr(clip.noisy, clip.clean).item(), si_snr(estimate, clip.clean).item()
        yield Score(clip.info.name, clip.info.snr, before, after)


def summary(found: Sequence[Score]) -> dict:
    """Means over clips: clips, si_snr, si_snri, noisy_si_snr (dB), and `worse`, how many lost by it."""
    before, after = (sum(getattr(s, name) for s in found) / len(found) for name in ("before", "after"))
    worse = sum(s.after < s.before for s in found)
    return {
        "clips": len(found),
        "si_snr": after,
        "si_snri": after - before,
        "noisy_si_snr": before,
        "worse": worse,
    }


def by_snr(found: Sequence[Score]) -> list[dict]:
    """The summary by bins of mixing SNR; clips whose name does not tell it, and empty bins, are left out."""
    bins = []
    for low, high in pairwise(SNR_EDGES):
        last = high == SNR_EDGES[-1]
        inside = [s for s in found if low <= s.snr < high or (last and s.snr == high)]
        if inside:
            bins.append({"snr": f"{low} to {high}", **summary(inside)})
    return bins
