"""Laws of augmentation: off is off, the target fits the mixture, the ratio is the one drawn, keys decide."""

from __future__ import annotations

import numpy as np
import pytest

from lrnn.data.augment import FILTER_HZ, OFF, Augment, Falls, Shaper
from lrnn.data.mix import Mixer
from lrnn.data.reverb import EARLY_SECONDS, impulse_response
from lrnn.data.sources import Recordings
from lrnn.data.synthetic import synthetic_sources

NAMES = Falls._fields
NOTHING = Falls(*[False] * 5)
EVERYTHING = Augment(**dict.fromkeys(NAMES, 1.0))
KINDS = [*(Augment(**{name: 1.0}) for name in NAMES), EVERYTHING]


@pytest.fixture(scope="module")
def sources() -> tuple[Recordings, Recordings]:
    return synthetic_sources(seed=1, minutes=0.3, recording_seconds=3.0)


def clips(sources, augment: Augment, count: int = 6, **options) -> list[tuple[np.ndarray, np.ndarray]]:
    mixer = Mixer(*sources, **{"clip_seconds": 0.7, **options}, augment=augment)
    return [mixer(0, index) for index in range(count)]


# What holds for all of them


@pytest.mark.parametrize("augment", KINDS, ids=[*NAMES, "all"])
def test_clips_stay_clips(sources, augment):
    found, again, plain = (clips(sources, a) for a in (augment, augment, OFF))
    np.testing.assert_array_equal(found, again)
    for (noisy, clean), (plain_noisy, _) in zip(found, plain, strict=True):
        assert noisy.shape == clean.shape == (11200,)
        assert noisy.dtype == clean.dtype == np.float32
        assert np.isfinite(noisy).all()
        assert np.isfinite(clean).all()
        assert max(np.abs(noisy).max(), np.abs(clean).max()) <= 0.9901
        assert not np.array_equal(noisy, plain_noisy)


def test_probability_zero_is_no_augmentation(sources):
    ranges = Augment(gain_dbfs=(-9, -5), filter_db=20, speed_factor=(1.1, 1.3), rt60=(1, 2))
    np.testing.assert_array_equal(clips(sources, ranges), clips(sources, OFF))


def test_a_clip_that_is_spared_is_the_clip_without_augmentation(sources):
    plain, some = clips(sources, OFF, 30), clips(sources, Augment(speed=0.5), 30)
    spared = sum(np.array_equal(a, b) for a, b in zip(plain, some, strict=True))
    assert 5 < spared < 25


@pytest.mark.parametrize("augment", KINDS, ids=[*NAMES, "all"])
def test_snr_is_the_one_drawn(sources, augment):
    """Two mixtures of one key that differ in SNR only tell speech and noise apart: s (speech + g noise)."""
    one, other = (
        clips(sources, augment, snr=(snr, snr), level=(-30, -30)) for snr in (0, 12)
    )  # fmt: skip
    for (noisy, clean), (noisy_12, clean_12) in zip(one, other, strict=True):
        noisy, clean, noisy_12, clean_12 = (x.astype(np.float64) for x in (noisy, clean, noisy_12, clean_12))
        scale = np.dot(clean, clean_12) / np.dot(clean_12, clean_12)
        np.testing.assert_allclose(clean_12 * scale, clean, atol=1e-6)  # the target does not depend on it
        noise = (noisy - scale * noisy_12) / (1 - 10 ** (-12 / 20))
        speech = noisy - noise
        windows = [x.reshape(-1, 1600) for x in (speech, noise)]
        active = (windows[1] ** 2).mean(1) > 10**-5 * np.abs(noise).max() ** 2
        power = [(x[active] ** 2).mean() for x in windows]
        assert 10 * np.log10(power[0] / power[1]) == pytest.approx(0, abs=0.05)
        if not augment.reverb:
            np.testing.assert_allclose(speech, clean, atol=2e-6)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"gain": 1.5}, "augment.gain is 1.5"),
        ({"gain_dbfs": (-5, -50)}, "augment.gain_dbfs"),
        ({"filter_db": -1}, "augment.filter_db"),
        ({"speed_factor": (0, 1)}, "augment.speed_factor"),
        ({"rt60": (0, 1)}, "augment.rt60"),
    ],
)
def test_bad_options_are_named(options, named):
    with pytest.raises(ValueError, match=named):
        Augment(**options)


def test_a_range_without_a_speed_is_named(sources):
    with pytest.raises(ValueError, match="speed_factor"):
        Mixer(*sources, augment=Augment(speed=1, speed_factor=(1.0001, 1.0002)))


# Each by itself


def test_gain_draws_the_level_from_its_own_range(sources):
    levels = [
        10 * np.log10(np.mean(noisy.astype(np.float64) ** 2))
        for noisy, _ in clips(sources, Augment(gain=1, gain_dbfs=(-50, -40)), 20)
    ]
    assert min(levels) > -50.01
    assert max(levels) < -39.99
    assert max(levels) - min(levels) > 5


def stretch(samples: np.ndarray, augment: Augment, falls: Falls, seed: int = 0) -> np.ndarray:
    """A stretch of an endless sound, whose lead begins at its first sample."""
    shaper = Shaper(augment, 16000, 16000)
    return shaper.dry(lambda length: samples[:length], np.random.default_rng(seed), falls)


def tone(hertz: float) -> np.ndarray:
    return (8000 * np.sin(2 * np.pi * hertz * np.arange(64000) / 16000)).astype(np.int16)


