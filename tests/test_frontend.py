"""Front ends of classifiers: frames against a plain loop, streaming equals whole, causality, bad values."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lrnn.data.frontend import FrontEnd, LogMel, RawFrames
from lrnn.data.frontend_stream import StreamingFrames

FRONTENDS = [
    LogMel(),
    LogMel(hop=100, window=256, n_mels=20, stack=3),
    LogMel(hop=256, window=256, stack=1),
    RawFrames(),
    RawFrames(hop=20),
]


def name(frontend: FrontEnd) -> str:
    return f"{frontend.kind}-{frontend.step}"


def clip(n: int, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(n, generator=torch.Generator().manual_seed(seed))


def plain_log_mel(audio: np.ndarray, f: LogMel) -> np.ndarray:
    """The docstring's words in float64, a spectrum at a time."""
    taper = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(f.window) / f.window)
    hertz = np.arange(f.window // 2 + 1) * f.sample_rate / f.window
    low, high = (2595 * np.log10(1 + x / 700) for x in (f.f_min, f.f_max))
    edges = [700 * (10 ** (m / 2595) - 1) for m in np.linspace(low, high, f.n_mels + 2)]
    padded = np.concatenate([np.zeros(f.window - f.hop), audio.astype(np.float64)])
    rows = []
    for t in range(len(audio) // f.step * f.stack):
        piece = padded[t * f.hop : t * f.hop + f.window]
        power = np.abs(2 * np.fft.rfft(piece * taper) / taper.sum()) ** 2
        bands = []
        for a, b, c in zip(edges, edges[1:], edges[2:], strict=False):
            weight = np.clip(np.minimum((hertz - a) / (b - a), (c - hertz) / (c - b)), 0, None)
            if weight.sum() == 0:
                weight = np.clip(1 - np.abs(hertz - b) / hertz[1], 0, None)
            bands.append(np.dot(weight / weight.sum(), power))
        rows.append(0.3 * (np.log(np.array(bands) + 1e-8) + 8.5))
    return np.array(rows).reshape(-1, f.width)


@pytest.mark.parametrize("frontend", FRONTENDS[:3], ids=name)
def test_log_mel_is_what_its_docstring_says(frontend):
    x = clip(3000)
    np.testing.assert_allclose(frontend(x).numpy(), plain_log_mel(x.numpy(), frontend), atol=2e-4)


def test_a_sine_at_full_scale_peaks_in_its_band():
    f = LogMel(window=400, hop=160)
    time = torch.arange(16000) / 16000
    frame = f(torch.sin(2 * torch.pi * 1000 * time))[-1][: f.n_mels]
    edges = np.linspace(2595 * np.log10(1 + 40 / 700), 2595 * np.log10(1 + 7800 / 700), 42)
    nearest = np.abs(700 * (10 ** (edges[1:-1] / 2595) - 1) - 1000).argmin()
    assert frame.argmax() == nearest
    assert frame[nearest] < 0.3 * 8.5 + 1e-3  # a power of 1 at most, since weights sum to one


@pytest.mark.parametrize("frontend", FRONTENDS, ids=name)
def test_any_cutting_of_a_stream_equals_the_whole(frontend):
    x = clip(4801).numpy()
    whole = frontend(torch.from_numpy(x)).numpy()
    at_once = StreamingFrames(frontend).push(x)
    np.testing.assert_allclose(at_once, whole, atol=1e-5)
    rng = np.random.default_rng(0)
    for pieces in (1, 2, 7, 200):
        cuts = np.sort(rng.integers(0, len(x), pieces - 1))
        stream = StreamingFrames(frontend)
        found = np.concatenate([stream.push(piece) for piece in np.split(x, cuts)])
        np.testing.assert_array_equal(found, at_once)
        assert found.dtype == np.float32
        assert found.shape == (len(x) // frontend.step, frontend.width)


@pytest.mark.parametrize("frontend", FRONTENDS, ids=name)
def test_a_frame_knows_nothing_of_later_samples(frontend):
    x, y = clip(2400), clip(2400)
    y[4 * frontend.step :] = 0.5
    np.testing.assert_array_equal(frontend(x)[:4].numpy(), frontend(y)[:4].numpy())


def test_a_stream_that_is_reset_starts_anew():
    stream, x = StreamingFrames(LogMel()), clip(1000).numpy()
    first = stream.push(x)
    stream.reset()
    np.testing.assert_array_equal(stream.push(x), first)


@pytest.mark.parametrize("frontend", FRONTENDS, ids=name)
def test_meta_brings_it_back(frontend):
    assert FrontEnd.from_meta(frontend.to_meta()) == frontend


def test_batches_are_clips_side_by_side():
    x = torch.stack([clip(1600, seed) for seed in range(3)])
    torch.testing.assert_close(LogMel()(x)[1], LogMel()(x[1]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_frames_are_float32_under_autocast(dtype):
    x = 1e-3 * clip(1600)
    with torch.autocast("cpu", dtype):
        found = LogMel()(x)
    assert torch.equal(found, LogMel()(x))


def test_digital_silence_is_finite():
    assert torch.isfinite(LogMel()(torch.zeros(1600))).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LogMel(window=100), "window is 100"),
        (lambda: LogMel(window=481), "window is 481"),
        (lambda: LogMel(n_mels=0), "n_mels"),
        (lambda: LogMel(f_max=9000), "f_max"),
        (lambda: RawFrames(hop=0), "hop"),
        (lambda: FrontEnd.from_meta({"kind": "wavelet"}), "kind 'wavelet'"),
        (lambda: FrontEnd.from_meta({"kind": "raw", "stride": 2}), "stride"),
    ],
)
def test_values_that_do_not_fit_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("frontend", FRONTENDS, ids=name)
def test_a_clip_shorter_than_a_step_has_no_frames(frontend):
    assert frontend(torch.zeros(3, frontend.step - 1)).shape == (3, 0, frontend.width)
