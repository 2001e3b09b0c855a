"""What ships: the denoiser, its card, the demo's clip, and the demo itself."""

import json
import os

import numpy as np
import pytest

import lrnn
from lrnn.cli import main
from lrnn.data import audio
from lrnn.models import DEMO_CLEAN, DEMO_CLIP, DENOISER, DENOISER_CARD


def test_the_denoiser_is_small_and_sparse():
    assert DENOISER.stat().st_size < 500_000
    program = lrnn.load(DENOISER)
    weights = [n.weight for n in program.nodes if n.op == "linear"]
    density = sum(np.count_nonzero(w) for w in weights) / sum(w.size for w in weights)
    assert density == pytest.approx(0.1, abs=0.001)
    assert program.widths["blocks.0.ssm.state"] == 256  # k = 1


def test_the_card_tells_how_it_was_made():
    card = lrnn.load(DENOISER).meta["card"]
    assert {"recipe", "network", "data", "seed", "steps", "metrics", "versions"} <= set(card)
    text = DENOISER_CARD.read_text()
    assert all(word in text for word in ("data", "recipe", "seed", "command", "SI-SNR", "licence"))


def test_the_clip_is_clean_plus_noise():
    (noisy, rate), (clean, clean_rate) = audio.read(DEMO_CLIP), audio.read(DEMO_CLEAN)
    assert (rate, clean_rate) == (16000, 16000)
    assert noisy.shape == clean.shape
    assert noisy.shape[1] == 1


def test_the_demo_denoises_and_writes(tmp_path, capsys):
    assert main(["demo", "--out", str(tmp_path / "out"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["si_snr"] > found["noisy_si_snr"] + 3
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "demo-noisy.wav",
        "demo-denoised.wav",
        "demo.png",
    }
    denoised, _ = audio.read(tmp_path / "out" / "demo-denoised.wav")
    assert len(denoised) == len(audio.read(DEMO_CLIP)[0])


def test_the_demo_tells_what_it_did(tmp_path, capsys):
    assert main(["demo", "--out", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert all(word in text for word in ("SI-SNR", "dense in PyTorch", "real time", "Next:"))


@pytest.mark.data
@pytest.mark.skipif("LRNN_DATA" not in os.environ, reason="LRNN_DATA names no corpus")
@pytest.mark.parametrize("engine", ["torch", "native"])
def test_quality_on_the_validation_set(engine, capsys):
    if engine == "native" and not lrnn.backends()["engine"].startswith("live"):
        pytest.skip(lrnn.backends()["engine"])
    assert main(["eval", "denoise", "--data", os.environ["LRNN_DATA"], "--engine", engine, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["clips"] == 38
    assert found["noisy_si_snr"] == pytest.approx(8.83, abs=0.005)
    assert found["si_snr"] >= 12.2
    assert found["si_snri"] == pytest.approx(found["si_snr"] - found["noisy_si_snr"])
