"""How good a denoiser is on a set of mixtures: SI-SNR before and after, clip by clip."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch

from lrnn.data.denoiser import Denoiser
from lrnn.data.metrics import si_snr, speech_gain
from lrnn.data.ndns import Clip

SNR_EDGES = (-5, 0, 5, 10, 15, 20)


@dataclass(frozen=True)
class Score:
    """One clip.

    Attributes:
        name: of the mixture.
        snr: at which it was mixed, in dB; NaN where its name does not tell.
        before, after: SI-SNR of the noisy and of the denoised clip in dB.
        gain: that of the speech in dB, see metrics.speech_gain.
    """

    name: str
    snr: float
    before: float
    after: float
    gain: float


def scores(denoiser: Denoiser, clips: Iterable[Clip], engine: str = "torch") -> Iterator[Score]:
    """Denoise clips one after another: whole with engine "torch", as a stream with any other."""
    for clip in clips:
        if engine == "torch":
            estimate = denoiser.offline(clip.noisy)
        else:
            estimate = torch.from_numpy(denoiser.denoise(clip.noisy.numpy(), denoiser.sample_rate, engine))
        before, after = si_snr(clip.noisy, clip.clean).item(), si_snr(estimate, clip.clean).item()
        gain = speech_gain(estimate, clip.clean).item()
        yield Score(clip.info.name, clip.info.snr, before, after, gain)


def summary(found: Sequence[Score]) -> dict:
    """Means over clips.

    Returns:
        clips, si_snr, si_snri, noisy_si_snr (dB); worse, how many clips lost by it; gain and gain_spread,
        mean and standard deviation of the speech's gain in dB, None where no clip has one.
    """
    before, after = (sum(getattr(s, name) for s in found) / len(found) for name in ("before", "after"))
    worse = sum(s.after < s.before for s in found)
    gains = [s.gain for s in found if not math.isnan(s.gain)]
    return {
        "clips": len(found),
        "si_snr": after,
        "si_snri": after - before,
        "noisy_si_snr": before,
        "worse": worse,
        "gain": statistics.fmean(gains) if gains else None,
        "gain_spread": statistics.pstdev(gains) if gains else None,
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
