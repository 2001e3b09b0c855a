"""What ships: the keyword spotter and its card."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

import lrnn
from lrnn.data import audio
from lrnn.data.evaluate_keywords import false_alarms, score_clips, score_stream
from lrnn.data.keywords import KeywordClips, find_keywords
from lrnn.engine import default_engine
from lrnn.models import DEMO_CLIP, KEYWORDS, KEYWORDS_CARD

pytest.importorskip("soundfile")


@pytest.fixture(scope="module")
def spotter() -> lrnn.KeywordSpotter:
    return lrnn.KeywordSpotter.load()


def test_it_is_small_and_sparse_and_in_fixed_point(spotter):
    assert KEYWORDS.stat().st_size < 100_000
    assert spotter.program.is_fixed
    nonzero = sum(np.count_nonzero(n.weight) for n in spotter.program.nodes if n.op == "fixed_linear")
    config = spotter.program.meta["card"]["network"]
    H, S = config["d_model"], config["d_state"]
    matrices = config["n_layers"] * (2 * H * S + H * H) + H * (config["d_in"] + config["d_out"])
    assert 0.08 < nonzero / matrices < 0.101


def test_the_card_tells_how_it_was_made(spotter):
    card = spotter.program.meta["card"]
    assert {"recipe", "network", "data", "seed", "steps", "metrics", "versions"} <= set(card)
    text = KEYWORDS_CARD.read_text()
    assert all(word in text for word in ("data", "Recipe", "accuracy", "false alarms", "licence"))


@pytest.mark.parametrize("engine", ["native", "torch"])
def test_engines_agree_to_the_bit(spotter, engine):
    if engine == "native" and not lrnn.backends()["engine"].startswith("live"):
        pytest.skip(lrnn.backends()["engine"])
    frames = spotter.features(*audio.read(DEMO_CLIP))[:200]
    expected = spotter.program.stream("numpy").run(frames)
    stream = spotter.program.stream(engine)
    pieces = [stream.run(frames[:7]), *(stream.step(f)[None] for f in frames[7:20]), stream.run(frames[20:])]
    np.testing.assert_array_equal(np.concatenate(pieces), expected)


@pytest.mark.data
def test_it_is_as_good_as_its_card_says(spotter):
    data = os.environ.get("LRNN_DATA")
    if not data:
        pytest.skip("LRNN_DATA names no corpus")
    folder = find_keywords(data)
    report = score_clips(spotter, KeywordClips(folder, folder.split("validation"))).report()
    card = KEYWORDS_CARD.read_text()
    accuracy = f"{100 * report['accuracy']:.1f} % among the words"
    assert accuracy in card
    decided = score_stream(
        spotter, KeywordClips(folder, folder.split("validation")), default_engine(), spotter.decision
    )
    assert f"{100 * decided['found']:.1f} % found, {100 * decided['wrong']:.1f} % heard as another" in card


@pytest.mark.data
def test_it_hears_as_little_in_other_speech_as_its_card_says(spotter):
    data = os.environ.get("LRNN_DATA")
    if not data:
        pytest.skip("LRNN_DATA names no corpus")
    speech = Path(data) / "ndns-mini" / "validation_set" / "clean"
    if not speech.is_dir():
        pytest.skip(f"{speech}: not there")
    found = false_alarms(spotter, speech, default_engine(), spotter.decision)
    alarms = f"{found['alarms']} false alarms, {found['per_hour']:.0f} an hour"
    assert alarms in KEYWORDS_CARD.read_text()
