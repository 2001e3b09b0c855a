"""Training losses: what each sees, and that all of them can be descended."""

from __future__ import annotations

import math

import pytest
import torch

from lrnn.data.metrics import paper_loss, si_snr
from lrnn.data.stft import Stft
from lrnn.train.loss import Estimate, spectral_distance, training_loss

STFT = Stft()


def batch(seed: int = 0):
    """Noisy and clean, (2, 4000), and an estimate whose mask wants a gradient."""
    generator = torch.Generator().manual_seed(seed)
    clean = 0.1 * torch.randn(2, 4000, generator=generator).cumsum(-1).tanh()
    noisy = clean + 0.05 * torch.randn(2, 4000, generator=generator)
    X = STFT.analyse(noisy)
    mask = (0.2 * torch.randn(X.shape, generator=generator)).requires_grad_()
    return clean, Estimate(STFT.resynthesise(X, mask, 4000), X, mask)


def test_si_snr_is_blind_to_level_and_the_spectra_are_not():
    clean, estimate = batch()
    louder = estimate._replace(audio=4 * estimate.audio)
    values = [training_loss("si_snr", e, clean, STFT)[0] for e in (estimate, louder)]
    torch.testing.assert_close(*values)
    assert values[0] == -si_snr(estimate.audio, clean).mean()
    near, far = (training_loss("multi_resolution", e, clean, STFT)[0] for e in (estimate, louder))
    assert far > near + 0.5


def test_spectral_distance_is_zero_between_equals_and_the_gain_between_copies():
    clean = 0.1 * torch.randn(2, 4000, generator=torch.Generator().manual_seed(0))
    assert spectral_distance(clean, clean) == 0
    gain = 3.0  # all but the quietest bins are moved by its logarithm
    assert spectral_distance(gain * clean, clean).item() == pytest.approx(math.log(gain), rel=0.05)


def test_paper_loss_is_the_references():
    clean, estimate = batch()
    expected = paper_loss(
        estimate.audio,
        clean,
        estimate.spectrum.abs() * (1 + estimate.mask),
        STFT.analyse(clean).abs(),
    )
    assert training_loss("paper", estimate, clean, STFT)[0] == expected


@pytest.mark.parametrize("kind", ["si_snr", "multi_resolution", "paper"])
def test_the_quality_beside_the_loss_is_si_snr_and_has_no_gradient(kind):
    clean, estimate = batch()
    _, quality = training_loss(kind, estimate, clean, STFT)
    assert quality == si_snr(estimate.audio, clean).mean()
    assert not quality.requires_grad


@pytest.mark.parametrize("kind", ["si_snr", "multi_resolution", "paper"])
def test_a_step_down_the_gradient_goes_down(kind):
    clean, estimate = batch()
    value = training_loss(kind, estimate, clean, STFT)[0]
    value.backward()
    gradient = estimate.mask.grad
    assert torch.isfinite(gradient).all()
    mask = estimate.mask.detach() - 0.05 * gradient / gradient.norm()
    moved = Estimate(STFT.resynthesise(estimate.spectrum, mask, 4000), estimate.spectrum, mask)
    assert training_loss(kind, moved, clean, STFT)[0] < value


@pytest.mark.parametrize("kind", ["si_snr", "multi_resolution"])
@pytest.mark.parametrize("silent", ["clean", "noisy", "both"])
def test_silence_gives_finite_numbers(kind, silent):
    clean, estimate = batch()
    clean = torch.zeros_like(clean) if silent != "noisy" else clean
    X = torch.zeros_like(estimate.spectrum) if silent != "clean" else estimate.spectrum
    mask = estimate.mask.detach().requires_grad_()
    value = training_loss(kind, Estimate(STFT.resynthesise(X, mask, 4000), X, mask), clean, STFT)[0]
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(mask.grad).all()