def loudest(x: np.ndarray) -> float:
    return np.abs(np.fft.rfft(x * np.hanning(len(x)))).argmax() * 16000 / len(x)


@pytest.mark.parametrize("seed", range(4))
def test_speed_moves_a_tone_and_leaves_its_height(seed):
    augment = Augment(speed_factor=(0.8, 1.25))
    moved = stretch(tone(1000), augment, NOTHING._replace(speed=True), seed)
    assert 800 <= loudest(moved) <= 1250
    assert abs(loudest(moved) - 1000) > 1
    assert np.abs(moved).max() == pytest.approx(8000, rel=0.01)


def test_speeds_cover_their_range():
    factors = {
        round(loudest(stretch(tone(1000), Augment(), NOTHING._replace(speed=True), seed)) / 1000, 2)
        for seed in range(40)
    }
    assert len(factors) >= 8
    assert min(factors) < 0.92
    assert max(factors) > 1.1


@pytest.mark.parametrize("hertz", FILTER_HZ)
def test_a_filter_scales_each_tone_within_its_range_and_delays_none(hertz):
    falls = NOTHING._replace(filter=True)
    heights = []
    for seed in range(8):
        found = stretch(tone(hertz), Augment(filter_db=6), falls, seed)
        plain = tone(hertz)[8000:24000].astype(np.float32)  # half a second is the lead
        middle = slice(2000, -2000)
        ratio = np.dot(found[middle], plain[middle]) / np.dot(plain[middle], plain[middle])
        np.testing.assert_allclose(found[middle], ratio * plain[middle], atol=0.02 * np.abs(found).max())
        heights.append(20 * np.log10(ratio))
    assert -6.2 <= min(heights) < -1
    assert 1 < max(heights) <= 6.2


def test_the_target_is_filtered_as_the_speech_is(sources):
    """Without noise to speak of, a mixture is its target, whatever was done to it."""
    for augment in (Augment(filter=1), Augment(speed=1), Augment(filter=1, speed=1)):
        for noisy, clean in clips(sources, augment, snr=(100, 100)):
            np.testing.assert_allclose(noisy, clean, atol=1e-3 * np.abs(clean).max())


def test_a_second_noise_is_there_at_its_level(sources):
    one = clips(sources, OFF, snr=(0, 0))
    two = clips(sources, Augment(two_noises=1, second_noise_db=(-6, -6)), snr=(0, 0))
    for (noisy, clean), (both_noisy, both_clean) in zip(one, two, strict=True):
        first, both = ((n - c).astype(np.float64) for n, c in ((noisy, clean), (both_noisy, both_clean)))
        share = np.dot(first, both) / np.sqrt(np.dot(first, first) * np.dot(both, both))
        assert share == pytest.approx(1 / np.sqrt(1 + 10**-0.6), abs=0.05)  # noises are not correlated


# Rooms


@pytest.mark.parametrize(("rt60", "direct_db"), [(0.2, 0.0), (0.5, 6.0)])
def test_responses_decay_as_asked_and_have_the_energy_asked_for(rt60, direct_db):
    rng = np.random.default_rng(0)
    responses = [impulse_response(rng, rt60, direct_db) for _ in range(200)]
    early = round(EARLY_SECONDS * 16000)
    for response in responses:
        energy = (response.heights**2).sum() + (response.late**2).sum()
        assert -10 * np.log10(energy) == pytest.approx(direct_db, abs=0.01)
        assert not response.late[:early].any()
        assert 32 <= response.delays.min() <= response.delays.max() < early
    power = np.mean([r.late**2 for r in responses], axis=0)[early:]
    blocks = 10 * np.log10(power.reshape(-1, 400).mean(1))  # 25 ms each
    per_block = np.polyfit(np.arange(len(blocks)), blocks, 1)[0]
    assert per_block == pytest.approx(-60 * 0.025 / rt60, rel=0.03)


def test_reverberation_is_convolution_and_the_target_its_early_part():
    rng = np.random.default_rng(3)
    samples = rng.integers(-20000, 20000, 40000).astype(np.int16)
    shaper = Shaper(Augment(rt60=(0.3, 0.3), direct_db=(3, 3)), 16000, 16000)
    wet, target = shaper.reverberant(lambda n: samples[:n], np.random.default_rng(1), NOTHING)
    chance = np.random.default_rng(1)
    response = impulse_response(chance, chance.uniform(0.3, 0.3), chance.uniform(3, 3))
    early = np.zeros(8000)
    early[0] = 1
    np.add.at(early, response.delays, response.heights)
    for h, found in ((early, target), (early + response.late, wet)):
        full = np.fft.irfft(np.fft.rfft(samples, 65536) * np.fft.rfft(h, 65536))
        np.testing.assert_allclose(found, full[8000:24000], atol=1e-2 * 32)  # of 32,768


def test_late_reverberation_is_left_in_the_mixture_only(sources):
    dry = clips(sources, OFF, snr=(100, 100))
    wet = clips(sources, Augment(reverb=1, direct_db=(-3, -3)), snr=(100, 100))
    left = [np.linalg.norm(noisy - clean) / np.linalg.norm(clean) for noisy, clean in wet]
    assert np.mean(left) > 0.2
    assert np.mean([np.linalg.norm(noisy - clean) / np.linalg.norm(clean) for noisy, clean in dry]) < 0.05
