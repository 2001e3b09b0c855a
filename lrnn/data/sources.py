"""Recordings held in memory as 16-bit samples, and random stretches drawn from them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lrnn.data import audio

GAP_SECONDS = 0.2


class Recordings:
    """Many mono recordings in one int16 array: an hour at 16 kHz takes 115 MB.

    Args:
        recordings: (n,) int16 arrays, or float arrays in -1..1.
        sample_rate: of all of them, in Hz.
    """

    def __init__(self, recordings: Sequence[np.ndarray], sample_rate: int = 16000):
        recordings = [_int16(r) for r in recordings if len(r)]
        if not recordings:
            raise ValueError("recordings is empty, expected at least one array with samples")
        self.sample_rate = sample_rate
        self._samples = np.concatenate(recordings)
        self._ends = np.cumsum([len(r) for r in recordings])  # (m,) one past each recording's last sample
        self._gap = round(GAP_SECONDS * sample_rate)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> np.ndarray:
        """One recording, (n,) int16."""
        start = self._ends[index - 1] if index else 0
        return self._samples[start : self._ends[index]]

    @property
    def seconds(self) -> float:
        """Length of all recordings together."""
        return len(self._samples) / self.sample_rate

    def draw(self, rng: np.random.Generator, length: int) -> np.ndarray:
        """A random stretch of (length,) int16 samples.

        It starts at a sample drawn uniformly from all recordings; where a recording ends, 0.2 s of silence
        and another one drawn at random follow.
        """
        clip = np.zeros(length, np.int16)
        start = int(rng.integers(len(self._samples)))
        index = int(np.searchsorted(self._ends, start, side="right"))
        filled = 0
        while filled < length:
            piece = self._samples[start : min(int(self._ends[index]), start + length - filled)]
            clip[filled : filled + len(piece)] = piece
            filled += len(piece) + self._gap
            index = int(rng.integers(len(self._ends)))
            start = int(self._ends[index - 1]) if index else 0
        return clip


def read_recordings(folder, sample_rate: int = 16000) -> Recordings:
    """Read every WAV and FLAC file below a folder; other rates are resampled, channels averaged."""
    paths = sorted(p for p in Path(folder).rglob("*") if p.suffix.lower() in audio.EXTENSIONS)
    if not paths:
        raise FileNotFoundError(f"{folder}: no WAV or FLAC files, expected recordings")
    return Recordings([audio.to_int16(audio.read_mono(path, sample_rate)) for path in paths], sample_rate)


def read_sources(folder, sample_rate: int = 16000) -> tuple[Recordings, Recordings]:
    """Read the recordings of folder/clean and of folder/noise."""
    return tuple(read_recordings(Path(folder) / kind, sample_rate) for kind in ("clean", "noise"))


def find_sources(data) -> Path:
    """The folder with clean/ and noise/ to mix from: `data` itself, or where the DNS corpora and ndns-mini
    keep it below `data`.

    A folder of ready mixtures, which has noisy/ too, is not taken.
    """
    places = [Path(data) / p for p in ("", "sources/train", "ndns-mini/sources/train", "datasets")]
    for place in places:
        if (place / "clean").is_dir() and (place / "noise").is_dir() and not (place / "noisy").exists():
            return place
    looked = ", ".join(str(p) for p in places)
    raise FileNotFoundError(
        f"{data}: no sources to mix; expected a folder with clean/ and noise/, looked at {looked}"
    )


def _int16(samples: np.ndarray) -> np.ndarray:
    samples = np.asarray(samples)
    if samples.ndim != 1:
        raise ValueError(f"a recording has shape {samples.shape}, expected (n,)")
    if samples.dtype == np.int16:
        return samples
    if samples.dtype.kind != "f":
        raise TypeError(f"a recording is {samples.dtype}, expected int16 or float")
    if not np.isfinite(samples).all():
        raise ValueError("a recording has NaN or infinite samples")
    return audio.to_int16(samples)
