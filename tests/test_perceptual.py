"""PESQ and STOI: the packages' own numbers, other rates, and the rules where a clip has none."""

from __future__ import annotations

import numpy as np
import pytest

from lrnn.data import perceptual
from lrnn.data.mix import Mixer
from lrnn.data.perceptual import Undefined, is_silent, pesq, stoi
from lrnn.data.synthetic import synthetic_sources

RATE = 16000


@pytest.fixture(scope="module")
def pair() -> tuple[np.ndarray, np.ndarray]:
    """A noisy and a clean clip of 3 s."""
    return Mixer(*synthetic_sources(0, 0.1), clip_seconds=3.0, snr=(5, 5))(0)


def test_pesq_is_the_package_s(pair):
    package = pytest.importorskip("pesq", reason="pesq is built from source: needs a C compiler")
    noisy, clean = pair
    assert pesq(noisy, clean, RATE) == package.pesq(RATE, clean, noisy, "wb")
    assert pesq(clean, clean, RATE) == pytest.approx(4.64, abs=0.01)  # P.862.2's greatest


def test_pesq_agrees_with_torchmetrics(pair):
    pytest.importorskip("pesq", reason="pesq is built from source: needs a C compiler")
    audio = pytest.importorskip("torchmetrics.functional.audio.pesq")
    import torch

    noisy, clean = pair
    theirs = audio.perceptual_evaluation_speech_quality(*map(torch.from_numpy, (noisy, clean)), RATE, "wb")
    assert pesq(noisy, clean, RATE) == pytest.approx(theirs.item(), abs=1e-6)


def test_stoi_is_the_package_s(pair):
    package = pytest.importorskip("pystoi")
    noisy, clean = pair
    theirs = [package.stoi(clean.astype(float), noisy.astype(float), RATE, e) for e in (False, True)]
    assert stoi(noisy, clean, RATE) == pytest.approx(theirs, abs=1e-9)
    assert stoi(clean, clean, RATE) == pytest.approx((1, 1), abs=1e-6)


def test_stoi_agrees_with_torchmetrics(pair):
    pytest.importorskip("pystoi")
    audio = pytest.importorskip("torchmetrics.functional.audio.stoi")
    import torch

    noisy, clean = pair
    for extended, ours in zip((False, True), stoi(noisy, clean, RATE), strict=True):
        theirs = audio.short_time_objective_intelligibility(
            torch.from_numpy(noisy), torch.from_numpy(clean), RATE, extended
        )
        assert ours == pytest.approx(theirs.item(), abs=1e-6)


def test_another_rate_is_resampled(pair):
    """48 kHz of the same sound scores as 16 kHz does, but for what resampling does at 8 kHz."""
    pytest.importorskip("pesq", reason="pesq is built from source: needs a C compiler")
    soxr = pytest.importorskip("soxr")
    noisy, clean = (soxr.resample(x, RATE, 48000) for x in pair)
    assert pesq(noisy, clean, 48000) == pytest.approx(pesq(*pair, RATE), abs=0.1)


def test_estoi_is_the_same_every_time_and_leaves_the_generator_alone(pair):
    """Where the estimate is zero, pystoi correlates the noise that it adds."""
    pytest.importorskip("pystoi")
    noisy, clean = pair[0].copy(), pair[1]
    noisy[: len(noisy) // 2] = 0
    np.random.seed(7)
    first = stoi(noisy, clean, RATE)
    drawn = np.random.random()
    np.random.seed(7)
    assert drawn == np.random.random()
    assert stoi(noisy, clean, RATE) == first


@pytest.mark.parametrize(
    ("samples", "silent"),
    [
        (np.zeros(0), True),
        (np.zeros(100), True),
        (np.full(100, 0.3), True),
        (np.full(100, 0.3) + np.eye(100)[3] * 2**-15, False),  # one step of 16 bits, once
    ],
)
def test_silence_is_nothing_but_a_constant(samples, silent):
    assert is_silent(samples) is silent


@pytest.mark.parametrize("measure", [pesq, stoi])
def test_without_clean_speech_nothing_is_defined(pair, measure):
    for clean in (np.zeros_like(pair[0]), np.full_like(pair[0], 0.1)):
        with pytest.raises(Undefined, match="clean is silent"):
            measure(pair[0], clean, RATE)


def test_silent_estimates(pair):
    """PESQ is not defined; nothing of them is intelligible."""
    pytest.importorskip("pystoi")
    silence = np.zeros_like(pair[1])
    assert stoi(silence, pair[1], RATE) == (0.0, 0.0)
    with pytest.raises(Undefined, match="the estimate is silent"):
        pesq(silence, pair[1], RATE)


@pytest.mark.parametrize("samples", [1, 100, 3999])
def test_clips_too_short(pair, samples):
    pytest.importorskip("pystoi")
    pytest.importorskip("pesq", reason="pesq is built from source: needs a C compiler")
    middle = slice(16000, 16000 + samples)
    with pytest.raises(Undefined, match=r"1/4|silent"):
        pesq(pair[0][middle], pair[1][middle], RATE)
    with pytest.raises(Undefined, match=r"0\.4 s|silent"):
        stoi(pair[0][middle], pair[1][middle], RATE)


def test_too_little_speech_in_a_long_clip(pair):
    """0.1 s of speech and 3 s of nothing: pystoi would say 1e-5."""
    pytest.importorskip("pystoi")
    clean = np.zeros_like(pair[1])
    clean[20000:21600] = np.random.default_rng(0).standard_normal(1600) * 0.1
    with pytest.raises(Undefined, match="of speech"):
        stoi(pair[0], clean, RATE)


def test_offsets_and_clipping_are_finite(pair):
    pytest.importorskip("pystoi")
    pytest.importorskip("pesq", reason="pesq is built from source: needs a C compiler")
    noisy, clean = pair
    for estimate in (noisy + np.float32(0.5), np.clip(20 * noisy, -1, 1), 3 * noisy, 1e-4 * noisy):
        assert 1 <= pesq(estimate, clean, RATE) <= 4.65
        assert all(0 <= value <= 1 for value in stoi(estimate, clean, RATE))


@pytest.mark.parametrize("measure", [pesq, stoi])
def test_bad_arguments(pair, measure):
    noisy, clean = pair
    with pytest.raises(ValueError, match=r"shape \(47999,\) and target \(48000,\)"):
        measure(noisy[:-1], clean, RATE)
    broken = noisy.copy()
    broken[5] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        measure(broken, clean, RATE)


def test_a_missing_package_says_how_to_install_it(pair, monkeypatch):
    def missing(name):
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(perceptual, "import_module", missing)
    with pytest.raises(ImportError, match=r"metric pesq needs the package pesq.*lrnn\[eval\]"):
        pesq(*pair, RATE)
