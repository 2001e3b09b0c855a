"""Detector and spotter: decisions from scores, any cutting of a stream, clips equal to streams, errors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from keyword_cases import FRONTEND, LABELS, WORDS, make_spotter, tone, write_keywords

import lrnn
from lrnn.data import audio
from lrnn.data.detector import Decision, Detector, Keyword
from lrnn.data.evaluate_keywords import false_alarms, score_clips, score_stream
from lrnn.data.keywords import KeywordClips, KeywordFolder
from lrnn.data.spotter import KeywordSpotter
from lrnn.engine import default_engine

pytest.importorskip("soundfile")
pytest.importorskip("soxr")

FRAME = 0.02
EIGHT = replace(FRONTEND, sample_rate=8000, hop=80, window=240, f_max=3800.0)  # as wide as FRONTEND


@pytest.fixture(scope="module")
def spotter(tmp_path_factory) -> KeywordSpotter:
    return KeywordSpotter.load(make_spotter(tmp_path_factory.mktemp("model") / "m.lrnn"))


def eager(threshold: float = 0.4, **options) -> Decision:
    """An untrained network is not often sure."""
    return Decision(threshold=threshold, hold=0.1, other=0.0, **options)


def plain_detector(scores: np.ndarray, labels, decision: Decision) -> list[Keyword]:
    """The same from whole arrays."""
    window, hold, pause = (
        max(1, round(t / FRAME)) for t in (decision.window, decision.hold, decision.refractory)
    )
    padded = np.concatenate([np.zeros((window - 1, scores.shape[1])), scores])
    pooled = np.stack([padded[t : t + window].mean(0) for t in range(len(scores))])
    odds = np.exp(pooled) * [np.exp(decision.other) if label == "_unknown_" else 1 for label in labels]
    probabilities = odds / odds.sum(1, keepdims=True)
    words = [i for i, label in enumerate(labels) if not label.startswith("_")]
    best = np.array(words)[probabilities[:, words].argmax(1)]
    at_threshold = probabilities >= decision.threshold
    found, free, lasting = [], 0, None
    for t in range(len(scores)):
        if lasting is not None and not at_threshold[t, lasting]:
            lasting = None
        recent = slice(t - hold + 1, t + 1)
        ahead = t + 1 >= hold and (best[recent] == best[t]).all() and at_threshold[recent, best[t]].all()
        if t >= free and ahead and best[t] != lasting:
            lasting = best[t]
            found.append(Keyword(labels[lasting], (t + 1) * FRAME, probabilities[t, lasting]))
            free = t + 1 + pause
    return found


class TestDetector:
    def test_any_cutting_decides_what_the_whole_does(self):
        rng = np.random.default_rng(0)
        scores = np.repeat(5 * np.eye(4)[rng.integers(4, size=25)], 20, axis=0) + rng.standard_normal(
            (500, 4)
        )
        decision = Decision(threshold=0.5, window=0.4, hold=0.1, other=1.0, refractory=0.3)
        expected = plain_detector(scores, LABELS, decision)
        assert len(expected) > 4
        assert len({k.word for k in expected}) == 2
        for cuts in ([], range(1, 500), [3, 3, 499]):
            detector = Detector(LABELS, FRAME, decision)
            found = [k for piece in np.split(scores, cuts) for k in detector.push(piece)]
            assert [(k.word, k.time) for k in found] == [(k.word, k.time) for k in expected]
            np.testing.assert_allclose(
                [k.probability for k in found], [k.probability for k in expected], rtol=1e-9
            )

    def test_one_word_is_decided_once_and_early_frames_decide_nothing(self):
        detector = Detector(LABELS, FRAME, Decision(threshold=0.9, hold=0.1, other=0.0, refractory=0.2))
        scores = np.zeros((300, 4))
        scores[50:150, 1] = 10  # two seconds of the second word, after a second of nothing
        scores[220:260, 1] = 10  # and once more
        found = detector.push(scores)
        assert [k.word for k in found] == ["low", "low"]
        assert 1.2 < found[0].time < 2.0
        assert 4.4 < found[1].time < 5.2

    def test_what_is_ahead_for_a_moment_only_is_not_decided(self):
        scores = np.zeros((300, 4))
        scores[50:62, 0] = 10  # at the threshold for 14 frames, from the second on
        scores[150:190, 0] = 10
        detector = Detector(LABELS, FRAME, Decision(window=0.1, hold=0.4))
        assert [round(k.time / FRAME) for k in detector.push(scores)] == [171]
        eager_one = Detector(LABELS, FRAME, Decision(window=0.1, hold=0.2))
        assert [round(k.time / FRAME) for k in eager_one.push(scores)] == [61, 161]

    def test_other_speech_is_as_likely_as_the_decision_says(self):
        scores = np.log([[0.5, 0.1, 0.2, 0.2]]).repeat(100, axis=0)
        for other, probability in ((0.0, 0.5), (np.log(2), 0.5 / 1.2), (np.log(5), 0.5 / 1.8)):
            found = Detector(LABELS, FRAME, Decision(threshold=0.25, other=other)).push(scores)
            assert found[0].word == "high"
            hold = Detector(LABELS, FRAME, Decision(threshold=0.25, other=other, window=FRAME, hold=0))
            assert hold.push(scores)[0].probability == pytest.approx(probability)

    def test_unknown_and_silence_are_never_decided(self):
        detector = Detector(LABELS, FRAME, Decision(threshold=0.3))
        scores = np.zeros((200, 4))
        scores[:, 2] = 10
        assert detector.push(scores) == []

    def test_reset_forgets(self):
        detector = Detector(LABELS, FRAME, Decision(threshold=0.9))
        scores = np.zeros((60, 4))
        scores[:, 0] = 10
        first = detector.push(scores)
        assert len(first) == 1
        detector.reset()
        assert detector.push(scores) == first

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"threshold": 0.0}, "threshold is 0.0"),
            ({"window": 0.0}, "window"),
            ({"hold": -1.0}, "hold"),
            ({"hold": float("nan")}, "hold"),
            ({"other": float("inf")}, "other is inf"),
        ],
    )
    def test_bad_values_are_named(self, options, message):
        with pytest.raises(ValueError, match=message):
            Decision(**options)


class TestSpotter:
    def test_a_clip_s_scores_are_the_mean_pooling_head_s(self):
        """Averaging what the decoder makes equals decoding the average, which is how the paper pools."""
        torch.manual_seed(1)
        sizes = {"d_model": 12, "d_state": 8, "blocks": 2, "n_layers": 1}
        config = lrnn.SequenceModelConfig(d_in=FRONTEND.width, d_out=4, **sizes)
        model = lrnn.SequenceModel(config).eval()
        pooled = lrnn.SequenceModel(replace(config, head="classification")).eval()
        pooled.load_state_dict(model.state_dict())
        meta = {"keywords": {"labels": list(LABELS), "frontend": FRONTEND.to_meta()}}
        x = torch.from_numpy(np.stack([tone(500, n) for n in range(3)]))
        scores = KeywordSpotter(lrnn.compile(model, meta)).scores(x)
        expected = pooled(FRONTEND(x))[0]
        torch.testing.assert_close(torch.log_softmax(scores, -1), expected, atol=1e-4, rtol=0)

    def test_any_cutting_at_any_rate_finds_the_same_words(self, spotter):
        x = np.concatenate([tone(hertz, n) for n, hertz in enumerate([300, 2000, 800, 300])])
        for rate in (16000, 44100):
            samples = audio.resample(x, 16000, rate)
            found = []
            for cuts in ([], [1, 100, 5000, 5001, 20000], range(0, len(samples), 777)):
                stream = spotter.stream(rate, "numpy", eager())
                pieces = np.split(samples, cuts)
                found.append([k for p in pieces for k in stream.step(p)] + stream.flush())
            assert found[0]
            for other in found[1:]:
                assert [(k.word, k.time) for k in other] == [(k.word, k.time) for k in found[0]]

    def test_a_stream_ends_at_the_clip_s_scores(self, spotter):
        x = tone(700, 5)
        stream = spotter.program.stream("numpy")
        scores = stream.run(spotter.frontend(torch.from_numpy(x)).numpy()).mean(0)
        np.testing.assert_allclose(scores, spotter.scores(torch.from_numpy(x)[None])[0], atol=1e-5)

    def test_flush_starts_a_new_stream(self, spotter):
        stream = spotter.stream(engine="numpy", decision=eager())
        first = stream.step(tone(300, 0, 2.0)) + stream.flush()
        assert stream.step(tone(300, 0, 2.0)) + stream.flush() == first

    def test_bad_samples_change_nothing(self, spotter):
        stream = spotter.stream(engine="numpy", decision=eager())
        with pytest.raises(ValueError, match="NaN"):
            stream.step(np.array([0.0, np.nan]))
        with pytest.raises(TypeError, match="int16"):
            stream.step(np.zeros(3, np.int16))
        with pytest.raises(ValueError, match=r"shape \(2, 2\)"):
            stream.step(np.zeros((2, 2)))
        other = spotter.stream(engine="numpy", decision=eager())
        assert stream.step(tone(300, 0)) == other.step(tone(300, 0))

    def test_programs_that_are_no_spotters_are_refused(self, spotter, tmp_path):
        program = spotter.program
        with pytest.raises(ValueError, match="no keywords in its meta"):
            KeywordSpotter(replace(program, meta={}))
        meta = {"keywords": {**program.meta["keywords"], "labels": ["a", "b"]}}
        with pytest.raises(ValueError, match=r"widths \(24, 4\), expected \(24, 2\)"):
            KeywordSpotter(replace(program, meta=meta))
        for changed, message in (
            ({"labels": ["_unknown_", "_silence_"] * 2}, "expected words among them"),
            ({"decision": {"smoothing": 0.5}}, "decision is .*'smoothing'"),
            ({"decision": {"hold": "long"}}, "decision is .*'long'"),
        ):
            with pytest.raises(ValueError, match=message):
                KeywordSpotter(replace(program, meta={"keywords": {**program.meta["keywords"], **changed}}))
        with pytest.raises(ValueError, match="rate is 0"):
            spotter.stream(rate=0)
        with pytest.raises(FileNotFoundError, match="nowhere"):
            KeywordSpotter.load(tmp_path / "nowhere.lrnn")
        with pytest.raises(ValueError, match="audio has 100 samples"):
            spotter.scores(torch.zeros(1, 100))


class Oracle(KeywordSpotter):
    """Hears tones: a frame's score for a word is its loudness at the word's frequency."""

    def __init__(self, spotter: KeywordSpotter):
        super().__init__(spotter.program)
        bands = [self._band(WORDS[label]) for label in ("high", "low")]
        weight = torch.zeros(4, FRONTEND.width)
        for row, band in enumerate(bands):
            weight[row, band] = weight[row, band + FRONTEND.n_mels] = 12.0
        config = lrnn.SequenceModelConfig(
            d_in=FRONTEND.width, d_out=4, d_model=FRONTEND.width, d_state=8, blocks=2, n_layers=1, glu="none"
        )
        model = lrnn.SequenceModel(config).eval()
        with torch.no_grad():
            for p in model.parameters():
                p.zero_()
            model.encoder.weight.copy_(torch.eye(FRONTEND.width))
            model.decoder.weight.copy_(weight)
            model.decoder.bias.copy_(torch.tensor([0.0, 0.0, 2.0, 4.0]))
        self.program = lrnn.compile(model, spotter.program.meta)

    def _band(self, hertz: float) -> int:
        sine = torch.sin(2 * torch.pi * hertz * torch.arange(16000) / 16000)
        return int(FRONTEND(sine)[-1][: FRONTEND.n_mels].argmax())


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = KeywordFolder(write_keywords(tmp_path_factory.mktemp("data") / "kws-mini"))
    return KeywordClips(folder, folder.clips)


class TestEvaluation:
    @pytest.fixture
    def oracle(self, spotter):
        return Oracle(spotter)

    def test_a_spotter_that_hears_is_right(self, oracle, clips):
        report = score_clips(oracle, clips).report()
        assert report["clips"] == 36
        assert (report["accuracy"], report["low"], report["high"]) == (1.0, 1.0, 1.0)
        confusion = np.array(report["confusion"])
        assert confusion.sum() == 36
        assert confusion.sum(1).tolist() == [12, 12, 12, 0]
        assert np.trace(confusion) / 36 == report["accuracy_all_labels"]

    def test_accuracy_is_that_of_plain_counting(self, spotter, clips):
        scored = score_clips(spotter, clips)
        right = [
            s[:2].argmax() == label
            for s, label in zip(scored.scores, scored.labels, strict=True)
            if label < 2
        ]
        assert scored.report()["accuracy"] == pytest.approx(np.mean(right))

    def test_clips_are_resampled_for_a_spotter_of_another_rate(self, spotter, clips):
        meta = {"keywords": {**spotter.program.meta["keywords"], "frontend": EIGHT.to_meta()}}
        slow = KeywordSpotter(replace(spotter.program, meta=meta))
        found = score_clips(slow, clips).scores
        for i in (0, 35):
            x = audio.resample(clips[i].astype(np.float32) / 32768, 16000, 8000)
            expected = slow.scores(torch.from_numpy(x)[None])[0]
            np.testing.assert_allclose(found[i], expected, atol=1e-5)

    def test_words_are_found_in_a_stream(self, oracle, clips):
        found = score_stream(oracle, clips, default_engine(), Decision(threshold=0.8, window=0.4))
        assert found["found"] > 0.9
        assert 0.0 < found["delay"] < 1.5
        deaf = score_stream(oracle, clips, default_engine(), Decision(threshold=1.0))
        assert deaf == {"found": 0.0, "wrong": 0.0, "missed": 1.0, "extra": 0, "delay": None}

    def test_false_alarms_are_counted_per_hour(self, oracle, tmp_path):
        for n, hertz in enumerate((300, 1200)):
            audio.write(tmp_path / f"{n}.wav", tone(hertz, n, 4.0), 16000)
        found = false_alarms(
            oracle, tmp_path, default_engine(), Decision(threshold=0.8, window=0.4, refractory=10.0)
        )
        assert found["words"] == {"low": 1}
        assert found["alarms"] == 1
        assert found["hours"] == pytest.approx(8 / 3600)
        assert found["per_hour"] == pytest.approx(450)
