"""Augmentation of mixtures: level, filtering, speed, a second noise, reverberation.

What falls on a clip follows from the clip's key alone. A clip on which nothing falls is, bit for bit, the
clip that is mixed without augmentation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np

from lrnn.data.reverb import RESPONSE_SECONDS, impulse_response

Draw = Callable[[int], np.ndarray]
FILTER_HZ = (60.0, 150.0, 400.0, 1000.0, 2500.0, 6000.0)
"""Where a filter's gain is drawn; it is linear in log frequency between, constant beyond."""
TAIL_SECONDS = 0.02


class Falls(NamedTuple):
    """Which augmentations fall on a clip."""

    gain: bool
    filter: bool
    speed: bool
    two_noises: bool
    reverb: bool


@dataclass(frozen=True)
class Augment:
    """Probabilities per clip, all 0 (off) unless given, and ranges that are drawn from uniformly.

    Args:
        gain: probability that the mixture's level comes from `gain_dbfs` in place of the mixer's range.
        gain_dbfs: RMS of the mixture in dBFS; a peak beyond 0.99 still makes it less.
        filter: probability that speech and noise are filtered, each by a curve of its own. The target is
            filtered as the speech is.
        filter_db: greatest gain and loss of a curve, in dB.
        speed: probability that speech and noise are played at other speeds, pitch included.
        speed_factor: slowest and fastest.
        two_noises: probability that a second noise is added to the first, before the two are filtered or
            played at another speed as one; the SNR counts both.
        second_noise_db: its RMS in dB above the first one's.
        reverb: probability that the speech is reverberant; see lrnn.data.reverb. The target keeps the direct
            sound and the first 50 ms of the response; the SNR counts all of it.
        rt60: reverberation time in seconds.
        direct_db: energy of the direct sound in dB above that of the rest of the response.
    """

    gain: float = 0.0
    gain_dbfs: tuple[float, float] = (-50.0, -5.0)
    filter: float = 0.0
    filter_db: float = 6.0
    speed: float = 0.0
    speed_factor: tuple[float, float] = (0.88, 1.14)
    two_noises: float = 0.0
    second_noise_db: tuple[float, float] = (-10.0, 0.0)
    reverb: float = 0.0
    rt60: tuple[float, float] = (0.15, 0.6)
    direct_db: tuple[float, float] = (0.0, 12.0)

    def __post_init__(self):
        for name in Falls._fields:
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"augment.{name} is {getattr(self, name)}, expected a probability")
        for name in (f.name for f in fields(self) if isinstance(f.default, tuple)):
            pair = getattr(self, name)
            if len(pair) != 2 or pair[0] > pair[1]:
                raise ValueError(f"augment.{name} is {pair}, expected (least, greatest)")
        if self.filter_db < 0:
            raise ValueError(f"augment.filter_db is {self.filter_db}, expected at least 0")
        for name in ("speed_factor", "rt60"):
            if getattr(self, name)[0] <= 0:
                raise ValueError(f"augment.{name} is {getattr(self, name)}, expected positive numbers")

    def draw(self, rng: np.random.Generator) -> Falls:
        """What falls on one clip."""
        probabilities = self.gain, self.filter, self.speed, self.two_noises, self.reverb
        return Falls(*(rng.random(len(probabilities)) < probabilities).tolist())


OFF = Augment()


