"""`lrnn denoise` and `lrnn eval denoise` as people type them."""

from __future__ import annotations

import io
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from eval_cases import make_model

from lrnn.cli import main
from lrnn.data import audio
from lrnn.data.denoiser import Denoiser
from lrnn.data.metrics import si_snr
from lrnn.data.mix import Mixer
from lrnn.data.synthetic import synthetic_sources

pytest.importorskip("soundfile")
pytest.importorskip("soxr")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return str(make_model(tmp_path_factory.mktemp("model") / "m.lrnn"))


@pytest.fixture
def clips(tmp_path) -> SimpleNamespace:
    """A noisy and a clean file of 0.5 s and their samples."""
    noisy, clean = Mixer(*synthetic_sources(0, 0.1), clip_seconds=0.5)(0)
    for name, samples in (("noisy", noisy), ("clean", clean)):
        audio.write(tmp_path / f"{name}.wav", samples, 16000, "FLOAT")
    return SimpleNamespace(
        noisy=noisy,
        clean=clean,
        noisy_file=str(tmp_path / "noisy.wav"),
        clean_file=str(tmp_path / "clean.wav"),
    )


def denoise(model, *argv) -> int:
    return main(["denoise", *map(str, argv), "--model", model, "--engine", "numpy"])


def test_output_is_the_library_s_and_has_the_input_s_subtype(model, clips, tmp_path, capsys):
    out = tmp_path / "out.wav"
    assert denoise(model, clips.noisy_file, out) == 0
    assert audio.info(out) == audio.info(clips.noisy_file)
    expected = Denoiser.load(model).denoise(clips.noisy, 16000, "numpy")
    np.testing.assert_allclose(audio.read_mono(out, 16000), expected, atol=1e-6)
    assert "0.50 s, 16000 Hz, mono; numpy engine, latency 32 ms" in capsys.readouterr().out


def test_stereo_at_44100_hz_in_several_blocks(model, tmp_path):
    x = 0.1 * np.random.default_rng(0).standard_normal((100_001, 2)).astype(np.float32)
    audio.write(tmp_path / "in.flac", x, 44100)
    assert denoise(model, tmp_path / "in.flac", tmp_path / "out.flac") == 0
    assert audio.info(tmp_path / "out.flac") == audio.info(tmp_path / "in.flac")
    stored, _ = audio.read(tmp_path / "in.flac")
    expected = Denoiser.load(model).denoise(stored, 44100, "numpy")
    np.testing.assert_allclose(audio.read(tmp_path / "out.flac")[0], expected, atol=2e-5)


@pytest.mark.parametrize("n", [0, 1, 100])
def test_tiny_files(model, tmp_path, n, capsys):
    audio.write(tmp_path / "in.wav", np.full(n, 0.1), 22050)
    assert denoise(model, tmp_path / "in.wav", tmp_path / "out.wav", "--json") == 0
    assert audio.info(tmp_path / "out.wav").frames == n
    assert (json.loads(capsys.readouterr().out)["real_time_factor"] is None) == (n == 0)


def test_json_with_a_reference_measures_the_file(model, clips, tmp_path, capsys):
    out = tmp_path / "out.wav"
    assert denoise(model, clips.noisy_file, out, "--reference", clips.clean_file, "--json") == 0
    captured = capsys.readouterr()
    report = json.loads(captured.out)
    clean, noisy = torch.from_numpy(clips.clean), torch.from_numpy(clips.noisy)
    after = si_snr(torch.from_numpy(audio.read_mono(out, 16000)), clean).item()
    assert report["noisy_si_snr"] == pytest.approx(si_snr(noisy, clean).item(), abs=1e-3)
    assert report["si_snr"] == pytest.approx(after, abs=1e-3)
    assert report["si_snri"] == pytest.approx(report["si_snr"] - report["noisy_si_snr"])
    assert report["real_time_factor"] > 0
    assert captured.err == ""


def test_plot_is_a_picture(model, clips, tmp_path):
    pytest.importorskip("matplotlib")
    picture = tmp_path / "p.png"
    options = ("--reference", clips.clean_file, "--plot", picture)
    assert denoise(model, clips.noisy_file, tmp_path / "out.wav", *options) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert denoise(model, clips.noisy_file, tmp_path / "out.wav", "--plot", tmp_path / "p.foo") == 2


# Raw PCM


class LivePipe:
    """A stdin that hands out pieces, and notes how much stdout had been given when each was asked for."""

    def __init__(self, data: bytes, piece: int, stdout: io.BytesIO):
        self._rest, self._piece, self._stdout = data, piece, stdout
        self.taken, self.answered = 0, []

    def read1(self, _size: int) -> bytes:
        self.answered.append((self.taken, len(self._stdout.getvalue())))
        piece, self._rest = self._rest[: self._piece], self._rest[self._piece :]
        self.taken += len(piece)
        return piece


@pytest.fixture
def pipe(monkeypatch):
    """Replace stdin and stdout: call with bytes and the size of pieces, get both back."""

    def install(data: bytes, piece: int) -> tuple[LivePipe, io.BytesIO]:
        stdout = io.BytesIO()
        stdin = LivePipe(data, piece, stdout)
        monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=stdin))
        monkeypatch.setattr("sys.stdout", SimpleNamespace(buffer=stdout))
        return stdin, stdout

    return install


