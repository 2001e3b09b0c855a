"""SI-SNR against its definition, its invariances, and what it does on silence."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lrnn.data.metrics import paper_loss, paper_si_snr, si_snr, si_snr_improvement, speech_gain


def pair(seed: int = 0, n: int = 800) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    target = rng.standard_normal((2, n))
    return torch.from_numpy(target + 0.3 * rng.standard_normal((2, n))), torch.from_numpy(target)


def test_si_snr_of_orthogonal_noise_is_the_energy_ratio():
    t = torch.arange(1000, dtype=torch.float64) * 2 * torch.pi / 1000
    target, noise = torch.sin(3 * t), torch.sin(7 * t)
    assert si_snr(target + 0.1 * noise, target).item() == pytest.approx(20, abs=1e-5)
    assert si_snr(target + noise, target).item() == pytest.approx(0, abs=1e-5)


@settings(max_examples=25, deadline=None)
@given(
    scale=st.floats(0.1, 10), sign=st.sampled_from([-1, 1]), offset=st.floats(-1, 1), seed=st.integers(0, 9)
)
def test_scale_and_offset_do_not_matter(scale, sign, offset, seed):
    estimate, target = pair(seed)
    torch.testing.assert_close(
        si_snr(sign * scale * estimate + offset, target), si_snr(estimate, target), atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("estimate", [0.0, 0.5, 1e-20])
@pytest.mark.parametrize("target", [0.0, 0.5])
def test_silence_is_finite_with_finite_gradients(estimate, target):
    x = torch.full((1, 100), estimate, requires_grad=True)
    value = si_snr(x, torch.full((1, 100), target))
    assert value.item() == pytest.approx(0, abs=0.1)
    value.sum().backward()
    assert torch.isfinite(x.grad).all()


def test_noise_against_a_silent_target_scores_badly():
    assert si_snr(torch.randn(1000), torch.zeros(1000)).item() < -60


def test_perfect_estimate_is_high_and_finite():
    _, target = pair()
    assert 80 < si_snr(target, target).min().item() < 150


def test_improvement_is_the_difference():
    estimate, target = pair()
    noisy = estimate + 0.5 * torch.randn_like(estimate)
    torch.testing.assert_close(
        si_snr_improvement(estimate, noisy, target), si_snr(estimate, target) - si_snr(noisy, target)
    )


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="estimate has shape"):
        si_snr(torch.zeros(3, 10), torch.zeros(1, 10))


def test_paper_si_snr_depends_on_the_angle_alone_where_energies_are_large():
    estimate, target = pair()
    torch.testing.assert_close(paper_si_snr(target, estimate), si_snr(estimate, target), atol=1e-4, rtol=0)
    torch.testing.assert_close(paper_si_snr(estimate, target), si_snr(estimate, target), atol=1e-4, rtol=0)


def test_paper_loss_adds_the_magnitudes_error():
    estimate, target = pair()
    mag = torch.zeros(2, 4)
    base = paper_loss(estimate, target, mag, mag)
    assert base.item() == pytest.approx(100 - si_snr(estimate, target).mean().item(), abs=1e-3)
    assert (paper_loss(estimate, target, mag + 2, mag) - base).item() == pytest.approx(0.004, abs=1e-9)


def test_speech_gain_is_that_of_the_speech_alone():
    generator = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 3, 8000, generator=generator)
    noise = noise - (noise * clean).sum(-1, keepdim=True) / clean.square().sum(-1, keepdim=True) * clean
    found = speech_gain(0.5 * clean + 3 * noise, clean)
    torch.testing.assert_close(found, torch.full((3,), -6.0206), atol=1e-3, rtol=0)
    assert speech_gain(-clean, clean).isnan().all()
    assert speech_gain(clean, torch.zeros_like(clean)).isnan().all()


def test_si_snr_agrees_with_torchmetrics():
    audio = pytest.importorskip("torchmetrics.functional.audio")
    estimate, target = pair()
    for offset in (0.0, 0.7):
        theirs = audio.scale_invariant_signal_noise_ratio(3 * estimate + offset, target - offset)
        torch.testing.assert_close(si_snr(3 * estimate + offset, target - offset), theirs, atol=1e-4, rtol=0)


def test_si_snr_is_its_definition():
    """Le Roux et al. (2019), equation 3, by least squares: the target's share over the rest."""
    estimate, target = (x[0].numpy() - x[0].numpy().mean() for x in pair())
    (scale,), _, _, _ = np.linalg.lstsq(target[:, None], estimate, rcond=None)
    expected = 10 * np.log10(np.sum((scale * target) ** 2) / np.sum((estimate - scale * target) ** 2))
    assert si_snr(*(x[0] for x in pair())).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("samples", [1, 2, 127])
def test_clips_shorter_than_a_frame(samples):
    estimate, target = torch.randn(2, samples, generator=torch.Generator().manual_seed(0))
    assert torch.isfinite(si_snr(estimate, target))


def test_clipping_costs_but_stays_finite():
    _, target = pair()
    clipped = target.clamp(-1, 1)
    assert (si_snr(clipped, target) < si_snr(target.clamp(-2, 2), target)).all()
    assert torch.isfinite(si_snr(clipped, clipped.sign())).all()
