"""The figures of a denoised clip, by the metrics asked for, and one rule for every clip that has none.

A figure is NaN, and a problem says why, where the metric is not defined: without clean speech there is no
SI-SNR, PESQ, STOI or ESTOI; PESQ needs 1/4 s and a sound on both sides, STOI and ESTOI 30 frames of speech. A
silent estimate has an SI-SNR of 0 dB and a STOI and ESTOI of 0. DNSMOS repeats what is shorter than its
window. Clipped samples and offsets are measured as they are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from lrnn.data.dnsmos import Dnsmos
from lrnn.data.metrics import si_snr
from lrnn.data.perceptual import Undefined, is_silent, pesq, require, stoi


class Figure(NamedTuple):
    """How a figure is shown."""

    label: str
    unit: str  # or the scale it is on
    decimals: int


METRICS = {
    "si_snr": ("si_snr",),
    "pesq": ("pesq",),
    "stoi": ("stoi", "estoi"),
    "dnsmos": ("sig", "bak", "ovrl", "p808"),
}
"""The figures that each metric makes."""

FIGURES = {
    "si_snr": Figure("SI-SNR", "dB", 2),
    "pesq": Figure("PESQ", "MOS", 2),
    "stoi": Figure("STOI", "", 3),
    "estoi": Figure("ESTOI", "", 3),
    "sig": Figure("SIG", "DNSMOS", 2),
    "bak": Figure("BAK", "DNSMOS", 2),
    "ovrl": Figure("OVRL", "DNSMOS", 2),
    "p808": Figure("P.808", "DNSMOS", 2),
}


def checked_metrics(names: Sequence[str]) -> tuple[str, ...]:
    """Names of metrics in the order of METRICS; "all" stands for all of them, "si_snr" is always there."""
    unknown = [name for name in names if name not in (*METRICS, "all")]
    if unknown:
        raise ValueError(f"metrics has {unknown[0]!r}, expected some of {', '.join(METRICS)}, or all")
    return tuple(m for m in METRICS if m == "si_snr" or m in names or "all" in names)


class Scorer:
    """Scores estimates against clean speech.

    Args:
        metrics: names, see METRICS; a missing package or model is an error here, not later.
        rate: of the audio, in Hz.
        dnsmos: folder of the DNSMOS models.
    """

    def __init__(self, metrics: Sequence[str] = ("si_snr",), rate: int = 16000, dnsmos: Path | None = None):
        self.metrics, self.rate = checked_metrics(metrics), rate
        self.figures = tuple(figure for metric in self.metrics for figure in METRICS[metric])
        self._make = {"si_snr": _si_snr, "pesq": self._pesq, "stoi": self._stoi, "dnsmos": self._score_dnsmos}
        for metric, package in (("pesq", "pesq"), ("stoi", "pystoi")):
            if metric in self.metrics:
                require(metric, package)
        if "dnsmos" in self.metrics:
            if dnsmos is None:
                raise ValueError(
                    "the metric dnsmos has no models: expected --dnsmos DIR or LRNN_DNSMOS in the environment"
                )
            self._dnsmos = Dnsmos(dnsmos)

    def __call__(self, estimate: np.ndarray, target: np.ndarray) -> tuple[dict[str, float], list[str]]:
        """Score (n,) float32 samples against (n,) clean ones.

        Returns:
            every figure, rounded to a millionth, NaN where it is undefined; and why it is.
        """
        found, problems = {}, []
        for metric in self.metrics:
            try:
                values = self._make[metric](estimate, target)
            except Undefined as why:
                values = (math.nan,) * len(METRICS[metric])
                problems.append(str(why))
            found |= {f: round(v, 6) for f, v in zip(METRICS[metric], values, strict=True)}
        return found, list(dict.fromkeys(problems))  # each reason once

    def _pesq(self, estimate, target):
        return (pesq(estimate, target, self.rate),)

    def _stoi(self, estimate, target):
        return stoi(estimate, target, self.rate)

    def _score_dnsmos(self, estimate, _):
        return self._dnsmos(estimate, self.rate).values()


def _si_snr(estimate: np.ndarray, target: np.ndarray) -> tuple[float]:
    if is_silent(target):
        raise Undefined("clean is silent")
    return (si_snr(torch.from_numpy(estimate), torch.from_numpy(target)).item(),)
