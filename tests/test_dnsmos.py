"""DNSMOS: features against a slow transform, windows and polynomials against the script's arithmetic."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from lrnn.data import dnsmos
from lrnn.data.dnsmos import RATE, WINDOW, Dnsmos, log_mel, mel_filters, windows
from lrnn.data.synthetic import synthetic_voice

MODELS = Path(os.environ.get("LRNN_DNSMOS") or Path(os.environ.get("LRNN_DATA", "-")) / "dnsmos")
needs_models = pytest.mark.skipif(
    not (MODELS / dnsmos.P835).is_file(), reason="LRNN_DNSMOS names no folder with the DNSMOS models"
)


def slow_log_mel(samples: np.ndarray) -> np.ndarray:
    """Frame by frame and filter by filter, from the definitions: a DFT as a sum of cosines and sines."""
    n = 321
    padded = np.concatenate((np.zeros(160), samples, np.zeros(160)))
    t = np.arange(n)
    hann = np.sin(np.pi * t / n) ** 2
    bins = np.arange(161)
    angle = 2 * np.pi * np.outer(bins, t) / n
    power = []
    for start in range(0, len(padded) - n + 1, 160):
        frame = padded[start : start + n] * hann
        power.append((np.cos(angle) @ frame) ** 2 + (np.sin(angle) @ frame) ** 2)
    filters = slow_filters(bins * RATE / n)
    mel = np.array([[np.dot(triangle, p) for triangle in filters] for p in power])
    decibels = 10 * np.log10(np.maximum(mel, 1e-10) / max(mel.max(), 1e-10))
    return (np.maximum(decibels, -80) + 40) / 40


def slow_filters(frequencies: np.ndarray) -> list[np.ndarray]:
    """Slaney's Auditory Toolbox: 200/3 Hz a mel up to 1 kHz, a factor of 6.4 in 27 mels above."""

    def hertz(mel):
        return mel * 200 / 3 if mel <= 15 else 1000 * 6.4 ** ((mel - 15) / 27)

    top = 15 + 27 * np.log(8) / np.log(6.4)
    edges = [hertz(top * i / 121) for i in range(122)]
    triangles = []
    for low, middle, high in zip(edges, edges[1:], edges[2:], strict=False):
        points = np.interp(frequencies, [low, middle, high], [0, 2 / (high - low), 0], left=0, right=0)
        triangles.append(points)
    return triangles


@pytest.mark.parametrize("loudness", [1.0, 1e-3])
def test_mel_features_are_those_of_the_definition(loudness):
    voice = loudness * synthetic_voice(np.random.default_rng(0), 4800)
    found = log_mel(voice)
    assert found.shape == (30, 120)
    np.testing.assert_allclose(found, slow_log_mel(voice), atol=1e-6)
    assert found.max() == 1  # 0 dB
    assert found.min() >= -1


def test_mel_features_of_silence_are_finite():
    assert (log_mel(np.zeros(1600)) == 1).all()  # everything is as loud as the loudest point


def test_filters_of_high_bands_have_unit_area():
    """Where triangles are wide against the bins, a sum over bins is an integral over Hz."""
    area = mel_filters().sum(1) * RATE / dnsmos.FRAME
    np.testing.assert_allclose(area[-30:], 1, atol=0.05)


def test_windows_are_the_script_s():
    """The reference's slices in its own words, on sample numbers; its rounding skips windows from 7 s on."""
    for seconds in (9.01, 9.5, 12, 30, 40.3):
        audio = np.arange(int(seconds * RATE), dtype=np.int64)
        wanted = []
        for idx in range(int(np.floor(len(audio) / RATE) - 9.01) + 1):
            segment = audio[int(idx * RATE) : int((idx + 9.01) * RATE)]
            if len(segment) >= int(9.01 * RATE):
                wanted.append((segment[0], segment[-1]))
        found = [(w[0], w[-1]) for w in windows(audio)]
        assert found == wanted
        assert found
    assert len(windows(np.zeros(30 * RATE))) == 7


@pytest.mark.parametrize("samples", [1, 100, 3 * RATE, WINDOW - 1, WINDOW])
def test_short_recordings_are_doubled_until_long_enough(samples):
    audio = np.arange(samples)
    for window in windows(audio):
        assert len(window) == WINDOW
        first = window[0]
        np.testing.assert_array_equal(window, (np.arange(WINDOW) + first) % samples)


def test_an_empty_recording_is_refused():
    with pytest.raises(ValueError, match="empty"):
        windows(np.zeros(0))


def test_missing_and_broken_models_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"sig_bak_ovr\.onnx: no such file"):
        Dnsmos(tmp_path)
    for name in (dnsmos.P835, dnsmos.P808):
        (tmp_path / name).write_bytes(b"not a network")
    pytest.importorskip("onnxruntime")
    with pytest.raises(ValueError, match=r"sig_bak_ovr\.onnx: not a model"):
        Dnsmos(tmp_path)


@pytest.mark.data
@needs_models
def test_figures_are_polynomials_of_raw_outputs_averaged_over_windows():
    """Computed here from the networks' outputs, on a recording of two windows."""
    onnxruntime = pytest.importorskip("onnxruntime")
    audio = synthetic_voice(np.random.default_rng(1), 11 * RATE)
    audio += np.float32(0.01) * np.random.default_rng(2).standard_normal(len(audio), dtype=np.float32)
    p835, p808 = (
        onnxruntime.InferenceSession(MODELS / name, providers=["CPUExecutionProvider"])
        for name in ("sig_bak_ovr.onnx", "model_v8.onnx")
    )
    sums = np.zeros(4)
    for start in (0, RATE):
        window = audio[start : start + 144160]
        sig, bak, ovrl = map(float, p835.run(None, {"input_1": window[None]})[0][0])
        mel = slow_log_mel(window[:144000])[None].astype(np.float32)
        sums += (
            -0.08397278 * sig**2 + 1.22083953 * sig + 0.0052439,
            -0.13166888 * bak**2 + 1.60915514 * bak - 0.39604546,
            -0.06766283 * ovrl**2 + 1.11546468 * ovrl + 0.04602535,
            float(p808.run(None, {"input_1": mel})[0][0, 0]),
        )
    found = Dnsmos(MODELS)(audio, RATE)
    assert list(found) == ["sig", "bak", "ovrl", "p808"]
    assert list(found.values()) == pytest.approx(sums / 2, abs=1e-3)


@pytest.mark.data
@needs_models
def test_silence_clipping_and_short_clips_are_finite():
    pytest.importorskip("onnxruntime")
    score = Dnsmos(MODELS)
    voice = synthetic_voice(np.random.default_rng(1), WINDOW)
    for audio in (np.zeros(WINDOW), np.clip(9 * voice, -1, 1), voice + 0.5, voice[:50]):
        assert all(0 < value < 5.5 for value in score(audio, RATE).values())
