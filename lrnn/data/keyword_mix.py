"""Keywords to train on: moved, at another speed, filtered, in a room, in noise, at another level.

What happens to a clip follows from its key alone, so that any order, any number of workers and any
resumption give the same clips.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields

import numpy as np
from numpy.random import Generator
from torch.utils.data import Dataset

from lrnn.data.augment import Augment, Draw, Shaper
from lrnn.data.keywords import SAMPLE_RATE, SILENCE, UNKNOWN, KeywordClips
from lrnn.data.sources import Recordings
from lrnn.data.stream import pass_order

PEAK_LIMIT = 0.99
QUIET = 1e-4
"""RMS (-80 dBFS) below which speech counts as none: no noise is scaled by it."""
NOISE_LEVEL_DB = (-60.0, -20.0)
"""RMS of noise without speech, in dBFS."""


@dataclass(frozen=True)
class KeywordAugment:
    """What may happen to a clip: probabilities, and ranges that are drawn from uniformly.

    Args:
        shift: greatest shift in time, in seconds, to either side.
        noise: probability that noise is added.
        snr: of speech and noise, RMS over the whole clip, in dB.
        gain_db: by which the clip's level changes; a peak beyond 0.99 makes it less.
        unknown: probability that other speech, or another word, takes the place of a keyword.
        silence: probability that noise alone does.
        shape: speed, filter and reverberation, see lrnn.data.augment; its other fields are not used.
    """

    shift: float = 0.1
    noise: float = 0.8
    snr: tuple[float, float] = (0.0, 25.0)
    gain_db: tuple[float, float] = (-12.0, 12.0)
    unknown: float = 0.1
    silence: float = 0.05
    shape: Augment = field(default_factory=Augment)

    def __post_init__(self):
        for name in ("noise", "unknown", "silence"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"augment.{name} is {getattr(self, name)}, expected a probability")
        if self.unknown + self.silence > 1:
            raise ValueError(
                f"augment.unknown, silence are {self.unknown}, {self.silence}, expected a sum of at most 1"
            )
        for name in (f.name for f in fields(self) if isinstance(f.default, tuple)):
            pair = getattr(self, name)
            if len(pair) != 2 or pair[0] > pair[1]:
                raise ValueError(f"augment.{name} is {pair}, expected (least, greatest)")
        if not 0 <= self.shift < 0.5:
            raise ValueError(f"augment.shift is {self.shift}, expected 0 to 0.5 seconds")


PLAIN = KeywordAugment(shift=0.0, noise=0.0, gain_db=(0.0, 0.0), unknown=0.0, silence=0.0)
"""Nothing happens: the clips as they are."""
CALIBRATION = KeywordAugment(shift=0.0, noise=0.0, unknown=0.0, silence=0.0)
"""Any level: what ranges are found on, of any corpus."""


class KeywordMixer:
    """Draws clips of one second with their labels.

    Args:
        clips: keywords; clips of words that are not among `labels` count as unknown.
        labels: what the network tells apart, in its order.
        noise: recordings of no speech, or None.
        speech: recordings of other speech, or None.
        augment: what happens.

    Raises:
        ValueError: the augmentation or a label needs recordings that are not given.
    """

    def __init__(
        self,
        clips: KeywordClips,
        labels: Sequence[str],
        noise: Recordings | None,
        speech: Recordings | None,
        augment: KeywordAugment,
    ):
        self.labels = {label: index for index, label in enumerate(labels)}
        words = [clip.word for clip in clips.clips]
        missing = [label for label in labels if label not in (UNKNOWN, SILENCE, *words)]
        if missing:
            raise ValueError(f"labels has {missing[0]!r}, but {clips.folder} has no clip of it to train on")
        self.others = [i for i, word in enumerate(words) if word not in self.labels]
        self.words = [i for i, word in enumerate(words) if word in self.labels]
        if augment.unknown and (UNKNOWN not in self.labels or not (speech or self.others)):
            raise ValueError(
                f"augment.unknown is {augment.unknown}, expected the label {UNKNOWN!r}, and a folder of "
                "speech or words that are no labels"
            )
        if augment.silence and (SILENCE not in self.labels or noise is None):
            raise ValueError(
                f"augment.silence is {augment.silence}, expected the label {SILENCE!r} and a folder of noise"
            )
        if augment.noise and noise is None:
            raise ValueError(f"augment.noise is {augment.noise}, expected a folder of noise")
        self.clips, self.noise, self.speech, self.augment = clips, noise, speech, augment
        self._shaper = Shaper(augment.shape, SAMPLE_RATE, SAMPLE_RATE)

    def __call__(self, index: int, rng: Generator) -> tuple[np.ndarray, int]:
        """A clip (SAMPLE_RATE,) float32 in -1..1 and its label, of the keyword that is `index` in `words`."""
        kind = rng.random()
        if kind < self.augment.silence:
            return self._silence(rng), self.labels[SILENCE]
        if kind < self.augment.silence + self.augment.unknown:
            return self._finished(self._unknown(rng), rng), self.labels[UNKNOWN]
        place = self.words[index]
        label = self.labels[self.clips.clips[place].word]
        return self._finished(self._shaped(self._placed(self.clips[place], rng), rng), rng), label

    def _unknown(self, rng: Generator) -> np.ndarray:
        """Another word, or a stretch of speech."""
        if self.others and (self.speech is None or rng.random() < 0.5):
            clip = self.clips[self.others[rng.integers(len(self.others))]]
            return self._shaped(self._placed(clip, rng), rng)
        return self._shaped(lambda length: self.speech.draw(rng, length), rng)

    def _placed(self, clip: np.ndarray, rng: Generator) -> Draw:
        """A function that puts a clip into a stretch of any length, moved by a shift that is drawn now.

        The stretch is that of a Shaper: what becomes the clip begins after its lead.
        """
        shift = rng.uniform(-self.augment.shift, self.augment.shift) * SAMPLE_RATE

        def draw(length: int) -> np.ndarray:
            stretch = np.zeros(length, np.int16)
            speed = self._shaper.speed(length)  # of the stretch, played in the time of one of speed 1
            start = round(self._shaper.lead(length) + shift + SAMPLE_RATE * (speed - 1) / 2)
            first, last = max(0, -start), min(SAMPLE_RATE, length - start)
            stretch[start + first : start + last] = clip[first:last]
            return stretch

        return draw

    def _shaped(self, draw: Draw, rng: Generator) -> np.ndarray:
        falls = self.augment.shape.draw(rng)
        if falls.reverb:
            return self._shaper.reverberant(draw, rng, falls)[0]
        return self._shaper.dry(draw, rng, falls)

    def _silence(self, rng: Generator) -> np.ndarray:
        """Noise alone at a level of its own."""
        noise = self.noise.draw(rng, SAMPLE_RATE).astype(np.float32)
        return _limited(noise * _factor(noise, 10 ** (rng.uniform(*NOISE_LEVEL_DB) / 20)))

    def _finished(self, speech: np.ndarray, rng: Generator) -> np.ndarray:
        """Noise added, the level changed; `speech` is in 16-bit units."""
        speech = speech.astype(np.float32) / 32768
        level = _rms(speech)
        if rng.random() < self.augment.noise and level > QUIET:
            noise = self.noise.draw(rng, SAMPLE_RATE).astype(np.float32)
            speech = speech + noise * _factor(noise, level * 10 ** (-rng.uniform(*self.augment.snr) / 20))
        return _limited(speech * np.float32(10 ** (rng.uniform(*self.augment.gain_db) / 20)))


class KeywordStream(Dataset):
    """An endless stream of labelled clips; clip n follows from (seed, stream, n).

    Each pass takes every keyword once, in an order drawn for it.

    Args:
        mixer: draws the clips.
        seed: of all streams.
        stream: streams of other numbers share no draw with this one.
        length: what len() says; every n >= 0 is there.
    """

    def __init__(self, mixer: KeywordMixer, seed: int, stream: int, length: int):
        self.mixer, self.seed, self.stream, self.length = mixer, seed, stream, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, n: int) -> tuple[np.ndarray, int]:
        """Audio (SAMPLE_RATE,) float32, and the index of its label."""
        count = len(self.mixer.words)
        epoch, place = divmod(n, count)
        rng = np.random.default_rng(np.random.SeedSequence((self.seed, self.stream, n)))
        return self.mixer(int(pass_order(count, self.seed, self.stream, epoch)[place]), rng)


class LabelledClips(Dataset):
    """Clips as they are, with the index of their label; words that are no labels are unknown.

    Args:
        clips: of a corpus.
        labels: what the network tells apart, in its order.
    """

    def __init__(self, clips: KeywordClips, labels: Sequence[str]):
        self.clips = clips
        places = {label: index for index, label in enumerate(labels)}
        words = [clip.word if clip.word in places else UNKNOWN for clip in clips.clips]
        if UNKNOWN in words and UNKNOWN not in places:
            other = next(clip.word for clip in clips.clips if clip.word not in places)
            raise ValueError(
                f"{clips.folder} has the word {other!r}, which is no label, and none is {UNKNOWN!r}"
            )
        self.labels = [places[word] for word in words]

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, n: int) -> tuple[np.ndarray, int]:
        """Audio (SAMPLE_RATE,) float32 in -1..1, and the index of its label."""
        return self.clips[n].astype(np.float32) / 32768, self.labels[n]


def _rms(samples: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(samples))))


def _factor(noise: np.ndarray, rms: float) -> np.float32:
    """What makes a noise's RMS `rms`; digital silence stays as it is."""
    found = _rms(noise)
    return np.float32(rms / found if found else 0.0)


def _limited(samples: np.ndarray) -> np.ndarray:
    peak = float(np.abs(samples).max())
    return samples * np.float32(PEAK_LIMIT / peak) if peak > PEAK_LIMIT else samples
