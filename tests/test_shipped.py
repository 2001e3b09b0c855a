"""What ships: the denoiser, its card, the demo's clip, and the demo itself."""

import json
import os

import numpy as np
import pytest

import lrnn
from lrnn.cli import main
from lrnn.data import audio
from lrnn.models import DEMO_CLEAN, DEMO_CLIP, DENOISER, DENOISER_CARD, DENOISER_FLOAT


def test_the_denoiser_is_small_and_sparse():
    """In both forms; k = 1 has 504,192 weights in matrices, and 256 numbers in a state, of which 86 move."""
    assert DENOISER.stat().st_size < 125_000
    assert DENOISER_FLOAT.stat().st_size < 260_000
    for path, op in ((DENOISER, "fixed_linear"), (DENOISER_FLOAT, "linear")):
        program = lrnn.load(path)
        nonzero = sum(np.count_nonzero(n.weight) for n in program.nodes if n.op == op)
        assert 0.09 < nonzero / 504_192 < 0.101
        assert program.widths["blocks.0.ssm.state"] == 86


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


@pytest.mark.parametrize("path", [DENOISER, DENOISER_FLOAT], ids=["fixed", "float"])
@pytest.mark.parametrize("engine", ["native", "torch"])
def test_engines_agree_on_the_trained_network(engine, path):
    """In steps and chunks of any size, on the frames of the demo's clip; to the bit in fixed point."""
    if engine == "native" and not lrnn.backends()["engine"].startswith("live"):
        pytest.skip(lrnn.backends()["engine"])
    denoiser = lrnn.Denoiser.load(path)
    frames = denoiser.features(*audio.read(DEMO_CLIP))[:300]
    expected = denoiser.program.stream("numpy").run(frames)
    stream = denoiser.program.stream(engine)
    whole = stream.run(frames)
    stream.reset()
    pieces = [stream.run(frames[:7]), *(stream.step(f)[None] for f in frames[7:20]), stream.run(frames[20:])]
    for found in (whole, np.concatenate(pieces)):
        error = np.abs(found - expected).max()
        assert error == 0 if denoiser.program.is_fixed else error <= 1e-5 * np.abs(expected).max()


def test_speech_keeps_its_level():
    """SI-SNR would not notice another gain; a listener would."""
    clean, noisy = (audio.read_mono(path, 16000) for path in (DEMO_CLEAN, DEMO_CLIP))
    denoised = lrnn.Denoiser.load().denoise(noisy, 16000, "numpy")
    assert 20 * np.log10(np.dot(denoised, clean) / np.dot(clean, clean)) == pytest.approx(0, abs=1.5)
    assert np.abs(denoised).max() < 1


def test_the_demo_denoises_and_writes(tmp_path, capsys):
    assert main(["demo", "--out", str(tmp_path / "out"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["si_snr"] > found["noisy_si_snr"] + 3
    assert found["float_si_snr"] - found["si_snr"] < 0.1
    assert found["bytes"] < found["float_bytes"] / 2
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
    assert all(word in text for word in ("SI-SNR", "dense in PyTorch", "fixed point", "real time", "Next:"))


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
    assert found["si_snr"] >= 13.3
    assert found["si_snri"] == pytest.approx(found["si_snr"] - found["noisy_si_snr"])
