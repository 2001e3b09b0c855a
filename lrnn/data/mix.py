"""Noisy speech mixed on the fly from clean and noise recordings, as the N-DNS challenge does it.

Every mixture follows from a key of integers alone, such as (seed, epoch, index): any order, any number of
workers and any resumption give the same clips.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.random import Generator

from lrnn.data.augment import OFF, Augment, Falls, Shaper, add_noise
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
        augment: what else may happen to a clip.
    """

    def __init__(
        self,
        clean: Recordings,
        noise: Recordings,
        clip_seconds: float = 2.0,
        snr: tuple[int, int] = (-5, 20),
        level: tuple[float, float] = (-35.0, -15.0),
        augment: Augment = OFF,
    ):
        if clean.sample_rate != noise.sample_rate:
            raise ValueError(f"noise has {noise.sample_rate} Hz, expected clean's {clean.sample_rate} Hz")
        if snr[0] > snr[1] or level[0] > level[1]:
            raise ValueError(f"snr is {snr} and level {level}, expected (least, greatest)")
        self.clean, self.noise = clean, noise
        self.clip_samples = round(clip_seconds * clean.sample_rate)
        if self.clip_samples < 1:
            raise ValueError(f"clip_seconds is {clip_seconds}, expected at least one sample")
        self.snr, self.level, self.augment = snr, level, augment
        self._shaper = Shaper(augment, self.clip_samples, clean.sample_rate)
        self._starts = np.arange(0, self.clip_samples, round(WINDOW_SECONDS * clean.sample_rate))
        self._counts = np.diff(self._starts, append=self.clip_samples).astype(np.float32)

    def __call__(self, *key: int) -> tuple[np.ndarray, np.ndarray]:
        """The mixture of a key of non-negative integers: noisy and clean, (clip_samples,) float32 each.

        Noisy less clean is the noise, and the late reverberation of a reverberant clip.
        """
        rng = np.random.default_rng(np.random.SeedSequence(key))
        chance = np.random.default_rng(np.random.SeedSequence(key, spawn_key=(1,)))  # of augmentation
        for _ in range(MAX_DRAWS):
            falls = self.augment.draw(chance)
            speech, target = self._speech(rng, chance, falls)
            noise = self._noise(rng, chance, falls)
            snr = rng.integers(self.snr[0], self.snr[1], endpoint=True)
            level = rng.uniform(*self.level)
            if falls.gain:
                level = chance.uniform(*self.augment.gain_dbfs)
            mixture = self._mix(speech, target, noise, snr, level)
            if mixture is not None:
                return mixture
        raise ValueError(f"{MAX_DRAWS} stretches in a row are silent: the recordings hold (almost) no sound")

    def _speech(self, rng: Generator, chance: Generator, falls: Falls) -> tuple[np.ndarray, np.ndarray]:
        """Speech and the part of it that is the target, the same array unless the speech is reverberant."""
        draw = partial(self.clean.draw, rng)
        if falls.reverb:
            return self._shaper.reverberant(draw, chance, falls)
        speech = self._shaper.dry(draw, chance, falls)
        return speech, speech

    def _noise(self, rng: Generator, chance: Generator, falls: Falls) -> np.ndarray:
        """One noise, or the sum of two."""

        def draw(length: int) -> np.ndarray:
            noise = self.noise.draw(rng, length)
            if not falls.two_noises:
                return noise
            second = self.noise.draw(chance, length)
            return add_noise(noise, second, chance.uniform(*self.augment.second_noise_db))

        return self._shaper.dry(draw, chance, falls)

    def _mix(self, speech: np.ndarray, target: np.ndarray, noise: np.ndarray, snr: float, level: float):
        """Noisy and clean from stretches in 16-bit units, or None where one of them is silent."""
        speech_peak, noise_peak = _peak(speech), _peak(noise)
        if min(speech_peak, noise_peak) < QUIET_PEAK * 32768:
            return None
        clean = target * np.float32(1 / speech_peak)
        speech = clean if target is speech else speech * np.float32(1 / speech_peak)
        noise = noise * np.float32(1 / noise_peak)
        speech_power, noise_power = self._window_power(speech), self._window_power(noise)
        active = noise_power > 10 ** (ACTIVE_DB / 10)
        speech_rms = np.sqrt(np.dot(active * self._counts, speech_power))
        noise_rms = np.sqrt(np.dot(active * self._counts, noise_power))
        if speech_rms < 1e-3 * noise_rms or not noise_rms:
            return None  # speech pauses wherever there is noise: no scale gives the ratio asked for
        noise *= speech_rms / noise_rms * 10 ** (-snr / 20)
        noisy = speech + noise
        scale = 10 ** (level / 20) * np.sqrt(len(noisy) / np.dot(noisy, noisy))
        peak = max(_peak(noisy), 1.0, _peak(noise))
        if clean is not speech:
            peak = max(peak, _peak(clean))
        scale = np.float32(min(scale, PEAK_LIMIT / peak))
        noisy *= scale
        clean *= scale
        return noisy, clean

    def _window_power(self, x: np.ndarray) -> np.ndarray:
        return np.add.reduceat(x * x, self._starts) / self._counts


def _peak(x: np.ndarray) -> float:
    return max(float(x.max()), -float(x.min()))
