"""Recordings, the mixer's arithmetic, the synthetic corpus, and folders of ready mixtures."""

from __future__ import annotations

import hashlib
import os

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lrnn.data.metrics import si_snr
from lrnn.data.mix import Mixer
from lrnn.data.ndns import NdnsFolder, find_validation
from lrnn.data.sources import Recordings, find_sources, read_recordings, read_sources
from lrnn.data.synthetic import synthetic_sources, write_synthetic_corpus


@pytest.fixture(scope="module")
def sources() -> tuple[Recordings, Recordings]:
    return synthetic_sources(seed=1, minutes=0.2, recording_seconds=3.0)


# Recordings


def test_recordings_keep_their_samples():
    arrays = [np.arange(5, dtype=np.int16), np.zeros(0, np.int16), np.array([0.5, -1.0, 2.0])]
    recordings = Recordings(arrays, sample_rate=10)
    assert len(recordings) == 2
    assert recordings.seconds == pytest.approx(0.8)
    np.testing.assert_array_equal(recordings[0], arrays[0])
    np.testing.assert_array_equal(recordings[1], [16384, -32768, 32767])


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), length=st.integers(1, 600))
def test_stretches_are_recordings_with_gaps_of_silence_between(seed, length):
    arrays = [np.arange(k * 1000 + 1, k * 1000 + 1 + n, dtype=np.int16) for k, n in enumerate((40, 7, 130))]
    recordings = Recordings(arrays, sample_rate=50)  # a gap is 10 samples
    clip = recordings.draw(np.random.default_rng(seed), length)
    assert clip.shape == (length,)
    n = 0
    while n < length:
        whole = arrays[clip[n] // 1000]
        first = clip[n] % 1000 - 1
        assert first == 0 or n == 0  # only the first one may begin in its middle
        piece = whole[first : first + length - n]
        np.testing.assert_array_equal(clip[n : n + len(piece)], piece)
        n += len(piece)
        assert not clip[n : n + 10].any()
        n += 10


@pytest.mark.parametrize(
    ("recordings", "error", "message"),
    [
        ([], ValueError, "recordings is empty"),
        ([np.zeros((2, 2))], ValueError, r"shape \(2, 2\)"),
        ([np.zeros(3, np.int64)], TypeError, "int64"),
        ([np.array([0.1, np.nan])], ValueError, "NaN"),
    ],
)
def test_recordings_are_checked(recordings, error, message):
    with pytest.raises(error, match=message):
        Recordings(recordings)


# Mixer


def active_snr(noisy: np.ndarray, clean: np.ndarray, window: int = 1600) -> float:
    """The ratio the mixer promises, computed the long way in double precision."""
    noise = noisy.astype(np.float64) - clean
    c, n = (x.reshape(-1, window) for x in (clean.astype(np.float64), noise))
    active = (n**2).mean(1) / np.abs(noise).max() ** 2 > 10**-5
    return 10 * np.log10((c[active] ** 2).mean() / (n[active] ** 2).mean())


@pytest.mark.parametrize("snr", [-5, 0, 20])
def test_snr_is_what_was_asked_for(sources, snr):
    mixer = Mixer(*sources, clip_seconds=1.0, snr=(snr, snr))
    for index in range(5):
        assert active_snr(*mixer(0, index)) == pytest.approx(snr, abs=0.05)


@pytest.mark.parametrize("level", [-35.0, -20.0, 0.0])
def test_level_is_what_was_asked_for_unless_a_peak_forbids_it(sources, level):
    mixer = Mixer(*sources, clip_seconds=1.0, level=(level, level))
    for index in range(5):
        noisy, clean = mixer(0, index)
        rms = 10 * np.log10(np.mean(noisy.astype(np.float64) ** 2))
        peak = max(np.abs(x).max() for x in (noisy, clean, noisy - clean))
        assert peak <= 0.9901
        assert rms == pytest.approx(level, abs=0.01) or (
            rms < level and peak == pytest.approx(0.99, abs=1e-3)
        )


def test_a_key_decides_everything(sources):
    a, b = (Mixer(*sources, clip_seconds=0.5) for _ in range(2))
    forwards = [a(3, 0, i) for i in range(4)]
    backwards = [b(3, 0, i) for i in reversed(range(4))][::-1]
    np.testing.assert_array_equal(forwards, backwards)
    assert len({noisy.tobytes() for noisy, _ in [*forwards, a(4, 0, 0), a(3, 1, 0)]}) == 6


def test_mixtures_of_a_key_are_those_of_the_first_release():
    """Figures of trained models stand on them. The draws are exact; the scales round as the machine does."""
    rng = np.random.default_rng(7)
    clean, noise = (
        Recordings([rng.integers(-20000, 20000, n).astype(np.int16) for n in (4000, 700, 9000)])
        for _ in range(2)
    )
    draws = np.random.default_rng(5)
    drawn = b"".join(clean.draw(draws, 6400).tobytes() for _ in range(20))
    assert hashlib.sha256(drawn).hexdigest()[:16] == "49ae3b0eb93b7506"
    mixer, at = Mixer(clean, noise, clip_seconds=0.4), [0, 3000, 6399]
    expected = [
        [0.2169568, 0.0, 0.001513042, 0.1626836, 0.0, 0.0],
        [-0.08410089, 0.0003532151, -0.005406702, -0.06708918, 0.0, 0.0],
        [-0.1956763, 0.0341403, -0.001323922, -0.144494, 0.0, 0.0],
    ]
    found = [np.concatenate([x[at] for x in mixer(0, 0, index)]) for index in range(3)]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_clips_are_float32_of_the_length_asked_for(sources):
    for x in Mixer(*sources, clip_seconds=0.3333)(0):
        assert x.shape == (5333,)
        assert x.dtype == np.float32


def test_silent_stretches_are_drawn_again():
    quiet = np.zeros(16000, np.int16)
    loud = (8000 * np.sin(np.arange(16000) / 5)).astype(np.int16)
    mixer = Mixer(Recordings([quiet, loud]), Recordings([loud, quiet]), clip_seconds=0.2)
    for index in range(20):
        noisy, clean = mixer(index)
        assert clean.any()
        assert (noisy != clean).any()


def test_recordings_without_sound_are_an_error():
    silence = Recordings([np.zeros(1600, np.int16)])
    with pytest.raises(ValueError, match="silent"):
        Mixer(silence, silence, clip_seconds=0.1)(0)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [({"snr": (5, -5)}, "snr is"), ({"level": (0, -1)}, "level"), ({"clip_seconds": 0}, "clip_seconds is 0")],
)
def test_mixer_settings_are_checked(sources, kwargs, message):
    with pytest.raises(ValueError, match=message):
        Mixer(*sources, **kwargs)


