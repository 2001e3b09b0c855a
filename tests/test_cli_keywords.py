"""`lrnn listen`, `lrnn eval keywords` and `lrnn quantize` of a keyword spotter, as people type them."""

from __future__ import annotations

import io
import json
from types import SimpleNamespace

import numpy as np
import pytest
from keyword_cases import make_spotter, tone, write_keywords

from lrnn.cli import main
from lrnn.data import audio
from lrnn.data.spotter import KeywordSpotter

pytest.importorskip("soundfile")
pytest.importorskip("soxr")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return str(make_spotter(tmp_path_factory.mktemp("model") / "m.lrnn"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_keywords(folder / "kws-mini")
    return folder


@pytest.fixture
def speech(tmp_path) -> str:
    (tmp_path / "speech").mkdir()
    x = np.concatenate([tone(hertz, n) for n, hertz in enumerate([300, 2000, 800])])
    audio.write(tmp_path / "speech" / "x.wav", x, 16000)
    return str(tmp_path / "speech")


def failure(capsys, *argv) -> str:
    assert main(list(map(str, argv))) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_listen_prints_what_the_library_finds(model, speech, capsys):
    options = ["--model", model, "--engine", "numpy", "--threshold", "0.4"]
    assert main(["listen", f"{speech}/x.wav", *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert main(["listen", f"{speech}/x.wav", *options, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    spotter = KeywordSpotter.load(model)
    chosen = type(spotter.decision)(**report["decision"])
    stream = spotter.stream(16000, "numpy", chosen)
    expected = stream.step(audio.read_mono(f"{speech}/x.wav", 16000)) + stream.flush()
    assert expected
    assert len(lines) == len(expected)
    assert [k["word"] for k in report["keywords"]] == [k.word for k in expected]
    for line, keyword in zip(lines, expected, strict=True):
        assert line.split() == [f"{keyword.time:.2f}", "s", f"{keyword.probability:.2f}", keyword.word]
    assert report["seconds"] == 3.0
    assert report["decision"]["threshold"] == 0.4


@pytest.mark.parametrize("rate", [16000, 8000])
def test_listen_to_standard_input_equals_the_file(model, speech, rate, tmp_path, monkeypatch, capsys):
    samples = audio.resample(audio.read_mono(f"{speech}/x.wav", 16000), 16000, rate)
    audio.write(tmp_path / "y.wav", samples, rate)
    options = ["--model", model, "--engine", "numpy", "--threshold", "0.4"]
    assert main(["listen", str(tmp_path / "y.wav"), *options]) == 0
    expected = capsys.readouterr().out
    raw = audio.to_int16(audio.read_mono(tmp_path / "y.wav", rate)).astype("<i2").tobytes()
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BufferedReader(io.BytesIO(raw))))
    assert main(["listen", "-", "--rate", str(rate), *options]) == 0
    assert capsys.readouterr().out == expected != ""


def test_a_terminal_is_told_when_nothing_was_heard(model, speech, monkeypatch, capsys):
    options = ["--model", model, "--engine", "numpy", "--threshold", "1"]
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert main(["listen", f"{speech}/x.wav", *options]) == 0
    found = capsys.readouterr()
    assert found.out == ""
    assert found.err.startswith("no keywords in 3.00 s, real-time factor 0.")
    monkeypatch.setattr("sys.stderr.isatty", lambda: False)
    assert main(["listen", f"{speech}/x.wav", *options]) == 0
    assert capsys.readouterr().err == ""


def test_eval_prints_one_json_object(model, data, speech, capsys):
    command = ["eval", "keywords", "--data", str(data), "--model", model, "--engine", "numpy"]
    assert main([*command, "--speech", speech, "--threshold", "0.4", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["task"], report["split"], report["clips"]) == ("keywords", "testing", 6)
    assert 0 <= report["low"] <= report["accuracy"] <= report["high"] <= 1
    assert report["false_alarms"]["hours"] == pytest.approx(3 / 3600)
    assert main([*command, "--split", "training", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["clips"] == 24


def test_eval_prints_a_table_and_draws(model, data, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    picture = tmp_path / "c.png"
    command = ["eval", "keywords", "--data", str(data), "--model", model, "--split", "all"]
    assert main([*command, "--plot", str(picture)]) == 0
    out = capsys.readouterr().out
    assert "36 clips (all)\n" in out
    assert "right among the words, 95 % interval" in out
    assert all(line == line.rstrip() and len(line) < 100 for line in out.splitlines())
    assert "_unknown_" in out
    assert picture.stat().st_size > 2000


def test_quantize_calibrates_on_training_clips(model, data, tmp_path, capsys):
    pytest.importorskip("lightning")
    out = tmp_path / "fixed.lrnn"
    argv = ["quantize", model, "-o", str(out), "--calibrate", str(data), "--clips", "3"]
    assert main([*argv, "--scheme", "w16a16", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["clips"] == 3
    fixed, floats = KeywordSpotter.load(out), KeywordSpotter.load(model)
    assert fixed.program.is_fixed
    assert fixed.labels == floats.labels
    import torch

    x = torch.from_numpy(tone(300, 9))[None]
    torch.testing.assert_close(fixed.scores(x), floats.scores(x), atol=0.01, rtol=0)


class TestErrors:
    def test_listen(self, model, speech, tmp_path, capsys):
        assert "nowhere.wav: no such audio file" in failure(capsys, "listen", "nowhere.wav", "--model", model)
        assert "--rate is for raw PCM" in failure(
            capsys, "listen", f"{speech}/x.wav", "--rate", 8000, "--model", model
        )
        assert "--rate is 0" in failure(capsys, "listen", "-", "--rate", 0, "--model", model)
        assert "threshold is 2.0" in failure(
            capsys, "listen", f"{speech}/x.wav", "--threshold", 2, "--model", model
        )
        assert "no keywords in its meta" in failure(
            capsys, "listen", f"{speech}/x.wav", "--model", self.denoiser(tmp_path)
        )

    def test_eval(self, model, data, tmp_path, monkeypatch, capsys):
        monkeypatch.delenv("LRNN_DATA", raising=False)
        assert "no data" in failure(capsys, "eval", "keywords", "--model", model)
        found = failure(capsys, "eval", "keywords", "--data", tmp_path, "--model", model)
        assert f"{tmp_path}: no keywords" in found
        command = ("eval", "keywords", "--data", data, "--model", model)
        assert "nowhere" in failure(capsys, *command, "--speech", tmp_path / "nowhere")

    def denoiser(self, folder) -> str:
        from eval_cases import make_model

        return str(make_model(folder / "denoiser.lrnn"))


def test_profile_measures_on_audio(model, speech, capsys):
    assert main(["profile", model, "--data", f"{speech}/x.wav", "--json"]) == 0
    measured = json.loads(capsys.readouterr().out)["total"]
    assert 0 < measured["macs_effective"] < measured["macs_weights"]
    assert main(["profile", model, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["total"]["macs_effective"] is None
