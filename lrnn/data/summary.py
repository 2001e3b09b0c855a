"""Scores of clips, their means over all and over bands of SNR, and how sure those are."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from lrnn.data.bootstrap import intervals
from lrnn.data.ndns import ClipInfo

SNR_EDGES = (-5, 0, 5, 10, 15, 20)


@dataclass(frozen=True)
class Score:
    """One clip.

    Attributes:
        name: of the mixture.
        snr: at which it was mixed, in dB; NaN where its name does not tell.
        noisy, denoised: figures by name, see figures.FIGURES; NaN where one is undefined, empty where the
            clip could not be read, denoised or measured.
        gain: that of the speech in dB, see metrics.speech_gain.
        problem: why figures are missing; "" where none is.
    """

    name: str
    snr: float
    noisy: dict[str, float] = field(default_factory=dict)
    denoised: dict[str, float] = field(default_factory=dict)
    gain: float = math.nan
    problem: str = ""

    @classmethod
    def failed(cls, info: ClipInfo, problem) -> Score:
        """A clip without figures."""
        return cls(info.name, info.snr, problem=" ".join(str(problem).split()))


def summary(found: Sequence[Score]) -> dict:
    """Means over clips.

    Returns:
        clips, those with figures, and failed, those without; si_snr, si_snri, noisy_si_snr (dB); worse, how
        many clips lost by it; gain and gain_spread, mean and standard deviation of the speech's gain in dB;
        figures, what `paired` says of each figure. None where no clip has it.
    """
    scored = [s for s in found if s.denoised]
    names = scored[0].denoised if scored else ()
    figures = {name: paired(scored, name) for name in names}
    si_snr = figures.get("si_snr")
    gains = [s.gain for s in scored if not math.isnan(s.gain)]
    return {
        "clips": len(scored),
        "failed": len(found) - len(scored),
        "si_snr": si_snr["denoised"]["mean"] if si_snr else None,
        "si_snri": si_snr["improvement"]["mean"] if si_snr else None,
        "noisy_si_snr": si_snr["noisy"]["mean"] if si_snr else None,
        "worse": sum(s.denoised["si_snr"] < s.noisy["si_snr"] for s in scored),
        "gain": statistics.fmean(gains) if gains else None,
        "gain_spread": statistics.pstdev(gains) if gains else None,
        "figures": figures,
    }


def paired(found: Sequence[Score], name: str) -> dict | None:
    """One figure over the clips that have it on both sides.

    Returns:
        clips, how many they are; noisy, denoised and improvement, each with mean, low and high: 95 %
        bootstrap intervals over clips, that of the improvement from pairs. None where no clip has it.
    """
    pairs = np.array([(s.noisy[name], s.denoised[name]) for s in found]).reshape(-1, 2)
    pairs = pairs[~np.isnan(pairs).any(1)]
    if not len(pairs):
        return None
    columns = np.column_stack((pairs, pairs[:, 1] - pairs[:, 0]))
    sides = zip(("noisy", "denoised", "improvement"), intervals(columns), strict=True)
    return {"clips": len(pairs), **{side: interval._asdict() for side, interval in sides}}


def by_snr(found: Sequence[Score]) -> list[dict]:
    """The summary by bands of mixing SNR; clips whose name does not tell it and bands without figures are
    left out.
    """
    bands = []
    for low, high in pairwise(SNR_EDGES):
        last = high == SNR_EDGES[-1]
        inside = [s for s in found if low <= s.snr < high or (last and s.snr == high)]
        if any(s.denoised for s in inside):
            bands.append({"snr": f"{low} to {high}", **summary(inside)})
    return bands
