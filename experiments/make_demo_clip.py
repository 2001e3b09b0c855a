"""Make the demo's clip: text-to-speech in synthesised noise, so that nobody's recording need be shipped.

    python experiments/make_demo_clip.py     # needs the program espeak-ng; writes lrnn/models/demo-*.flac

The noise is pink, breathes slowly like passing traffic, and carries a mains hum with harmonics and random
taps. Everything but the voice follows from the seed. The clip is for show and for checks of plumbing;
results are quoted on real recordings.
"""

import subprocess
import tempfile
from pathlib import Path

import numpy as np

from lrnn.data import audio
from lrnn.models import DEMO_CLEAN, DEMO_CLIP

RATE, SEED, SNR_DB, LEVEL_DB = 16000, 7, 4.0, -24.0
LINES = [
    ("en-us", 150, "A sparse recurrent network runs in microseconds."),
    ("en-gb", 160, "It hears one frame at a time, and never looks ahead."),
]


def speak(voice: str, words_per_minute: int, text: str) -> np.ndarray:
    with tempfile.TemporaryDirectory() as folder:
        wav = Path(folder) / "line.wav"
        subprocess.run(["espeak-ng", "-v", voice, "-s", str(words_per_minute), "-w", wav, text], check=True)
        return audio.read_mono(wav, RATE)


def noise(n: int, rng: np.random.Generator) -> np.ndarray:
    f = np.maximum(np.fft.rfftfreq(n, 1 / RATE), 20.0)
    pink = np.fft.irfft(np.fft.rfft(rng.standard_normal(n)) / np.sqrt(f), n)
    t = np.arange(n) / RATE
    breath = 1 + 0.5 * np.sin(2 * np.pi * 0.23 * t + 1.0)
    hum = sum(np.sin(2 * np.pi * 100 * m * t + m) / m for m in range(1, 7))
    taps = np.zeros(n)
    for at in rng.integers(0, n - RATE // 10, size=n // RATE * 2):
        k = np.arange(RATE // 10)
        taps[at : at + len(k)] += rng.uniform(0.3, 1.0) * np.exp(-k / 200) * rng.standard_normal(len(k))
    return pink / pink.std() * breath + 0.15 * hum + 0.7 * taps


def main() -> None:
    rng = np.random.default_rng(SEED)
    gap = np.zeros(int(0.35 * RATE))
    parts = [gap]
    for line in LINES:
        parts += [speak(*line), gap]
    clean = np.concatenate(parts)
    dirt = noise(len(clean), rng)
    dirt *= clean.std() / dirt.std() * 10 ** (-SNR_DB / 20)
    scale = 10 ** (LEVEL_DB / 20) / (clean + dirt).std()
    for path, samples in ((DEMO_CLEAN, clean), (DEMO_CLIP, clean + dirt)):
        audio.write(path, (samples * scale).astype(np.float32), RATE, "PCM_16")
        peak, size = abs(samples * scale).max(), path.stat().st_size
        print(f"{path.name}: {len(samples) / RATE:.1f} s, {size / 1000:.0f} kB, peak {peak:.2f}")


if __name__ == "__main__":
    main()
