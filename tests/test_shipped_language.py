"""What ships: the language model and its card."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

import lrnn
from lrnn.data.text_program import Scorer
from lrnn.models import LANGUAGE, LANGUAGE_CARD
from lrnn.profile import count


@pytest.fixture(scope="module")
def program() -> lrnn.Program:
    return lrnn.load(LANGUAGE)


def test_it_is_small_and_sparse_and_in_fixed_point(program):
    assert LANGUAGE.stat().st_size < 1_500_000
    assert program.is_fixed
    stack = [c for c in count(program) if c.name not in ("embedding", "head")]
    matrices = [c for c in stack if c.op == "fixed_linear"]
    share = sum(c.macs_weights for c in matrices) / sum(c.macs for c in matrices)
    assert 0.08 < share < 0.101


def test_the_card_tells_how_it_was_made(program):
    assert {"recipe", "network", "data", "seed", "steps", "metrics", "versions"} <= set(program.meta["card"])
    text = LANGUAGE_CARD.read_text()
    assert all(word in text for word in ("Recipe", "Training data", "bits per byte", "Limits"))


@pytest.mark.parametrize("engine", ["native", "torch"])
def test_engines_agree_to_the_bit(program, engine):
    if engine == "native" and not lrnn.backends()["engine"].startswith("live"):
        pytest.skip(lrnn.backends()["engine"])
    tokens = np.frombuffer(b"It was the best of times, it was the worst of times", np.uint8)
    tokens = tokens[:, None].astype(np.float32)
    expected = program.stream("numpy").run(tokens)
    stream = program.stream(engine)
    found = [stream.run(tokens[:7]), *(stream.step(t)[None] for t in tokens[7:12]), stream.run(tokens[12:])]
    np.testing.assert_array_equal(np.concatenate(found), expected)


def test_it_has_learnt_english(program):
    """Words in their order cost less than the same words shuffled letter by letter, and than chance."""
    scorer = Scorer(program)
    text = b"The old man looked at the sea, and said that there would be no wind before the morning."
    shuffled = bytes(np.random.default_rng(0).permutation(list(text)).astype(np.uint8))
    bits = [scorer(document).bits.mean() for document in (text, shuffled)]
    assert bits[0] < 3.0 < 4.0 < bits[1]


def test_it_writes_text():
    command = [sys.executable, "-m", "lrnn.cli", "generate", "The ", "--tokens", "40", "--seed", "1"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout) > 30
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.stdout == done.stdout


@pytest.mark.data
def test_it_is_as_good_as_its_card_says():
    data = os.environ.get("LRNN_DATA")
    if not data:
        pytest.skip("LRNN_DATA names no corpus")
    command = [sys.executable, "-m", "lrnn.cli", "eval", "text", "--data", data, "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert f"{report['bits_per_byte']:.3f} bits per byte" in LANGUAGE_CARD.read_text()
