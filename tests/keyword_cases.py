"""A tiny corpus of keywords made of nothing: each word is a tone of its own, each speaker has a loudness."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

import lrnn
from lrnn.data import audio
from lrnn.data.frontend import LogMel
from lrnn.data.keywords import SAMPLE_RATE

WORDS = {"high": 2000.0, "low": 300.0, "mid": 800.0}
LABELS = ("high", "low", "_unknown_", "_silence_")
FRONTEND = LogMel(n_mels=12)


def tone(hertz: float, seed: int, seconds: float = 1.0) -> np.ndarray:
    """A tone in the middle of a little noise, (n,) float32."""
    rng = np.random.default_rng(seed)
    n = round(seconds * SAMPLE_RATE)
    samples = 0.003 * rng.standard_normal(n)
    middle = slice(n // 4, 3 * n // 4)
    time = np.arange(n) / SAMPLE_RATE
    samples[middle] += rng.uniform(0.1, 0.5) * np.sin(2 * np.pi * hertz * time + seed)[middle]
    return samples.astype(np.float32)


def write_keywords(folder: Path, speakers: int = 6, lists: bool = True) -> Path:
    """Each speaker says each word twice; the last speaker is for testing, the one before for validation."""
    validation, testing = [], []
    for w, (word, hertz) in enumerate(WORDS.items()):
        (folder / word).mkdir(parents=True)
        for s in range(speakers):
            for n in range(2):
                path = f"{word}/{s:08x}_nohash_{n}.wav"
                seconds = 0.9 if n else 1.0
                audio.write(folder / path, tone(hertz, 100 * w + 10 * s + n, seconds), SAMPLE_RATE)
                {speakers - 2: validation, speakers - 1: testing}.get(s, []).append(path)
    if lists:
        (folder / "validation_list.txt").write_text("".join(f"{p}\n" for p in validation))
        (folder / "testing_list.txt").write_text("".join(f"{p}\n" for p in testing))
    return folder


def write_noise(folder: Path) -> Path:
    """Two recordings of white noise."""
    folder.mkdir(parents=True)
    for n in range(2):
        samples = 0.1 * np.random.default_rng(n).standard_normal(20000)
        audio.write(folder / f"noise_{n}.wav", samples, SAMPLE_RATE)
    return folder


def make_spotter(path: Path, labels=LABELS, seed: int = 1) -> Path:
    """An untrained keyword spotter's program in float."""
    torch.manual_seed(seed)
    sizes = {"d_model": 12, "d_state": 8, "blocks": 2, "n_layers": 2}
    config = lrnn.SequenceModelConfig(d_in=FRONTEND.width, d_out=len(labels), **sizes)
    model = lrnn.SequenceModel(config).eval()
    with torch.no_grad():
        model.decoder.weight.mul_(8.0)  # so that it hears something
    meta = {"keywords": {"labels": list(labels), "frontend": FRONTEND.to_meta()}}
    lrnn.compile(model, meta).save(path)
    return path
