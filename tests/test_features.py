"""What the network reads: the running level, its stream, and what it is blind to."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lrnn.data.features import (
    DECAY,
    FEATURES,
    FLOOR,
    SILENCE,
    StreamingFeatures,
    level_features,
)
from lrnn.data.stft import Stft


def spectra(frames: int, seed: int = 0, loudness: float = 1e-3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    parts = rng.standard_normal((frames, 17, 2)) * loudness * rng.uniform(0.1, 2, (frames, 1, 1))
    return parts.astype(np.float32).view(np.complex64)[..., 0]


def by_the_book(X: np.ndarray) -> np.ndarray:
    """The docstring's equation, frame by frame in double precision."""
    out, level, heard = np.zeros(X.shape), 0.0, 0
    for t, magnitude in enumerate(np.abs(X.astype(np.complex128))):
        if magnitude.mean() > SILENCE:
            d = min(heard / (heard + 1), DECAY)
            level = d * level + (1 - d) * magnitude.mean()
            heard += 1
        out[t] = 0.1 * (np.sqrt(magnitude / (level + FLOOR)) - 0.7)
    return out


def with_silences(frames: int) -> np.ndarray:
    X = spectra(frames)
    X[:3] = 0
    X[40:50] = 0
    return X


@pytest.mark.parametrize("frames", [1, 7, 400])
def test_level_features_are_those_of_the_equation(frames):
    X = with_silences(frames)
    np.testing.assert_allclose(level_features(torch.from_numpy(X)).numpy(), by_the_book(X), atol=2e-6)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 90), min_size=1, max_size=6), st.sampled_from(sorted(FEATURES)))
def test_any_split_of_the_stream_is_the_whole(pieces, kind):
    X = with_silences(sum(pieces) + 60)
    stream = StreamingFeatures(kind)
    cuts = np.split(X, np.cumsum(pieces))
    found = np.concatenate([stream.push(piece) for piece in cuts])
    expected = FEATURES[kind](torch.from_numpy(X)).numpy()
    np.testing.assert_allclose(found, expected, atol=2e-6)
    assert found.dtype == np.float32


def test_each_clip_of_a_batch_has_its_own_level_and_a_reset_starts_anew():
    loud, soft = spectra(50, 1, 1e-2), spectra(50, 2, 1e-4)
    both = level_features(torch.from_numpy(np.stack([loud, soft])))
    stream = StreamingFeatures("level")
    for X, expected in zip((loud, soft), both, strict=True):
        np.testing.assert_allclose(stream.push(X), expected, atol=2e-6)
        stream.reset()


@pytest.mark.parametrize("gain_db", [-20, 20])
def test_loudness_does_not_show(gain_db):
    """As far as the floor allows: 2 % of a level at 34 dB above it."""
    X = torch.from_numpy(spectra(300, loudness=1e-3))
    quiet, loud = level_features(X), level_features(X * 10 ** (gain_db / 20))
    assert (quiet - loud).abs().max() < 0.15 * quiet.abs().max()
    assert (FEATURES["magnitude"](X) - FEATURES["magnitude"](X * 10 ** (gain_db / 20))).abs().max() > 1e-3


def test_features_do_not_depend_on_the_future():
    X = torch.from_numpy(spectra(60))
    later = X.clone()
    later[30:] *= 50
    torch.testing.assert_close(level_features(X)[:30], level_features(later)[:30], atol=0, rtol=0)
    assert not torch.allclose(level_features(X)[30:], level_features(later)[30:])


def test_silence_and_full_scale_are_finite():
    for X in (torch.zeros(20, 17, dtype=torch.complex64), torch.full((20, 17), 1e4 + 0j)):
        assert torch.isfinite(level_features(X)).all()


def test_the_setting_travels():
    stft = Stft(features="level")
    assert Stft.from_meta(stft.to_meta()) == stft
    older = {k: v for k, v in Stft().to_meta().items() if k != "features"}
    assert Stft.from_meta(older).features == "magnitude"
    with pytest.raises(ValueError, match="features is 'mel'"):
        Stft(features="mel")
