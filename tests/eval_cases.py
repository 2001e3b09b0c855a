"""A small denoiser and a folder of mixtures for the tests of evaluation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

import lrnn
from lrnn.data import audio
from lrnn.data.mix import Mixer
from lrnn.data.stft import Stft
from lrnn.data.synthetic import synthetic_sources

RATE = 16000


def make_model(path: Path, seed: int = 0) -> Path:
    """An untrained network whose mask does something."""
    torch.manual_seed(seed)
    config = lrnn.SequenceModelConfig(d_in=257, d_out=257, d_model=8, d_state=8, blocks=1, n_layers=1)
    network = lrnn.SequenceModel(config).eval()
    with torch.no_grad():
        network.encoder.weight.mul_(20)
    program = lrnn.compile(network)
    program.meta["frontend"] = Stft().to_meta()
    program.save(path)
    return path


def make_folder(path: Path, clips: int, seconds: float = 1.0) -> Path:
    """Mixtures in the N-DNS layout, at -5, 0, 5 ... dB."""
    snrs = [-5 + 5 * (i % 6) for i in range(clips)]
    sources = synthetic_sources(0, 0.2)
    for i, snr in enumerate(snrs):
        noisy, clean = Mixer(*sources, clip_seconds=seconds, snr=(snr, snr))(i)
        put_clip(path, i, snr, noisy, clean)
    return path


def put_clip(path: Path, i: int, snr: int, noisy: np.ndarray, clean: np.ndarray) -> None:
    """Write one mixture, float samples as they are."""
    for kind in ("noisy", "clean"):
        (path / kind).mkdir(parents=True, exist_ok=True)
    audio.write(path / "noisy" / f"x_snr{snr}_tl-20_fileid_{i}.wav", noisy, RATE, "FLOAT")
    audio.write(path / "clean" / f"clean_fileid_{i}.wav", clean, RATE, "FLOAT")
