"""Audio files and resampling."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lrnn.data import audio

pytest.importorskip("soundfile")
pytest.importorskip("soxr")


def sound(n: int = 1000, channels: int = 1) -> np.ndarray:
    rng = np.random.default_rng(n)
    return rng.uniform(-0.9, 0.9, (n, channels)).astype(np.float32)


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize(
    ("name", "subtype", "error"),
    [("a.wav", "PCM_16", 2e-5), ("a.wav", "FLOAT", 0), ("a.flac", "PCM_24", 2e-7), ("a.WAV", "PCM_16", 2e-5)],
)
def test_files_round_trip(tmp_path, name, subtype, error, channels):
    x = sound(1000, channels)
    audio.write(tmp_path / name, x, 22050, subtype)
    assert audio.info(tmp_path / name) == audio.AudioInfo(22050, channels, 1000, subtype)
    y, rate = audio.read(tmp_path / name)
    assert (rate, y.dtype, y.shape) == (22050, np.float32, x.shape)
    np.testing.assert_allclose(y, x, atol=error)
    np.testing.assert_array_equal(np.concatenate(list(audio.blocks(tmp_path / name, 300))), y)
    np.testing.assert_allclose(audio.read_mono(tmp_path / name, 22050), y.mean(1), atol=1e-7)


def test_a_subtype_the_format_lacks_becomes_its_default(tmp_path):
    audio.write(tmp_path / "a.flac", sound(), 16000, "FLOAT")
    assert audio.info(tmp_path / "a.flac").subtype == "PCM_16"


@pytest.mark.parametrize(("subtype", "expected"), [("PCM_16", 1.0), ("FLOAT", 3.0)])
def test_integer_files_are_clipped_and_float_files_are_not(tmp_path, subtype, expected):
    audio.write(tmp_path / "a.wav", np.array([3.0, -3.0, 0.25]), 16000, subtype)
    y, _ = audio.read(tmp_path / "a.wav")
    np.testing.assert_allclose(y[:, 0], [expected, -expected, 0.25], atol=1e-4)


def test_empty_files_are_read(tmp_path):
    audio.write(tmp_path / "a.wav", np.zeros(0), 44100)
    assert audio.read(tmp_path / "a.wav", 16000)[0].shape == (0, 1)
    assert list(audio.blocks(tmp_path / "a.wav", 10)) == []


def test_a_file_that_was_not_finished_leaves_the_old_one(tmp_path):
    path = tmp_path / "a.wav"
    audio.write(path, sound(10), 16000)
    before = path.read_bytes()
    with pytest.raises(TypeError), audio.writer(path, 16000, 1) as append:  # noqa: PT012
        append(sound(500))
        append("no samples")
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_errors_name_the_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no\.wav: no such audio file"):
        audio.read(tmp_path / "no.wav")
    (tmp_path / "text.wav").write_text("hello")
    with pytest.raises(ValueError, match=r"text\.wav: not an audio file"):
        audio.info(tmp_path / "text.wav")
    with pytest.raises(ValueError, match=r"a\.xyz: '\.xyz' is no format"):
        audio.write(tmp_path / "a.xyz", sound(), 16000)
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        audio.write(tmp_path / "nowhere" / "a.wav", sound(), 16000)
    with pytest.raises(ValueError, match=r"a\.flac: cannot write"):
        audio.write(tmp_path / "a.flac", sound(10, 9), 16000)


def test_nan_in_a_file_is_reported(tmp_path):
    audio.write(tmp_path / "a.wav", np.array([0, np.nan, 0]), 16000, "FLOAT")
    with pytest.raises(ValueError, match=r"a\.wav: NaN"):
        audio.read(tmp_path / "a.wav")
    with pytest.raises(ValueError, match=r"a\.wav: NaN"):
        list(audio.blocks(tmp_path / "a.wav", 2))


@pytest.mark.parametrize("values", [[-1.0, -0.5, 1 / 32768, 32767 / 32768]])
def test_16_bit_samples_survive_rewriting(tmp_path, values):
    audio.write(tmp_path / "a.wav", np.array(values), 16000)
    np.testing.assert_array_equal(audio.read_mono(tmp_path / "a.wav", 16000), values)
    np.testing.assert_array_equal(audio.to_int16(np.array([2.0, -2.0])), [32767, -32768])


@pytest.mark.parametrize("name", ["soundfile", "soxr"])
def test_a_missing_package_is_named_with_its_extra(monkeypatch, tmp_path, name):
    audio.write(tmp_path / "a.wav", sound(), 16000)
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=rf"package {name} .*lrnn\[audio\]"):
        audio.read(tmp_path / "a.wav", 8000)


def without(monkeypatch, *names):
    for name in names:
        monkeypatch.setitem(sys.modules, name, None)


class Torchaudio:
    """As much of it as is used: resampling that repeats samples."""

    __version__ = "2.11.0"

    class functional:
        @staticmethod
        def resample(samples, rate, new_rate):
            return samples.repeat_interleave(new_rate // rate, dim=-1)


def test_backends_say_what_is_live_and_what_is_not(monkeypatch):
    without(monkeypatch, "torchaudio")
    found = audio.backends()
    assert found["audio files"].startswith("live: soundfile ")
    assert found["resampling"].startswith("live: soxr ")
    assert found["torchaudio"].startswith("off: ")
    monkeypatch.setitem(sys.modules, "torchaudio", Torchaudio)
    assert audio.backends()["torchaudio"] == "live: torchaudio 2.11.0; soxr resamples"
    without(monkeypatch, "soundfile", "soxr")
    found = audio.backends()
    assert found["audio files"].startswith("off: ")
    assert found["resampling"] == "live: torchaudio 2.11.0"
    without(monkeypatch, "torchaudio")
    assert audio.backends()["resampling"].startswith("off: ")


def test_torchaudio_resamples_where_soxr_is_missing(monkeypatch):
    without(monkeypatch, "soxr")
    monkeypatch.setitem(sys.modules, "torchaudio", Torchaudio)
    x = sound(100, 2)
    np.testing.assert_array_equal(audio.resample(x, 8000, 16000), np.repeat(x, 2, axis=0))


def test_a_torchaudio_built_for_another_torch_is_said_and_does_no_harm(monkeypatch, tmp_path):
    (tmp_path / "torchaudio.py").write_text("raise OSError('libtorch.so: undefined symbol\\nmore')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "torchaudio", raising=False)
    found = audio.backends()
    assert found["torchaudio"].startswith("off: OSError: libtorch.so: undefined symbol; install it from")
    assert found["resampling"].startswith("live: soxr ")
    without(monkeypatch, "soxr")
    with pytest.raises(ImportError, match=r"undefined symbol.*lrnn\[audio\]"):
        audio.resample(sound(), 8000, 16000)


@pytest.mark.parametrize("rate", [8000, 11025, 44100, 48000])
def test_resampling_keeps_time(rate):
    def tone(rate):
        t = np.arange(rate) / rate
        return (0.5 * np.sin(2 * np.pi * 440 * t) * np.hanning(rate)).astype(np.float32)

    y = audio.resample(tone(rate), rate, 16000)
    assert y.shape == (16000,)
    np.testing.assert_allclose(y, tone(16000), atol=2e-3)


@settings(max_examples=20, deadline=None)
@given(rates=st.sampled_from([(44100, 16000), (16000, 48000), (8000, 16000), (16000, 16000)]), data=st.data())
def test_resampling_in_pieces_equals_the_whole(rates, data):
    n = data.draw(st.integers(0, 3000))
    cuts = sorted(data.draw(st.lists(st.integers(0, n), max_size=4)))
    x = sound(max(n, 1))[:n, 0]
    resampler = audio.Resampler(*rates)
    pieces = [resampler.push(piece) for piece in np.split(x, cuts)]
    pieces.append(resampler.flush())
    np.testing.assert_allclose(np.concatenate(pieces), audio.resample(x, *rates), atol=1e-6)