def test_sample_rates_must_agree(sources):
    with pytest.raises(ValueError, match="8000 Hz"):
        Mixer(sources[0], Recordings([np.ones(9, np.int16)], 8000))


# Synthetic corpus


def test_synthetic_corpus_is_reproducible_and_audible(sources):
    again = synthetic_sources(seed=1, minutes=0.2, recording_seconds=3.0)
    other = synthetic_sources(seed=2, minutes=0.2, recording_seconds=3.0)
    for a, b, c in zip(sources, again, other, strict=True):
        assert len(a) == 4
        for i in range(4):
            np.testing.assert_array_equal(a[i], b[i])
            assert (a[i] != c[i]).any()
            assert np.abs(a[i].astype(int)).max() == pytest.approx(16384, abs=2)


# Folders


def make_sources(folder):
    audio = pytest.importorskip("lrnn.data.audio")
    pytest.importorskip("soundfile")
    rng = np.random.default_rng(0)
    for kind, suffix in (("clean", ".flac"), ("noise", ".wav")):
        (folder / kind / "deep").mkdir(parents=True)
        audio.write(folder / kind / f"a{suffix}", rng.uniform(-0.5, 0.5, 1600), 16000)
        audio.write(folder / kind / "deep" / f"b{suffix}", rng.uniform(-0.5, 0.5, (800, 2)), 16000)


