"""Pictures of sound. Importing this module needs matplotlib."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from lrnn.data.stft import Stft
from lrnn.files import written_whole

try:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
except ImportError as error:
    raise ImportError(f"pictures need matplotlib ({error}): pip install lrnn[plot]") from None

RANGE_DB = 80
MAX_COLUMNS = 4000


def plot_spectrograms(clips: dict[str, np.ndarray], rate: int, path) -> None:
    """Draw the spectrograms of clips under each other, on one scale of loudness.

    Args:
        clips: (n,) samples by the title to draw above them.
        rate: in Hz.
        path: the picture's file; its extension names the format.
    """
    canvas = FigureCanvasAgg(Figure(figsize=(11, 0.6 + 2.6 * len(clips)), layout="constrained"))
    formats = canvas.get_supported_filetypes()
    if Path(path).suffix[1:].lower() not in formats:
        raise ValueError(f"{path}: no picture format, expected one of .{', .'.join(sorted(formats))}")
    hop = max(1, round(0.008 * rate))
    spectra = {title: _decibels(samples, Stft(4 * hop, hop)) for title, samples in clips.items()}
    top = max(float(s.max()) for s in spectra.values())
    axes = canvas.figure.subplots(len(clips), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for axis, (title, spectrum) in zip(axes, spectra.items(), strict=True):
        image = axis.imshow(
            spectrum.T - top,
            origin="lower",
            aspect="auto",
            extent=(0, len(clips[title]) / rate, 0, rate / 2),
            vmin=-RANGE_DB,
            vmax=0,
            cmap="magma",
            interpolation="nearest",
        )
        axis.set_title(title, loc="left", fontsize=11)
        axis.set_ylabel("frequency (Hz)")
    axes[-1].set_xlabel("time (s)")
    canvas.figure.colorbar(image, ax=list(axes), label="level relative to the loudest point (dB)", pad=0.01)
    with written_whole(path) as temporary:
        canvas.figure.savefig(temporary, dpi=110)


def _decibels(samples: np.ndarray, stft: Stft) -> np.ndarray:
    """Level of every frame and frequency, (T, F); long clips are thinned to what a picture can show."""
    X = stft.analyse(torch.from_numpy(np.ascontiguousarray(samples, np.float32)))
    X = X[:: max(1, len(X) // MAX_COLUMNS)]
    return 20 * torch.log10(X.abs() + 1e-9).numpy()
