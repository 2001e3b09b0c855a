"""The transform: reconstruction, its grid of frames, the paper's scaling, and the equal streaming form."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lrnn.data.features import OFFSET, magnitude_features
from lrnn.data.stft import Stft, apply_mask
from lrnn.data.stft_stream import StreamingIstft, StreamingStft

LENGTHS = (1, 100, 127, 128, 129, 511, 3000, 5120)
SETTINGS = (Stft(), Stft(window="boxcar"), Stft(256, 128), Stft(1024, 128), Stft(96, 16, "boxcar"))


def noise(n: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(n).astype(np.float32))


@pytest.mark.parametrize("n", [0, *LENGTHS])
@pytest.mark.parametrize("stft", SETTINGS, ids=str)
def test_synthesis_inverts_analysis(stft, n):
    x = torch.stack([noise(n, 1), noise(n, 2)])
    X = stft.analyse(x)
    assert X.shape == (2, stft.n_frames(n), stft.n_bins)
    assert X.dtype == torch.complex64
    torch.testing.assert_close(stft.synthesise(X, n), x, atol=2e-6, rtol=0)


def test_thirty_seconds_make_3751_frames():
    assert Stft().n_frames(480_000) == 3751


@pytest.mark.parametrize("n", [512, 1000, 4096])
def test_boxcar_equals_scipy_as_the_paper_calls_it(n):
    signal = pytest.importorskip("scipy.signal")
    x = noise(n)
    _, _, expected = signal.stft(x.numpy(), window="boxcar", nperseg=512, noverlap=384)
    np.testing.assert_allclose(Stft(window="boxcar").analyse(x).numpy().T, expected, atol=1e-6)


def test_batch_shapes_and_double_precision():
    x = torch.randn(2, 3, 700, dtype=torch.float64)
    X = Stft().analyse(x)
    assert X.shape == (2, 3, 7, 257)
    assert X.dtype == torch.complex128
    torch.testing.assert_close(Stft().synthesise(X, 700), x)


def test_features_of_silence_have_finite_gradients():
    x = torch.zeros(1000, requires_grad=True)
    out = magnitude_features(Stft().analyse(x))
    assert (out == -OFFSET).all()
    out.sum().backward()
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize("n", [1, 63, 200, 512])
@pytest.mark.parametrize("stft", [Stft(64, 16), Stft(96, 16, "boxcar")], ids=str)
def test_mask_gradient_reaches_through_the_inverse(stft, n):
    X = stft.analyse(torch.stack([noise(n, 1), noise(n, 2)]).double())
    mask = torch.rand(X.shape, dtype=torch.float64, requires_grad=True)

    def some_samples(mask):
        return stft.resynthesise(X, mask, n)[:, ::7]

    assert torch.autograd.gradcheck(some_samples, mask, fast_mode=True)


def test_resynthesis_is_mask_and_synthesis_with_their_gradient():
    stft = Stft()
    X = stft.analyse(torch.stack([noise(3000, 1), noise(3000, 2)]))
    weight = torch.stack([noise(3000, 3), noise(3000, 4)])
    found, expected = (torch.rand(X.shape, generator=torch.manual_seed(0)).requires_grad_() for _ in range(2))
    quick, plain = stft.resynthesise(X, found, 3000), stft.synthesise(apply_mask(X, expected), 3000)
    assert torch.equal(quick, plain)
    (quick * weight).sum().backward()
    (plain * weight).sum().backward()
    torch.testing.assert_close(found.grad, expected.grad)


def test_resynthesis_names_a_mask_of_another_shape():
    X = Stft().analyse(noise(500))
    with pytest.raises(ValueError, match="M has shape"):
        Stft().resynthesise(X, torch.zeros(3, 257), 500)


def test_mask_of_zeros_is_the_identity_and_of_minus_one_is_silence():
    X = Stft().analyse(noise(500))
    assert torch.equal(apply_mask(X, torch.zeros(X.shape)), X)
    assert not apply_mask(X, -torch.ones(X.shape)).abs().any()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"window": "hamming"}, "window is 'hamming'"),
        ({"n_fft": 500}, "n_fft is 500"),
        ({"n_fft": 384}, "n_fft is 384"),
        ({"hop": 0}, "hop"),
        ({"sample_rate": 0}, "sample_rate is 0"),
    ],
)
def test_settings_are_checked(kwargs, message):
    with pytest.raises(ValueError, match=message):
        Stft(**kwargs)


def test_shapes_are_checked():
    with pytest.raises(ValueError, match="audio has shape"):
        Stft().analyse(torch.zeros(3, dtype=torch.complex64))
    with pytest.raises(ValueError, match="X has shape"):
        Stft().synthesise(torch.zeros(4, 257, dtype=torch.complex64), 1000)


def test_meta_round_trip_and_its_errors():
    stft = Stft(256, 64, "boxcar", 8000)
    assert Stft.from_meta(stft.to_meta()) == stft
    with pytest.raises(ValueError, match="frontend kind is 'mel'"):
        Stft.from_meta({"kind": "mel"})
    with pytest.raises(ValueError, match="no 'hop'"):
        Stft.from_meta({k: v for k, v in stft.to_meta().items() if k != "hop"})
    with pytest.raises(ValueError, match="offset is 0"):
        Stft.from_meta({**stft.to_meta(), "offset": 0})


# Streaming


def stream(stft: Stft, x: np.ndarray, mask: np.ndarray, cuts: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Spectra and finished samples of a clip pushed in pieces of whole hops, masked by (T, F) on the way."""
    analysis, synthesis = StreamingStft(stft), StreamingIstft(stft)
    padded = np.pad(x, (0, -len(x) % stft.hop + stft.n_fft // 2)).reshape(-1, stft.hop)
    spectra, pieces = [], []
    for piece in np.split(padded, sorted(c % (len(padded) + 1) for c in cuts)):
        X = analysis.push(piece.reshape(-1))
        t = sum(map(len, spectra))
        spectra.append(X)
        pieces.append(synthesis.push(apply_mask(X, mask[t : t + len(X)])))
    return np.concatenate(spectra), np.concatenate([*pieces, synthesis.flush()])


@pytest.mark.parametrize("n", LENGTHS)
@pytest.mark.parametrize("stft", SETTINGS, ids=str)
def test_streaming_equals_offline(stft, n):
    x = noise(n)
    X = stft.analyse(x).numpy()
    mask = np.random.default_rng(3).uniform(-2, 2, X.shape).astype(np.float32)
    expected = stft.synthesise(torch.from_numpy(apply_mask(X, mask)), n).numpy()
    spectra, samples = stream(stft, x.numpy(), mask, cuts=list(range(1000)))
    np.testing.assert_allclose(spectra, X, atol=1e-6)
    early = stft.n_fft // 2  # the first frame begins this long before the clip
    assert not samples[:early].any()
    np.testing.assert_allclose(samples[early : early + n], expected, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(n=st.integers(1, 2000), cuts=st.lists(st.integers(0, 20), max_size=6), seed=st.integers(0, 9))
def test_any_cutting_gives_the_same_samples(n, cuts, seed):
    stft, x = Stft(), noise(n, seed).numpy()
    mask = np.random.default_rng(seed).uniform(-1, 1, (stft.n_frames(n), stft.n_bins)).astype(np.float32)
    whole, pieces = stream(stft, x, mask, []), stream(stft, x, mask, cuts)
    for a, b in zip(whole, pieces, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_reset_starts_a_new_clip():
    stft = Stft()
    analysis, synthesis = StreamingStft(stft), StreamingIstft(stft)
    x = noise(1280).numpy()
    first = synthesis.push(analysis.push(x))
    analysis.reset()
    synthesis.reset()
    np.testing.assert_array_equal(synthesis.push(analysis.push(x)), first)