@pytest.mark.parametrize("piece", [256, 333, 5000])
def test_pipe_answers_as_it_goes_with_as_many_samples(model, clips, pipe, capsys, piece):
    pcm = audio.to_int16(clips.noisy)
    stdin, stdout = pipe(pcm.astype("<i2").tobytes(), piece)
    assert denoise(model, "-", "-") == 0
    for taken, answered in stdin.answered:
        hops = taken // 2 // 128
        assert answered == 2 * 128 * max(hops - 3, 0)  # all but the delay of 384 samples
    expected = audio.to_int16(Denoiser.load(model).denoise(pcm / np.float32(32768), 16000, "numpy"))
    np.testing.assert_array_equal(np.frombuffer(stdout.getvalue(), "<i2"), expected)
    assert "real-time factor" in capsys.readouterr().err


def test_pipe_at_another_rate_into_a_file(model, pipe, tmp_path):
    pipe(np.zeros(3000, "<i2").tobytes(), 1000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdout", io.StringIO())
        assert denoise(model, "-", tmp_path / "out.wav", "--rate", "8000") == 0
    assert audio.info(tmp_path / "out.wav") == audio.AudioInfo(8000, 1, 3000, "PCM_16")


def test_half_a_sample_is_an_error(model, pipe, capsys):
    pipe(b"abc", 3)
    assert denoise(model, "-", "-") == 2
    assert "odd number of bytes" in capsys.readouterr().err


# Errors


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["no.wav", "out.wav"], "no.wav: no such audio file"),
        (["{noisy}", "{noisy}"], "OUT is IN"),
        (["{noisy}", "out.wav", "--rate", "8000"], "--rate is for raw PCM"),
        (["-", "-", "--plot", "p.png"], "expected IN and OUT to be files"),
        (["{noisy}", "-", "--json"], "both want stdout"),
        (["{noisy}", "nowhere/out.wav"], "nowhere does not exist"),
        (["{noisy}", "out.xyz"], "out.xyz"),
    ],
)
def test_errors_are_one_line(model, clips, tmp_path, monkeypatch, capsys, argv, message):
    monkeypatch.chdir(tmp_path)
    assert denoise(model, *(a.format(noisy=clips.noisy_file) for a in argv)) == 2
    error = capsys.readouterr().err
    assert error.startswith("lrnn: error: ")
    assert message in error
    assert error.count("\n") == 1
    assert {p.name for p in tmp_path.iterdir()} == {"noisy.wav", "clean.wav"}


def test_a_reference_of_another_length_is_refused(model, clips, tmp_path, capsys):
    audio.write(tmp_path / "short.wav", clips.clean[:-1], 16000)
    assert denoise(model, clips.noisy_file, tmp_path / "o.wav", "--reference", tmp_path / "short.wav") == 2
    assert "short.wav: (7999, 1) samples" in capsys.readouterr().err


# Evaluation


@pytest.fixture
def folder(tmp_path):
    mixer = Mixer(*synthetic_sources(0, 0.1), clip_seconds=0.5)
    pairs = [mixer(i) for i in range(3)]
    for kind in ("noisy", "clean"):
        (tmp_path / "validation_set" / kind).mkdir(parents=True)
    for i, (noisy, clean) in enumerate(pairs):
        root = tmp_path / "validation_set"
        audio.write(root / "noisy" / f"x_snr{10 * i}_tl-20_fileid_{i}.wav", noisy, 16000, "FLOAT")
        audio.write(root / "clean" / f"clean_fileid_{i}.wav", clean, 16000, "FLOAT")
    return SimpleNamespace(path=str(tmp_path), pairs=pairs)


@pytest.mark.parametrize("engine", ["torch", "numpy"])
def test_eval_means_over_clips(model, folder, capsys, engine):
    assert (
        main(["eval", "denoise", "--data", folder.path, "--model", model, "--engine", engine, "--json"]) == 0
    )
    report = json.loads(capsys.readouterr().out)
    denoiser = Denoiser.load(model)
    before, after = [], []
    for noisy, clean in (map(torch.from_numpy, pair) for pair in folder.pairs):
        before.append(si_snr(noisy, clean).item())
        after.append(si_snr(denoiser.offline(noisy), clean).item())
    assert report["clips"] == 3
    assert report["si_snr"] == pytest.approx(np.mean(after), abs=1e-2)
    assert report["si_snri"] == pytest.approx(np.mean(after) - np.mean(before), abs=1e-2)
    assert [b["clips"] for b in report["by_snr"]] == [1, 1, 1]
    assert [b["snr"] for b in report["by_snr"]] == ["0 to 5", "10 to 15", "15 to 20"]


def test_eval_prints_a_table_and_takes_the_environment(model, folder, capsys, monkeypatch):
    monkeypatch.setenv("LRNN_DATA", folder.path)
    assert main(["eval", "denoise", "--model", model]) == 0
    printed = capsys.readouterr().out
    assert "3 clips: SI-SNR" in printed
    assert "15 to 20" in printed


def test_eval_without_data_says_what_it_needs(model, monkeypatch, capsys, tmp_path):
    monkeypatch.delenv("LRNN_DATA", raising=False)
    assert main(["eval", "denoise", "--model", model]) == 2
    assert "expected --data DIR" in capsys.readouterr().err
    assert main(["eval", "denoise", "--model", model, "--data", str(tmp_path)]) == 2
    assert "noisy/ and clean/" in capsys.readouterr().err
