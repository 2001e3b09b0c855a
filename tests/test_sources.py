"""Sources on disk: indexed once, drawn alike from memory and from disk, faulty files named or counted."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lrnn.data import audio, index
from lrnn.data.faults import KINDS, Fault, FaultLog
from lrnn.data.index import cache_file, index_folder
from lrnn.data.mix import Mixer
from lrnn.data.sources import Recordings, StreamedRecordings, find_sources, read_recordings, read_sources

pytest.importorskip("soundfile")
pytest.importorskip("soxr")

FILES = {  # rate, channels, samples, subtype
    "a.wav": (16000, 1, 9000, "PCM_16"),
    "deep/b.flac": (16000, 1, 5000, "PCM_16"),
    "deep/er/c.WAV": (48000, 2, 70001, "PCM_16"),
    "d.wav": (44100, 1, 50001, "FLOAT"),
    "deep/e.wav": (11025, 1, 12345, "PCM_24"),
    "z.wav": (8000, 3, 1, "PCM_16"),
}


def write_files(folder):
    rng = np.random.default_rng(0)
    for name, (rate, channels, n, subtype) in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        audio.write(folder / name, rng.uniform(-0.7, 0.7, (n, channels)), rate, subtype)
    (folder / "notes.txt").write_text("no audio")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_files(tmp_path_factory.mktemp("sources"))


def break_file(path, kind: str) -> None:
    """Make a sound file faulty."""
    if kind == "missing":
        path.unlink()
    elif kind == "unreadable":
        path.write_text("hello")
    elif kind == "truncated":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif kind == "silent":
        audio.write(path, np.zeros(9000), 16000)
    elif kind == "not finite":
        audio.write(path, np.full(9000, np.nan), 16000, "FLOAT")


# In memory and on disk


@pytest.fixture(scope="module")
def both(folder):
    memory, disk = read_recordings(folder), read_recordings(folder, memory_limit=0)
    assert type(memory) is Recordings
    assert type(disk) is StreamedRecordings
    return memory, disk


def test_recordings_on_disk_are_those_in_memory(both):
    memory, disk = both
    assert len(memory) == len(disk) == len(FILES)
    assert memory.seconds == disk.seconds
    for i in range(len(memory)):
        np.testing.assert_array_equal(memory[i], disk[i])


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), length=st.integers(1, 60000))
def test_draws_from_disk_are_those_from_memory(both, seed, length):
    memory, disk = (r.draw(np.random.default_rng(seed), length) for r in both)
    np.testing.assert_array_equal(memory, disk)


def test_mixtures_from_disk_are_those_from_memory(both):
    memory, disk = (Mixer(recordings, recordings, clip_seconds=0.5) for recordings in both)
    for key in range(10):
        np.testing.assert_array_equal(memory(key), disk(key))


def test_other_rates_are_resampled_as_a_whole_would_be(folder, both):
    for recording, entry in zip(both[0], index_folder(folder), strict=False):
        whole = audio.to_int16(audio.read_mono(folder / entry.path, 16000))
        np.testing.assert_allclose(recording, whole, atol=3)


def test_the_limit_counts_bytes_of_samples(folder):
    size = 2 * sum(round(n * 16000 / rate) for rate, _, n, _ in FILES.values())
    assert type(read_recordings(folder, memory_limit=size)) is Recordings
    assert type(read_recordings(folder, memory_limit=size - 1)) is StreamedRecordings


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_spans_do_not_depend_on_what_is_read_with_them(folder, data):
    name = data.draw(st.sampled_from(sorted(FILES)))
    rate = data.draw(st.sampled_from([8000, 16000, 22050]))
    n = audio.resampled_length(audio.info(folder / name), rate)
    start = data.draw(st.integers(0, n))
    stop = data.draw(st.integers(start, n))
    whole = audio.read_span(folder / name, 0, n, rate)
    assert len(whole) == n
    np.testing.assert_array_equal(audio.read_span(folder / name, start, stop, rate), whole[start:stop])


@pytest.mark.parametrize(
    ("place", "names"),
    [
        ("", ("clean", "noise")),
        ("datasets", ("clean", "noise")),
        ("datasets_fullband", ("clean_fullband", "noise_fullband")),
        ("ndns-mini/sources/train", ("clean", "noise")),
    ],
)
def test_sources_are_found_where_the_corpora_keep_them(tmp_path, place, names):
    for name in names:
        (tmp_path / place / name / "read_speech").mkdir(parents=True)
        audio.write(tmp_path / place / name / "read_speech" / "a.wav", np.full(100, 0.1 * len(name)), 16000)
    found = find_sources(tmp_path)
    assert found == tmp_path / place
    clean, noise = read_sources(found)
    assert clean[0][0] != noise[0][0] or len(names[0]) == len(names[1])


# Index


@pytest.fixture
def remembered(tmp_path, monkeypatch):
    """A folder whose headers are remembered, and how often a header has been read."""
    monkeypatch.setattr(index, "REMEMBERED_FROM", 1)
    monkeypatch.setenv("LRNN_CACHE", str(tmp_path / "cache"))
    read, check = [], audio.check
    monkeypatch.setattr(audio, "check", lambda path: read.append(path.name) or check(path))
    return write_files(tmp_path / "corpus"), read


def test_headers_are_read_once(remembered):
    folder, read = remembered
    entries = index_folder(folder)
    assert [e.path for e in entries] == [
        "a.wav",
        "d.wav",
        "deep/b.flac",
        "deep/e.wav",
        "deep/er/c.WAV",
        "z.wav",
    ]
    assert [(e.info.rate, e.info.channels, e.info.frames, e.info.subtype) for e in entries] == [
        FILES[e.path] for e in entries
    ]
    read.clear()
    assert index_folder(folder) == entries
    assert read == []


def test_what_changed_is_read_again(remembered):
    folder, read = remembered
    index_folder(folder)
    read.clear()
    audio.write(folder / "a.wav", np.ones(77), 16000)
    audio.write(folder / "deep" / "new.wav", np.ones(33), 16000)
    (folder / "d.wav").unlink()
    entries = {e.path: e for e in index_folder(folder)}
    assert sorted(read) == ["a.wav", "new.wav"]
    assert (entries["a.wav"].info.frames, entries["deep/new.wav"].info.frames) == (77, 33)
    assert "d.wav" not in entries


def test_faults_are_remembered(remembered):
    folder, read = remembered
    break_file(folder / "a.wav", "truncated")
    first = index_folder(folder)[0].fault
    read.clear()
    again = index_folder(folder)[0].fault
    assert read == []
    assert (str(again), again.kind) == (str(first), "truncated")


@pytest.mark.parametrize(
    "content", ["", "{", '{"format": "lrnn-index-0"}', '{"format": "lrnn-index-1", "files": [[1]]}']
)
def test_a_damaged_memory_is_forgotten(remembered, content):
    folder, read = remembered
    entries = index_folder(folder)
    cache_file(folder).write_text(content)
    read.clear()
    assert index_folder(folder) == entries
    assert len(read) == len(FILES)
    assert json.loads(cache_file(folder).read_text())["format"] == "lrnn-index-1"


def test_a_cache_that_cannot_be_written_costs_time_only(remembered, tmp_path, monkeypatch):
    folder, read = remembered
    (tmp_path / "file").touch()
    monkeypatch.setenv("LRNN_CACHE", str(tmp_path / "file"))
    assert index_folder(folder) == index_folder(folder)
    assert len(read) == 2 * len(FILES)


def test_small_folders_leave_no_trace(tmp_path, monkeypatch, folder):
    monkeypatch.setenv("LRNN_CACHE", str(tmp_path / "cache"))
    index_folder(folder)
    assert not (tmp_path / "cache").exists()


def test_the_cache_is_where_it_is_said_to_be(tmp_path, monkeypatch):
    monkeypatch.delenv("LRNN_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_file("x").parent == tmp_path / "lrnn"
    assert cache_file("x") != cache_file("y")


# Faults


@pytest.mark.parametrize("limit", [10**9, 0], ids=["memory", "disk"])
@pytest.mark.parametrize("kind", ["unreadable", "truncated", "silent", "not finite"])
def test_a_faulty_source_is_named_or_left_out(tmp_path, kind, limit):
    folder = write_files(tmp_path)
    break_file(folder / "a.wav", kind)
    with pytest.raises(Fault, match=r"a\.wav") as caught:
        draw_many(read_recordings(folder, memory_limit=limit))
    assert caught.value.kind == kind

    found = read_recordings(folder, memory_limit=limit, faults="skip")
    drawn = draw_many(found)
    assert found.log.report() == f"skipped 1 of 6 files (1 {kind}): a.wav"
    assert found.log.report() is None  # said once
    again = read_recordings(folder, memory_limit=limit, faults="skip")
    np.testing.assert_array_equal(draw_many(again, backwards=True), drawn)


def draw_many(recordings: Recordings, backwards: bool = False) -> list[np.ndarray]:
    keys = list(range(40))
    drawn = {k: recordings.draw(np.random.default_rng(k), 3000) for k in (keys[::-1] if backwards else keys)}
    return [drawn[k] for k in keys]


def test_a_file_that_vanishes_is_named_or_counted(tmp_path):
    folder = write_files(tmp_path)
    strict, lenient = (read_recordings(folder, memory_limit=0, faults=f) for f in ("error", "skip"))
    break_file(folder / "a.wav", "missing")
    with pytest.raises(FileNotFoundError, match=r"a\.wav"):
        draw_many(strict)
    draw_many(lenient)
    assert lenient.log.report() == "skipped 1 of 6 files (1 missing): a.wav"


def test_a_folder_of_nothing_but_faults_is_an_error(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.wav").write_text("no sound")
    with pytest.raises(Fault, match=r"skipped 2 of 2 files \(2 unreadable\): a\.wav, b\.wav"):
        read_recordings(tmp_path, faults="skip")


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
@pytest.mark.parametrize("lost", [1, 2, 3000])
def test_truncated_wavs_are_told_from_whole_ones(tmp_path, subtype, lost):
    path = tmp_path / "a.wav"
    audio.write(path, np.linspace(-0.5, 0.5, 4000), 16000, subtype)
    assert audio.check(path).frames == 4000
    path.write_bytes(path.read_bytes()[:-lost])
    with pytest.raises(Fault, match=rf"a\.wav: truncated, {lost:,} bytes short"):
        audio.check(path)


def test_wavs_of_unknown_length_are_whole(tmp_path):
    """As written to a pipe: sizes of 2^32 - 1."""
    path = tmp_path / "a.wav"
    audio.write(path, np.linspace(-0.5, 0.5, 4001), 16000)
    data = bytearray(path.read_bytes())
    at = data.index(b"data") + 4
    data[4:8] = data[at : at + 4] = b"\xff" * 4
    path.write_bytes(data)
    assert audio.check(path).frames == 4001


def test_truncated_flacs_tell_when_they_are_read(tmp_path):
    path = tmp_path / "a.flac"
    audio.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, 40000), 16000)
    path.write_bytes(path.read_bytes()[:-100])
    assert audio.read_span(path, 0, 100, 16000).shape == (100,)
    for read in (audio.read, lambda p: audio.read_span(p, 39000, 40000, 16000), read_recordings):
        with pytest.raises(Fault, match=r"a\.flac") as caught:
            read(path if read is not read_recordings else tmp_path)
        assert caught.value.kind == "truncated"


def test_an_empty_file_is_no_recording(tmp_path):
    audio.write(tmp_path / "a.wav", np.zeros(0), 16000)
    with pytest.raises(Fault, match="no samples"):
        read_recordings(tmp_path)


def test_a_log_counts_each_file_once_and_names_three():
    log = FaultLog([f"{i}.wav" for i in range(9)])
    assert log.report() is None
    for i, kind in zip((7, 1, 3, 5, 7), [*KINDS[:4], KINDS[0]], strict=True):
        log.note(i, Fault("x", kind))
    assert len(log) == 4
    assert 3 in log
    assert 4 not in log
    assert log.report() == (
        "skipped 4 of 9 files (1 missing, 1 unreadable, 1 truncated, 1 silent): 1.wav, 3.wav, 5.wav, ..."
    )


@pytest.mark.data
@pytest.mark.skipif("LRNN_DATA" not in os.environ, reason="LRNN_DATA names no corpus")
def test_the_corpus_drawn_from_disk_is_the_corpus_in_memory():
    folder = find_sources(os.environ["LRNN_DATA"])
    memory, disk = (Mixer(*read_sources(folder, memory_limit=limit)) for limit in (1 << 30, 0))
    for key in range(20):
        np.testing.assert_array_equal(memory(0, 0, key), disk(0, 0, key))