class Shaper:
    """Changes speed, colour and room of the stretches that it has drawn, in one pass through their spectrum.

    A stretch is drawn longer than the clip: half a second before it, whose reverberation reaches into the
    clip, and 20 ms after it, where the ends of the periodic transform meet. Speeds are ratios of lengths
    whose transform is fast.

    Args:
        augment: ranges.
        clip_samples: length of the clips.
        sample_rate: in Hz.
    """

    def __init__(self, augment: Augment, clip_samples: int, sample_rate: int):
        self.augment, self.clip_samples, self.sample_rate = augment, clip_samples, sample_rate
        self._lead = round(RESPONSE_SECONDS * sample_rate)
        needed = self._lead + clip_samples + round(TAIL_SECONDS * sample_rate)
        self._length = _fast_lengths(needed, 2 * needed)[0]
        slowest, fastest = (factor * self._length for factor in augment.speed_factor)
        self._drawn_lengths = _fast_lengths(slowest, fastest)
        if not self._drawn_lengths:
            raise ValueError(f"augment.speed_factor is {augment.speed_factor}, expected a wider range")
        self._curves = _curves(self._length, sample_rate)  # (len(FILTER_HZ), bins)

    def dry(self, draw: Draw, rng: np.random.Generator, falls: Falls) -> np.ndarray:
        """A clip (clip_samples,) at another speed, filtered, as `falls` says; as drawn if it says neither.

        Args:
            draw: gives a stretch of the length asked for, in 16-bit units.
            rng: draws what is done to it.
            falls: what is done.
        """
        if not (falls.speed or falls.filter):
            return draw(self.clip_samples)
        return self._cut(self._samples(self._spectrum(draw, rng, falls)))

    def speed(self, drawn: int) -> float:
        """How much faster than it was drawn a stretch of `drawn` samples is played."""
        return 1.0 if drawn == self.clip_samples else drawn / self._length

    def lead(self, drawn: int) -> float:
        """Samples of a stretch of `drawn` samples before those that become the clip."""
        return 0.0 if drawn == self.clip_samples else self._lead * drawn / self._length

    def reverberant(
        self, draw: Draw, rng: np.random.Generator, falls: Falls
    ) -> tuple[np.ndarray, np.ndarray]:
        """What `dry` gives in a room: all of it, and direct sound with early echoes only."""
        spectrum = self._spectrum(draw, rng, falls)
        rt60, direct_db = rng.uniform(*self.augment.rt60), rng.uniform(*self.augment.direct_db)
        response = impulse_response(rng, rt60, direct_db, self.sample_rate)
        early = response.add_early(self._samples(spectrum), self._lead, self.clip_samples)
        spectrum *= np.fft.rfft(response.late, self._length)
        return early + self._cut(self._samples(spectrum)), early

    def _spectrum(self, draw: Draw, rng: np.random.Generator, falls: Falls) -> np.ndarray:
        """Spectrum (bins,) of `_length` samples at the speed and of the colour drawn."""
        drawn = self._drawn_lengths[rng.integers(len(self._drawn_lengths))] if falls.speed else self._length
        spectrum = self._resized(np.fft.rfft(draw(drawn).astype(np.float32)), drawn)
        if falls.filter:
            spectrum *= self._filter(rng)
        return spectrum

    def _resized(self, spectrum: np.ndarray, drawn: int) -> np.ndarray:
        """The spectrum of as many samples as `_length`: the same sound in another time."""
        resized = np.zeros(self._length // 2 + 1, spectrum.dtype)
        bins = min(len(spectrum), len(resized))
        resized[:bins] = spectrum[:bins] * np.float32(self._length / drawn)
        return resized

    def _filter(self, rng: np.random.Generator) -> np.ndarray:
        """Gains (bins,) of a filter without phase."""
        decibels = rng.uniform(-self.augment.filter_db, self.augment.filter_db, len(FILTER_HZ))
        return np.exp((np.log(10) / 20 * decibels).astype(np.float32) @ self._curves)

    def _samples(self, spectrum: np.ndarray) -> np.ndarray:
        return np.fft.irfft(spectrum, self._length).astype(np.float32, copy=False)

    def _cut(self, samples: np.ndarray) -> np.ndarray:
        return samples[self._lead : self._lead + self.clip_samples]


def add_noise(first: np.ndarray, second: np.ndarray, decibels: float) -> np.ndarray:
    """Two noises (n,) as one, the second's RMS `decibels` above the first's; a silent second adds nothing."""
    first, second = first.astype(np.float32), second.astype(np.float32)
    energy = np.dot(second, second)
    if not energy:
        return first
    return first + second * np.float32(10 ** (decibels / 20) * np.sqrt(np.dot(first, first) / energy))


def _fast_lengths(least: float, greatest: float) -> list[int]:
    """Even numbers in the range whose only prime factors are 2, 3 and 5, in order."""
    found = []
    twos = 2
    while twos <= greatest:
        threes = twos
        while threes <= greatest:
            fives = threes
            while fives <= greatest:
                if fives >= least:
                    found.append(fives)
                fives *= 5
            threes *= 3
        twos *= 2
    return sorted(found)


def _curves(length: int, sample_rate: int) -> np.ndarray:
    """For each frequency of FILTER_HZ its weight at every bin, (len(FILTER_HZ), bins) float32."""
    frequency = np.fft.rfftfreq(length, 1 / sample_rate)
    place, points = np.log(np.maximum(frequency, 1.0)), np.log(FILTER_HZ)
    return np.stack([np.interp(place, points, one) for one in np.eye(len(points))]).astype(np.float32)
