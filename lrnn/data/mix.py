"""Noisy speech mixed on the fly from clean and noise recordings, as the N-DNS challenge does it.

Every mixture follows from a key of integers alone, such as (seed, epoch, index): any order, any number of
workers and any resumption give the same clips.
"""

from __future__ import annotations

import numpy as np

from lrnn.data.sources import Recordings

WINDOW_SECONDS = 0.1
ACTIVE_DB = -50.0
PEAK_LIMIT = 0.99
QUIET_PEAK = 0.01
"""A stretch that stays below -40 dBFS is drawn again: scaled to peak 1 it would be a recorder's hiss."""
MAX_DRAWS = 100


class Mixer:
    """Draws clips of speech in noise.

    Clean and noise are scaled to peak 1; over the 100 ms windows where the noise is above -50 dB the ratio of
    their RMS is made `snr`; the mixture is scaled to an RMS of `level`, or less where a peak would pass 0.99.

    Args:
        clean: speech.
        noise: noise at the same sample rate.
        clip_seconds: length of a clip.
        snr: least and greatest SNR in dB; whole numbers are drawn uniformly.
        level: least and greatest RMS of the mixture in dBFS, drawn uniformly.
    """

    def __init__(
        self,
        clean: Recordings,
        noise: Recordings,
        clip_seconds: float = 2.0,
        snr: tuple[int, int] = (-5, 20),
        level: tuple[float, float] = (-35.0, -15.0),
    ):
        if clean.sample_rate != noise.sample_rate:
            raise ValueError(f"noise has {noise.sample_rate} Hz, expected clean's {clean.sample_rate} Hz")
        if snr[0] > snr[1] or level[0] > level[1]:
            raise ValueError(f"snr is {snr} and level {level}, expected (least, greatest)")
        self.clean, self.noise = clean, noise
        self.clip_samples = round(clip_seconds * clean.sample_rate)
        if self.clip_samples < 1:
            raise ValueError(f"clip_seconds is {clip_seconds}, expected at least one sample")
        self.snr, self.level = snr, level
        self._starts = np.arange(0, self.clip_samples, round(WINDOW_SECONDS * clean.sample_rate))
        self._counts = np.diff(self._starts, append=self.clip_samples).astype(np.float32)

    def __call__(self, *key: int) -> tuple[np.ndarray, np.ndarray]:
        """The mixture of a key of non-negative integers: noisy and clean, (clip_samples,) float32 each."""
        rng = np.random.default_rng(np.random.SeedSequence(key))
        for _ in range(MAX_DRAWS):
            clean = self.clean.draw(rng, self.clip_samples)
            noise = self.noise.draw(rng, self.clip_samples)
            snr = rng.integers(self.snr[0], self.snr[1], endpoint=True)
            level = rng.uniform(*self.level)
            mixture = self._mix(clean, noise, snr, level)
            if mixture is not None:
                return mixture
        raise ValueError(f"{MAX_DRAWS} stretches in a row are silent: the recordings hold (almost) no sound")

    def _mix(self, clean: np.ndarray, noise: np.ndarray, snr: float, level: float):
        """Noisy and clean from int16 stretches, or None where one of them is silent."""
        clean, clean_peak = _unit_peak(clean)
        noise, noise_peak = _unit_peak(noise)
        if min(clean_peak, noise_peak) < QUIET_PEAK:
            return None
        clean_power, noise_power = self._window_power(clean), self._window_power(noise)
        active = noise_power > 10 ** (ACTIVE_DB / 10)
        clean_rms = np.sqrt(np.dot(active * self._counts, clean_power))
        noise_rms = np.sqrt(np.dot(active * self._counts, noise_power))
        if clean_rms < 1e-3 * noise_rms or not noise_rms:
            return None  # speech pauses wherever there is noise: no scale gives the ratio asked for
        noise *= clean_rms / noise_rms * 10 ** (-snr / 20)
        noisy = clean + noise
        scale = 10 ** (level / 20) * np.sqrt(len(noisy) / np.dot(noisy, noisy))
        peak = max(_peak(noisy), 1.0, _peak(noise))
        scale = np.float32(min(scale, PEAK_LIMIT / peak))
        noisy *= scale
        clean *= scale
        return noisy, clean

    def _window_power(self, x: np.ndarray) -> np.ndarray:
        return np.add.reduceat(x * x, self._starts) / self._counts


def _unit_peak(x: np.ndarray) -> tuple[np.ndarray, float]:
    """Int16 samples as float32 with peak 1 (or all zeros), and the peak they had in -1..1."""
    peak = max(int(x.max()), -int(x.min()))
    return x * np.float32(1 / max(peak, 1)), peak / 32768


def _peak(x: np.ndarray) -> float:
    return max(float(x.max()), -float(x.min()))