def test_sources_are_read_at_any_depth_and_mixed_down(tmp_path):
    make_sources(tmp_path / "ndns-mini" / "sources" / "train")
    clean, noise = read_sources(find_sources(tmp_path))
    assert [len(r[i]) for r in (clean, noise) for i in range(2)] == [1600, 800, 1600, 800]
    assert Mixer(clean, noise, clip_seconds=0.1)(0)[0].shape == (1600,)


def test_missing_sources_say_where_one_looked(tmp_path):
    for kind in ("clean", "noise", "noisy"):  # ready mixtures are no sources
        (tmp_path / kind).mkdir()
    with pytest.raises(FileNotFoundError, match="ndns-mini/sources/train"):
        find_sources(tmp_path)
    with pytest.raises(FileNotFoundError, match="no WAV or FLAC"):
        read_recordings(tmp_path)


def make_mixtures(folder, count: int = 3) -> list[tuple[np.ndarray, np.ndarray]]:
    audio = pytest.importorskip("lrnn.data.audio")
    pytest.importorskip("soundfile")
    mixer = Mixer(*synthetic_sources(0, 0.1), clip_seconds=0.5)
    for kind in ("noisy", "clean"):
        (folder / kind).mkdir(parents=True)
    for i in range(count):
        noisy, clean = mixer(i)
        audio.write(folder / "noisy" / f"voice_fan_snr-{i}_tl-20_fileid_{i}.wav", noisy, 16000, "FLOAT")
        audio.write(folder / "clean" / f"clean_fileid_{i}.wav", clean, 16000, "FLOAT")
    return [mixer(i) for i in range(count)]


def test_folder_of_mixtures_is_read_in_order(tmp_path):
    expected = make_mixtures(
        tmp_path / "validation_set", count=11
    )  # as text, fileid_10 comes before fileid_2
    folder = NdnsFolder(find_validation(tmp_path))
    assert len(folder) == 11
    for i, (noisy, clean) in enumerate(expected):
        clip = folder[i]
        np.testing.assert_array_equal(clip.noisy, noisy)
        np.testing.assert_array_equal(clip.clean, clean)
        assert (clip.info.file_id, clip.info.snr, clip.info.level) == (i, -i, -20)


@pytest.mark.parametrize("n", [5000, 12000])
def test_clips_are_cut_or_padded(tmp_path, n):
    make_mixtures(tmp_path, 1)
    clip, whole = NdnsFolder(tmp_path, clip_samples=n)[0], NdnsFolder(tmp_path)[0]
    assert clip.noisy.shape == clip.clean.shape == (n,)
    assert torch.equal(clip.noisy[:5000], whole.noisy[:5000])
    assert not clip.noisy[8000:].any()


def test_broken_folders_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="validation_set"):
        find_validation(tmp_path)
    make_mixtures(tmp_path, 2)
    (tmp_path / "clean" / "clean_fileid_1.wav").unlink()
    with pytest.raises(FileNotFoundError, match="fileid_1"):
        NdnsFolder(tmp_path)
    for file in (tmp_path / "clean").iterdir():
        file.unlink()
    with pytest.raises(FileNotFoundError, match="clean: no files named"):
        NdnsFolder(tmp_path)


def test_a_folder_ends_where_its_clips_do(tmp_path):
    write_synthetic_corpus(tmp_path, training=1, validation=3, clip_seconds=0.5)
    clips = NdnsFolder(tmp_path / "validation_set")
    assert [clip.info.file_id for clip in clips] == [0, 1, 2]
    assert clips[-1].info.file_id == 2
    with pytest.raises(IndexError):
        clips[3]


@pytest.mark.data
@pytest.mark.skipif("LRNN_DATA" not in os.environ, reason="LRNN_DATA names no corpus")
def test_the_corpus_has_the_noisy_si_snr_its_figures_are_quoted_with():
    clips = NdnsFolder(find_validation(os.environ["LRNN_DATA"]))
    scores = [si_snr(clip.noisy, clip.clean).item() for clip in clips]
    assert len(scores) == 38
    assert np.mean(scores) == pytest.approx(8.83, abs=0.01)
