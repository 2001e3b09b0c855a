"""A seeded corpus made of nothing: voices that hum syllables, and coloured noise. It stands in where no
recordings are given.

The voices have what a denoiser lives on (a gliding pitch with its harmonics, formants, pauses); the noises
lack it. Figures made on it say that training works, not how good a denoiser is.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lrnn.data import audio
from lrnn.data.mix import Mixer
from lrnn.data.sources import Recordings

FORMANTS = ((730, 1090, 2440), (270, 2290, 3010), (300, 870, 2240), (530, 1840, 2480), (570, 840, 2410))
"""Peterson and Barney's (1952) mean formants in Hz of the vowels a, i, u, e, o of men."""


def synthetic_sources(
    seed: int = 0, minutes: float = 4.0, recording_seconds: float = 6.0, sample_rate: int = 16000
) -> tuple[Recordings, Recordings]:
    """Clean and noise recordings of `minutes` each; the same arguments give the same samples."""
    count = max(1, round(minutes * 60 / recording_seconds))
    n = round(recording_seconds * sample_rate)
    rng = np.random.default_rng(np.random.SeedSequence((seed, 0x5EED)))
    clean = [synthetic_voice(rng, n, sample_rate) for _ in range(count)]
    noise = [synthetic_noise(rng, n, sample_rate) for _ in range(count)]
    return Recordings(clean, sample_rate), Recordings(noise, sample_rate)


def write_synthetic_corpus(
    folder,
    seed: int = 0,
    training: int = 8,
    validation: int = 4,
    clip_seconds: float = 2.0,
    minutes: float = 1.0,
) -> None:
    """Write a corpus as the DNS challenges lay theirs out: datasets/{clean,noise}, and ready mixtures in
    training_set/ and validation_set/{noisy,clean,noise}; 16 kHz, 16-bit WAV.

    Args:
        folder: where to; made if it is not there.
        seed: of all sounds.
        training: mixtures in training_set, of the sounds in datasets.
        validation: mixtures in validation_set, of other sounds.
        clip_seconds: length of a mixture.
        minutes: of clean sound and of noise in datasets.
    """
    folder, sources = Path(folder), synthetic_sources(seed, minutes)
    for kind, recordings in zip(("clean", "noise"), sources, strict=True):
        place = folder / "datasets" / kind / "synthetic"
        place.mkdir(parents=True, exist_ok=True)
        for i in range(len(recordings)):
            audio.write(place / f"{kind}_{i}.wav", recordings[i] / 32768, recordings.sample_rate)
    _write_mixtures(folder / "training_set", sources, seed, training, clip_seconds)
    _write_mixtures(
        folder / "validation_set", synthetic_sources(seed + 1, minutes), seed, validation, clip_seconds
    )


def _write_mixtures(folder: Path, sources: tuple, seed: int, count: int, clip_seconds: float) -> None:
    for kind in ("noisy", "clean", "noise"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    rng, rate = np.random.default_rng(np.random.SeedSequence((seed, 0x5EED))), sources[0].sample_rate
    for i in range(count):
        snr, level = int(rng.integers(-5, 21)), int(rng.integers(-35, -14))
        noisy, clean = Mixer(*sources, clip_seconds, (snr, snr), (level, level))(seed, i)
        name = f"voice_{i}_hum_{i}_snr{snr}_tl{level}_fileid_{i}.wav"
        audio.write(folder / "noisy" / name, noisy, rate)
        audio.write(folder / "clean" / f"clean_fileid_{i}.wav", clean, rate)
        audio.write(folder / "noise" / f"noise_fileid_{i}.wav", noisy - clean, rate)


def synthetic_voice(rng: np.random.Generator, n: int, sample_rate: int = 16000) -> np.ndarray:
    """One voice: (n,) float32, peak 0.5. Syllables of 0.1 to 0.35 s, some hisses, some pauses."""
    voice = np.zeros(n, np.float32)
    pitch = rng.uniform(90, 240)
    start = int(rng.uniform(0, 0.1) * sample_rate)
    while start < n:
        if rng.random() < 0.3:
            length = int(rng.uniform(0.05, 0.12) * sample_rate)
            start = _lay(voice, start, 0.15 * _hiss(rng, length))
        length = int(rng.uniform(0.1, 0.35) * sample_rate)
        glide = pitch * np.geomspace(rng.uniform(0.9, 1.2), rng.uniform(0.8, 1.1), length)
        start = _lay(voice, start, _vowel(glide, FORMANTS[rng.integers(len(FORMANTS))], sample_rate))
        if rng.random() < 0.25:
            start += int(rng.uniform(0.1, 0.5) * sample_rate)
    return _with_peak(voice, 0.5)


def synthetic_noise(rng: np.random.Generator, n: int, sample_rate: int = 16000) -> np.ndarray:
    """One noise: (n,) float32, peak 0.5. Of random colour; loudness may swing slowly, mains may hum."""
    spectrum = np.fft.rfft(rng.standard_normal(n))
    frequency = np.fft.rfftfreq(n, 1 / sample_rate)
    noise = np.fft.irfft(spectrum / np.maximum(frequency, 30.0) ** rng.uniform(0, 1), n)
    noise /= noise.std()
    seconds = np.arange(n) / sample_rate
    if rng.random() < 0.5:
        swing = np.sin(2 * np.pi * rng.uniform(0.2, 4.0) * seconds + rng.uniform(0, 2 * np.pi))
        noise *= 1 + rng.uniform(0.3, 0.9) * swing
    if rng.random() < 0.3:
        noise += 0.5 * np.sin(2 * np.pi * rng.uniform(50, 400) * seconds)
    return _with_peak(noise, 0.5)


def _vowel(pitch: np.ndarray, formants: tuple, sample_rate: int) -> np.ndarray:
    """Harmonics of a pitch contour (n,) in Hz, weighted by resonances 90 Hz wide, faded in and out."""
    harmonics = np.arange(1, int(4000 / pitch.max()) + 1)[:, None]  # (K, 1)
    phase = 2 * np.pi * np.cumsum(pitch) / sample_rate  # (n,)
    frequency = harmonics * pitch.mean()
    weight = sum(1 / (1 + ((frequency - f) / 90) ** 2) for f in formants) + 0.02
    return (weight / harmonics**0.5 * np.sin(harmonics * phase)).sum(0) * np.hanning(len(pitch)) ** 0.5


def _hiss(rng: np.random.Generator, n: int) -> np.ndarray:
    return np.diff(rng.standard_normal(n + 1)) * np.hanning(n)


def _lay(into: np.ndarray, start: int, sound: np.ndarray) -> int:
    """Add a sound to a longer array from `start` on, cut at its end; returns where the sound ends."""
    sound = sound[: max(len(into) - start, 0)]
    into[start : start + len(sound)] += sound
    return start + max(len(sound), 1)


def _with_peak(x: np.ndarray, peak: float) -> np.ndarray:
    return (x * (peak / max(np.abs(x).max(), 1e-9))).astype(np.float32)
