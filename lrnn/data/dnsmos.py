"""DNSMOS: what listeners would say of a recording, guessed by Microsoft's networks without a clean reference.

P.835 (Reddy et al. 2022): quality of the speech SIG, of the background BAK, overall OVRL. P.808 (Reddy et al.
2021): overall. All are mean opinion scores, 1 to 5. The models, sig_bak_ovr.onnx and model_v8.onnx of
microsoft/DNS-Challenge, are given by path; the figures are those of its script dnsmos_local.py.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

from lrnn.data.audio import resample
from lrnn.data.perceptual import require

RATE, SECONDS = 16000, 9.01
WINDOW = int(SECONDS * RATE)
P835, P808 = "sig_bak_ovr.onnx", "model_v8.onnx"
POLYNOMIALS = {  # of the P.835 network's raw output, highest power first
    "sig": (-0.08397278, 1.22083953, 0.0052439),
    "bak": (-0.13166888, 1.60915514, -0.39604546),
    "ovrl": (-0.06766283, 1.11546468, 0.04602535),
}
MELS, FRAME, HOP = 120, 321, 160


class Dnsmos:
    """Both networks, on one thread.

    Args:
        folder: holds sig_bak_ovr.onnx and model_v8.onnx.
    """

    def __init__(self, folder):
        self._p835, self._p808 = (_session(path) for path in model_files(folder))

    def __call__(self, audio: np.ndarray, rate: int) -> dict[str, float]:
        """Score a recording.

        Args:
            audio: (n,) finite samples in -1..1, n >= 1.
            rate: in Hz; another rate than 16 kHz is resampled.

        Returns:
            sig, bak, ovrl, p808: means over the windows.
        """
        rows = []
        for window in windows(resample(np.asarray(audio, np.float32), rate, RATE)):
            raw = self._p835.run(None, {"input_1": window[None]})[0][0]  # (3,) SIG, BAK, OVRL
            mapped = [np.polyval(p, float(x)) for p, x in zip(POLYNOMIALS.values(), raw, strict=True)]
            mel = log_mel(window[:-HOP])[None].astype(np.float32)
            rows.append([*mapped, float(self._p808.run(None, {"input_1": mel})[0][0, 0])])
        return dict(zip((*POLYNOMIALS, "p808"), np.mean(rows, axis=0).tolist(), strict=True))


def model_files(folder) -> tuple[Path, Path]:
    """The files of the P.835 and of the P.808 network in a folder; FileNotFoundError names one not there."""
    paths = Path(folder) / P835, Path(folder) / P808
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(
                f"{path}: no such file; expected DNSMOS's {P835} and {P808}, see microsoft/DNS-Challenge"
            )
    return paths


def windows(samples: np.ndarray) -> list[np.ndarray]:
    """Stretches of 9.01 s, a second apart; a shorter recording is doubled until it is long enough.

    Where (i + 9.01) 16000 is rounded below the integer it should be, the script finds its window a sample
    short and skips it: 7 to 23 s are never the start of one. So here, or figures would not compare.

    Args:
        samples: (n,) at 16 kHz, n >= 1.
    """
    if not len(samples):
        raise ValueError("samples is empty, expected at least one")
    while len(samples) < WINDOW:
        samples = np.concatenate((samples, samples))
    count = int(len(samples) // RATE - SECONDS) + 1
    starts = [i * RATE for i in range(count) if int((i + SECONDS) * RATE) - i * RATE == WINDOW]
    return [samples[start : start + WINDOW] for start in starts]


def log_mel(samples: np.ndarray) -> np.ndarray:
    """What the P.808 network reads: (n,) at 16 kHz to (n / 160, 120), 0 dB at 1 and -80 dB at -1.

    As librosa's melspectrogram and power_to_db make it: centred frames of 321 samples, periodic Hann, power,
    decibels below the loudest point.
    """
    padded = np.pad(samples.astype(np.float64), FRAME // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, FRAME)[::HOP]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(FRAME) / FRAME)
    power = np.abs(np.fft.rfft(frames * hann)) ** 2 @ mel_filters().T  # (T, MELS)
    decibels = 10 * np.log10(np.maximum(power, 1e-10))
    return (np.maximum(decibels - decibels.max(), -80) + 40) / 40


@cache
def mel_filters() -> np.ndarray:
    """Triangles of unit area on Slaney's mel scale (linear to 1 kHz, logarithmic above): (120, 161)."""
    log_step = np.log(6.4) / 27  # of a mel, above 1 kHz
    mels = np.linspace(0, 15 + np.log(RATE / 2 / 1000) / log_step, MELS + 2)
    edges = np.where(mels < 15, mels * 200 / 3, 1000 * np.exp(log_step * (mels - 15)))  # Hz
    low, middle, high = (edges[i : i + MELS, None] for i in range(3))
    bins = np.fft.rfftfreq(FRAME, 1 / RATE)
    triangles = np.minimum((bins - low) / (middle - low), (high - bins) / (high - middle))
    return np.maximum(triangles, 0) * 2 / (high - low)


def _session(path: Path):
    onnxruntime = require("dnsmos", "onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own kinds, which share no base but this
        raise ValueError(f"{path}: not a model onnxruntime can read: {error}") from None
