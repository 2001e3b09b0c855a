"""The corpus of keywords and what is drawn from it: lists, splits, clips, augmentation by its key."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from keyword_cases import LABELS, write_keywords, write_noise

from lrnn.data import audio
from lrnn.data.augment import Augment
from lrnn.data.keyword_mix import PLAIN, KeywordAugment, KeywordMixer, KeywordStream, LabelledClips
from lrnn.data.keywords import KeywordClips, KeywordFolder, find_keywords, hold_out
from lrnn.data.sources import Recordings
from lrnn.data.spec_augment import SpecAugment

pytest.importorskip("soundfile")

EVERYTHING = KeywordAugment(
    shift=0.2, noise=0.7, unknown=0.2, silence=0.1, shape=Augment(speed=0.5, filter=0.5, reverb=0.3)
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_keywords(tmp_path_factory.mktemp("data") / "kws-mini")


@pytest.fixture(scope="module")
def noise():
    return Recordings([0.1 * np.random.default_rng(n).standard_normal(30000) for n in range(2)])


@pytest.fixture
def mixer(corpus, noise):
    clips = KeywordClips(KeywordFolder(corpus), KeywordFolder(corpus).split("training"))
    return lambda augment: KeywordMixer(clips, LABELS, noise, noise, augment)


class TestFolder:
    def test_splits_share_no_speaker_and_leave_nothing_out(self, corpus):
        folder = find_keywords(corpus.parent)
        splits = [folder.split(name) for name in ("training", "validation", "testing")]
        assert [len(s) for s in splits] == [24, 6, 6]
        assert sorted(c for s in splits for c in s) == sorted(folder.clips)
        speakers = [{c.speaker for c in s} for s in splits]
        assert not (speakers[0] & speakers[1])
        assert not (speakers[0] & speakers[2])
        assert not (speakers[1] & speakers[2])
        assert folder.words == ("high", "low", "mid")
        assert {c.word for c in folder.clips} == set(folder.words)

    def test_figures_are_made_on_testing_else_validation_else_all(self, tmp_path):
        folder = write_keywords(tmp_path / "a")
        assert KeywordFolder(folder).to_report()[0] == "testing"
        (folder / "testing_list.txt").write_text("")  # as kws-mini has it
        assert KeywordFolder(folder).to_report()[0] == "validation"
        found = find_keywords(write_keywords(tmp_path / "b", lists=False)).to_report()
        assert (found[0], len(found[1])) == ("all", 36)

    def test_hidden_and_underscored_folders_hold_no_words(self, tmp_path):
        folder = write_keywords(tmp_path / "a")
        write_noise(folder / "_background_noise_")
        write_noise(folder / ".hidden")
        assert KeywordFolder(folder).words == ("high", "low", "mid")

    def test_holding_out_keeps_speakers_together(self, corpus):
        clips = KeywordFolder(corpus).clips
        kept, out = hold_out(clips, 0.5)
        assert sorted(kept + out) == sorted(clips)
        assert kept
        assert out
        assert not {c.speaker for c in kept} & {c.speaker for c in out}
        assert hold_out(clips, 0.5) == (kept, out)
        assert hold_out(clips, 0.0) == (clips, ())

    def test_what_is_missing_is_named(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="no keywords"):
            find_keywords(tmp_path)
        with pytest.raises(FileNotFoundError, match="no such folder"):
            KeywordFolder(tmp_path / "nowhere")
        folder = write_keywords(tmp_path / "a")
        with pytest.raises(ValueError, match="split is 'test'"):
            KeywordFolder(folder).split("test")
        (folder / "testing_list.txt").write_text("high/none_nohash_0.wav\n")
        with pytest.raises(FileNotFoundError, match=r"testing_list.txt: names high/none_nohash_0.wav"):
            KeywordFolder(folder).split("training")
        (folder / "validation_list.txt").unlink()
        with pytest.raises(FileNotFoundError, match=r"validation_list.txt: no such list"):
            KeywordFolder(folder).split("validation")

    def test_torchaudio_lists_the_corpus_where_it_imports(self, tmp_path, monkeypatch):
        """Ours and theirs agree; the package loads beside few versions of torch, so a stand-in asks."""
        folder = write_keywords(tmp_path / "SpeechCommands" / "speech_commands_v0.02")
        names = ("training", "validation", "testing")
        monkeypatch.setattr(audio, "_torchaudio", lambda: (None, "not here"))
        ours = {name: KeywordFolder(folder).split(name) for name in names}
        asked = []

        class Listing(list):
            def __init__(self, root, url, archive, subset):
                asked.append((root / archive / url, subset))
                super().__init__(reversed(ours[subset]))

            def get_metadata(self, n):
                return (f"{folder.name}/{self[n].path}", 16000, self[n].word, self[n].speaker, 0)

        theirs = SimpleNamespace(datasets=SimpleNamespace(SPEECHCOMMANDS=Listing))
        monkeypatch.setattr(audio, "_torchaudio", lambda: (theirs, None))
        assert {name: KeywordFolder(folder).split(name) for name in names} == {
            name: tuple(sorted(clips)) for name, clips in ours.items()
        }
        assert asked == [(folder, name) for name in names]


class TestClips:
    def test_memory_and_disk_give_the_same_samples_of_one_second(self, corpus):
        folder = KeywordFolder(corpus)
        memory, disk = (KeywordClips(folder, folder.clips, limit) for limit in (1 << 30, 0))
        for i in range(len(memory)):
            assert memory[i].shape == (16000,)
            assert memory[i].dtype == np.int16
            np.testing.assert_array_equal(memory[i], disk[i])
        short = next(i for i, c in enumerate(folder.clips) if c.path.endswith("_1.wav"))
        assert not memory[short][14400:].any()
        assert memory[short][:14400].any()

    def test_a_damaged_file_is_named(self, tmp_path):
        folder = write_keywords(tmp_path / "a")
        path = folder / "mid" / "00000000_nohash_0.wav"
        path.write_bytes(b"no audio")
        with pytest.raises(ValueError, match=path.name):
            KeywordClips(KeywordFolder(folder), KeywordFolder(folder).clips)

    def test_words_that_are_no_labels_are_unknown(self, corpus):
        folder = KeywordFolder(corpus)
        data = LabelledClips(KeywordClips(folder, folder.clips), LABELS)
        assert [LABELS[label] for label in data.labels[::12]] == ["high", "low", "_unknown_"]
        with pytest.raises(ValueError, match="'mid', which is no label"):
            LabelledClips(KeywordClips(folder, folder.clips), ("high", "low"))


class TestMixing:
    def test_nothing_happens_unless_asked_for(self, mixer):
        plain = mixer(PLAIN)
        for index, place in enumerate(plain.words):
            samples, label = plain(index, np.random.default_rng(0))
            np.testing.assert_array_equal(samples, plain.clips[place].astype(np.float32) / 32768)
            assert LABELS[label] == plain.clips.clips[place].word

    def test_a_clip_follows_from_its_number_alone(self, mixer):
        first, again = (KeywordStream(mixer(EVERYTHING), 3, 0, 100) for _ in range(2))
        order = np.random.default_rng(0).permutation(60)
        found = {int(n): again[int(n)] for n in order}
        for n in range(60):
            samples, label = first[n]
            np.testing.assert_array_equal(samples, found[n][0])
            assert label == found[n][1]
            assert samples.shape == (16000,)
            assert samples.dtype == np.float32
            assert np.isfinite(samples).all()
            assert np.abs(samples).max() <= 0.9901
        assert {label for _, label in found.values()} == {0, 1, 2, 3}

    def test_seeds_and_streams_differ(self, mixer):
        streams = [KeywordStream(mixer(EVERYTHING), seed, s, 1) for seed, s in ((0, 0), (1, 0), (0, 1))]
        clips = [stream[0][0] for stream in streams]
        assert not any(np.array_equal(clips[i], clips[j]) for i, j in ((0, 1), (0, 2), (1, 2)))

    def test_each_pass_takes_every_keyword_once_in_another_order(self, mixer):
        plain = mixer(PLAIN)
        stream = KeywordStream(plain, 0, 0, 1)
        count = len(plain.words)
        passes = [[stream[n][0].tobytes() for n in range(e * count, (e + 1) * count)] for e in range(2)]
        assert sorted(passes[0]) == sorted(passes[1])
        assert len(set(passes[0])) == count
        assert passes[0] != passes[1]

    @pytest.mark.parametrize("shape", [Augment(), Augment(speed=1.0, speed_factor=(0.999, 1.001))])
    def test_a_shift_moves_the_word_by_no_more(self, mixer, shape):
        """Also where the stretch goes through the Shaper: its lead and the clip line up."""
        moved = mixer(replace(PLAIN, shift=0.1, shape=shape))
        original = moved.clips[moved.words[0]].astype(np.float64)
        places = []
        for seed in range(8):
            samples, _ = moved(0, np.random.default_rng(seed))
            product = np.fft.irfft(np.fft.rfft(samples, 32768) * np.conj(np.fft.rfft(original, 32768)))
            lag = int(product.argmax())
            places.append(lag if lag < 16384 else lag - 32768)
        assert max(map(abs, places)) <= 1600 + 20
        assert max(places) - min(places) > 500

    def test_speed_keeps_the_word_in_the_middle(self, mixer):
        for factor in (0.8, 1.25):
            shape = Augment(speed=1.0, speed_factor=(factor - 0.015, factor + 0.015))
            fast = mixer(replace(PLAIN, shape=shape))
            samples, _ = fast(0, np.random.default_rng(0))
            loud = np.flatnonzero(np.abs(samples) > 0.05)
            assert abs((loud[0] + loud[-1]) / 2 - 8000) < 250  # the tone lies from 4000 to 12000
            assert (loud[-1] - loud[0]) == pytest.approx(8000 / factor, rel=0.04)

    def test_noise_has_the_ratio_asked_for(self, mixer):
        noisy = mixer(replace(PLAIN, noise=1.0, snr=(10.0, 10.0)))
        clean, mixed = mixer(PLAIN)(0, np.random.default_rng(0))[0], noisy(0, np.random.default_rng(0))[0]
        ratio = 10 * np.log10(np.square(clean).mean() / np.square(mixed - clean).mean())
        assert ratio == pytest.approx(10, abs=0.01)

    @pytest.mark.parametrize(
        ("options", "labels", "message"),
        [
            ({"noise": 0.5}, LABELS, "augment.noise is 0.5"),
            ({"silence": 0.5}, LABELS, "augment.silence is 0.5"),
            ({"unknown": 0.5}, ("high", "low", "mid"), "augment.unknown is 0.5"),
            ({}, ("high", "yes"), "labels has 'yes'"),
        ],
    )
    def test_what_recordings_are_missing_is_said(self, corpus, options, labels, message):
        folder = KeywordFolder(corpus)
        clips = KeywordClips(folder, folder.clips)
        with pytest.raises(ValueError, match=message):
            KeywordMixer(clips, labels, None, None, replace(PLAIN, **options))

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"noise": 1.5}, "augment.noise is 1.5"),
            ({"unknown": 0.7, "silence": 0.7}, "unknown, silence"),
            ({"snr": (5.0, 0.0)}, "augment.snr"),
            ({"shift": 0.6}, "augment.shift is 0.6"),
        ],
    )
    def test_bad_values_are_named(self, options, message):
        with pytest.raises(ValueError, match=message):
            KeywordAugment(**options)


class TestSpecAugment:
    def test_masks_are_spans_of_time_and_bands_of_frequency(self):
        frames = torch.ones(64, 50, 2 * 20)
        torch.manual_seed(0)
        masked = SpecAugment(spans=1, span_frames=10, bands=1, band_width=5)(frames, stack=2)
        kept = masked.reshape(64, 50, 2, 20)
        assert torch.equal(kept[:, :, 0], kept[:, :, 1])  # the same bands in both spectra
        dark_times, dark_bands = (kept == 0).all((2, 3)).sum(1), (kept == 0).all((1, 2)).sum(1)
        assert dark_times.min() >= 0
        assert 5 < dark_times.max() <= 10
        assert dark_bands.min() >= 0
        assert 2 < dark_bands.max() <= 5
        torch.manual_seed(0)
        again = SpecAugment(spans=1, span_frames=10, bands=1, band_width=5)(frames, stack=2)
        assert torch.equal(masked, again)

    def test_off_is_the_identity(self):
        frames = torch.randn(2, 5, 6)
        assert torch.equal(SpecAugment()(frames, stack=2), frames)


def test_reading_needs_no_training(tmp_path):
    import subprocess

    code = "import sys, lrnn.data.keywords; print('lightning' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.strip() == "False"


@pytest.mark.data
def test_kws_mini_is_read_as_its_readme_says():
    data = os.environ.get("LRNN_DATA")
    if not data:
        pytest.skip("LRNN_DATA names no corpus")
    folder = find_keywords(data)
    assert len(folder.words) == 9
    training, validation = folder.split("training"), folder.split("validation")
    assert (len(training), len({c.speaker for c in training})) == (1800, 342)
    assert (len(validation), len({c.speaker for c in validation})) == (279, 30)
    assert folder.split("testing") == ()
    assert folder.to_report() == ("validation", validation)
