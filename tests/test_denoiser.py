"""The denoiser as a stream: equal to whole clips, on time, causal, at any rate, on odd input."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import lrnn
from lrnn.data.denoiser import Denoiser
from lrnn.data.stft import Stft
from lrnn.ops.libraries import core_library
from lrnn.program.nodes import Affine
from lrnn.program.program import Program

NATIVE = pytest.mark.skipif(core_library()[0] is None, reason="the native engine is not built")
ENGINES = ["numpy", "torch", pytest.param("native", marks=NATIVE)]


def random_denoiser(window: str = "hann") -> Denoiser:
    """A small network whose mask is far from zero and depends on the past."""
    torch.manual_seed(0)
    config = lrnn.SequenceModelConfig(d_in=257, d_out=257, d_model=12, d_state=16, blocks=2, n_layers=2)
    model = lrnn.SequenceModel(config).eval()
    with torch.no_grad():
        model.encoder.weight.mul_(20)  # features are small numbers
        model.decoder.weight.mul_(2)
    program = lrnn.compile(model)
    return Denoiser(replace(program, meta={**program.meta, "frontend": Stft(window=window).to_meta()}))


@pytest.fixture(scope="module")
def denoiser() -> Denoiser:
    return random_denoiser()


@pytest.fixture(scope="module")
def identity() -> Denoiser:
    """A mask of zeros: what goes in comes out."""
    zeros = np.zeros(257, np.float32)
    node = Affine("mask", ("x",), zeros, zeros)
    return Denoiser(Program("x", 257, (node,), "mask", {"frontend": Stft().to_meta()}))


def noise(n: int, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(n)).astype(np.float32)


def offline(denoiser: Denoiser, audio: np.ndarray) -> np.ndarray:
    return denoiser.offline(torch.from_numpy(audio)).numpy()


# Equality


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("window", ["hann", "boxcar"])
@pytest.mark.parametrize("n", [0, 1, 100, 128, 129, 4000])
def test_stream_equals_offline(engine, window, n):
    denoiser, x = random_denoiser(window), noise(n)
    expected = offline(denoiser, x)
    assert n < 2 or np.abs(expected - x).max() > 1e-3  # the mask does something
    stream = denoiser.stream(engine)
    out = np.concatenate((stream.run(x), stream.flush()))
    assert out.shape == (n + stream.delay,)
    assert not out[: stream.delay].any()
    np.testing.assert_allclose(out[stream.delay :], expected, atol=1e-5)
    np.testing.assert_allclose(denoiser.denoise(x, 16000, engine), expected, atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(n=st.integers(0, 1500), cuts=st.lists(st.integers(0, 1500), max_size=5))
def test_any_cutting_gives_the_same_samples(denoiser, n, cuts):
    x = noise(n)
    stream = denoiser.stream("numpy")
    pieces = [stream.run(piece) for piece in np.split(x, sorted(c % (n + 1) for c in cuts))]
    np.testing.assert_allclose(
        np.concatenate([*pieces, stream.flush()])[stream.delay :], offline(denoiser, x), atol=1e-5
    )


def test_steps_equal_runs_and_mix_with_them(denoiser):
    x = noise(128 * 8)
    a, b = denoiser.stream("numpy"), denoiser.stream("numpy")
    steps = [a.step(hop) for hop in x.reshape(-1, 128)]
    mixed = [b.run(x[:300]), b.run(x[300:384]), b.step(x[384:512]), b.run(x[512:])]
    np.testing.assert_allclose(np.concatenate(steps), np.concatenate(mixed), atol=1e-6)
    np.testing.assert_allclose(a.flush(), b.flush(), atol=1e-6)


def test_reset_and_flush_start_a_new_clip(denoiser):
    x = noise(1000)
    stream = denoiser.stream("numpy")
    first = np.concatenate((stream.run(x), stream.flush()))
    np.testing.assert_array_equal(np.concatenate((stream.run(x), stream.flush())), first)
    stream.run(noise(333, 1))
    stream.reset()
    np.testing.assert_array_equal(np.concatenate((stream.run(x), stream.flush())), first)


def test_streams_do_not_share_state(denoiser):
    x, other = noise(640), noise(640, 1)
    alone, a, b = (denoiser.stream("numpy") for _ in range(3))
    expected = alone.run(x)
    together = []
    for hop, disturbance in zip(x.reshape(-1, 128), other.reshape(-1, 128), strict=True):
        together.append(a.step(hop))
        b.step(disturbance)
    np.testing.assert_allclose(np.concatenate(together), expected, atol=1e-6)


# Time


def test_an_impulse_comes_out_512_samples_after_it_went_in(identity):
    stream = identity.stream("numpy")
    assert (stream.delay, stream.latency) == (384, 512)
    at = 5 * 128  # the first sample of a hop waits longest
    x = np.zeros(2048, np.float32)
    x[at] = 1
    taken = 0
    for hop in x.reshape(-1, 128):
        out = stream.step(hop)
        taken += 128
        if np.abs(out).max() > 0.5:
            break
    assert taken == at + stream.latency
    np.testing.assert_allclose(out, [1, *[0] * 127], atol=1e-6)
    assert taken - 128 == at + stream.delay  # index of the sample in the output


@pytest.mark.parametrize("engine", ENGINES)
def test_no_output_depends_on_the_future(denoiser, engine):
    at = 1300
    x, y = noise(2560), noise(2560)
    y[at:] += noise(2560 - at, 9)
    a, b = (
        [stream.step(hop) for hop in clip.reshape(-1, 128)]
        for clip, stream in ((x, denoiser.stream(engine)), (y, denoiser.stream(engine)))
    )
    before = at // 128  # hops that were emitted before the change arrived
    np.testing.assert_array_equal(a[:before], b[:before])
    assert np.abs(np.subtract(a[before:], b[before:])).max() > 1e-3


def test_offline_is_as_causal_as_the_stream(denoiser):
    at = 1300
    x, y = noise(2560), noise(2560)
    y[at:] = 0
    a, b = offline(denoiser, x), offline(denoiser, y)
    untouched = at - denoiser.stft.latency + 1
    np.testing.assert_allclose(a[:untouched], b[:untouched], atol=1e-7)
    assert np.abs(a[untouched:at] - b[untouched:at]).max() > 1e-4


# Rates, channels, odd input


@pytest.mark.parametrize("rate", [8000, 11025, 44100, 48000])
def test_any_rate_keeps_length_and_time(identity, rate):
    pytest.importorskip("soxr")
    t = np.arange(rate // 2) / rate
    x = (0.5 * np.sin(2 * np.pi * 500 * t) * np.hanning(len(t))).astype(np.float32)
    y = identity.denoise(x, rate, "numpy")
    assert y.shape == x.shape
    np.testing.assert_allclose(y, x, atol=2e-3)  # a shift by one sample at 48 kHz would cost 0.03


@pytest.mark.parametrize("n", [0, 1, 2, 100])
@pytest.mark.parametrize("rate", [8000, 44100])
def test_tiny_clips_at_other_rates_keep_their_length(denoiser, n, rate):
    pytest.importorskip("soxr")
    y = denoiser.denoise(noise(n), rate, "numpy")
    assert y.shape == (n,)
    assert np.isfinite(y).all()


def test_each_channel_is_denoised_by_itself(denoiser):
    x = np.stack([noise(900, 1), noise(900, 2), np.zeros(900, np.float32)], axis=1)
    y = denoiser.denoise(x, 16000, "numpy")
    assert y.shape == x.shape
    for c in range(3):
        np.testing.assert_array_equal(y[:, c], denoiser.denoise(x[:, c], 16000, "numpy"))


def test_silence_stays_silent_and_loud_input_stays_finite(denoiser):
    assert not denoiser.denoise(np.zeros(1000, np.float32), 16000, "numpy").any()
    loud = np.where(noise(1000) > 0, 5.0, -5.0)
    y = denoiser.denoise(loud, 16000, "numpy")
    np.testing.assert_allclose(y, offline(denoiser, loud.astype(np.float32)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_bad_samples_are_reported_and_leave_the_stream_as_it_was(denoiser, bad):
    x = noise(384)
    stream, other = denoiser.stream("numpy"), denoiser.stream("numpy")
    stream.run(x)
    other.run(x)
    broken = noise(128)
    broken[7] = bad
    for method in (stream.step, stream.run):
        with pytest.raises(ValueError, match=r"samples\[7\] is (nan|inf)"):
            method(broken)
    np.testing.assert_array_equal(stream.step(x[:128]), other.step(x[:128]))


def test_arguments_are_checked(denoiser):
    stream = denoiser.stream("numpy")
    with pytest.raises(ValueError, match=r"shape \(100,\), expected \(128,\)"):
        stream.step(noise(100))
    with pytest.raises(ValueError, match=r"shape \(2, 128\)"):
        stream.run(np.zeros((2, 128), np.float32))
    with pytest.raises(TypeError, match="int16"):
        stream.run(np.zeros(128, np.int16))
    stream.run(noise(100))
    with pytest.raises(ValueError, match="100 samples short of a hop"):
        stream.step(noise(128))
    with pytest.raises(ValueError, match=r"audio has shape \(1, 2, 3\)"):
        denoiser.denoise(np.zeros((1, 2, 3)), 16000, "numpy")
    with pytest.raises(ValueError, match="rate is 0"):
        denoiser.denoise(noise(10), 0, "numpy")
    with pytest.raises(ValueError, match="engine"):
        denoiser.stream("gpu")


def test_batches_go_through_offline_as_they_are(denoiser):
    x = torch.from_numpy(np.stack([noise(700, i) for i in range(6)])).reshape(2, 3, 700)
    y = denoiser.offline(x)
    assert y.shape == x.shape
    np.testing.assert_allclose(y[1, 2].numpy(), offline(denoiser, noise(700, 5)), atol=1e-6)


def test_features_are_what_the_program_reads(denoiser):
    x = np.stack([noise(1000, 1), noise(1000, 1)], axis=1)
    frames = denoiser.features(x, 16000)
    assert frames.shape == (Stft().n_frames(1000), 257)
    assert frames.dtype == np.float32
    np.testing.assert_allclose(frames, Stft().analyse(torch.from_numpy(x[:, 0])).abs() - 0.0007, atol=1e-7)


# Programs


def test_file_round_trip(denoiser, tmp_path):
    denoiser.program.save(tmp_path / "m.lrnn")
    again = Denoiser.load(tmp_path / "m.lrnn")
    x = noise(800)
    np.testing.assert_array_equal(again.denoise(x, 16000, "numpy"), denoiser.denoise(x, 16000, "numpy"))


def test_programs_that_are_no_denoisers_are_refused(denoiser):
    program = denoiser.program
    with pytest.raises(ValueError, match="no frontend"):
        Denoiser(replace(program, meta={}))
    with pytest.raises(ValueError, match="frontend kind is 'mel'"):
        Denoiser(replace(program, meta={"frontend": {"kind": "mel"}}))
    with pytest.raises(ValueError, match="expected 129 in and out"):
        Denoiser(replace(program, meta={"frontend": Stft(256, 64).to_meta()}))
    with pytest.raises(FileNotFoundError, match=r"nowhere\.lrnn"):
        Denoiser.load("nowhere.lrnn")


def test_a_build_without_a_model_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr("lrnn.data.denoiser.DENOISER", tmp_path / "denoiser.lrnn")
    with pytest.raises(FileNotFoundError, match="ships no denoiser"):
        Denoiser.load()
