"""`lrnn eval denoise`: figures, clips that fail, and runs that are broken off and go on."""

from __future__ import annotations

import io
import json
import math
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from eval_cases import RATE, make_folder, make_model, put_clip

from lrnn.cli import main
from lrnn.cli.console import progress
from lrnn.cli.eval import _text
from lrnn.data.bootstrap import intervals
from lrnn.data.denoiser import Denoiser
from lrnn.data.evaluate import Evaluation, score_clip, scores
from lrnn.data.figures import FIGURES, METRICS, Scorer, checked_metrics
from lrnn.data.metrics import si_snr
from lrnn.data.ndns import Clip, ClipInfo, NdnsFolder
from lrnn.data.score_file import ScoreFile
from lrnn.data.summary import Score, by_snr, summary

pytest.importorskip("soundfile")
pytest.importorskip("soxr")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return make_model(tmp_path_factory.mktemp("model") / "m.lrnn")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return make_folder(tmp_path_factory.mktemp("data"), clips=8)


def evaluate(folder, model, *argv) -> int:
    return main(["eval", "denoise", "--data", str(folder), "--model", str(model), *map(str, argv)])


def strict_json(text: str) -> dict:
    """NaN and Infinity are no JSON."""
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} in the JSON"))


# Figures


@pytest.mark.filterwarnings("ignore:Not enough STFT frames")
def test_figures_are_the_metrics_own(folder, model, capsys):
    """Mean, pairs and intervals made here from the clips."""
    stoi = pytest.importorskip("pystoi").stoi
    assert evaluate(folder, model, "--metrics", "stoi", "--jobs", 0, "--json") == 0
    report = strict_json(capsys.readouterr().out)
    denoiser, clips = Denoiser.load(model), NdnsFolder(folder)
    rows = []
    for noisy, clean, _ in (clips[i] for i in range(len(clips))):
        estimate = denoiser.offline(noisy)
        rows.append(
            [si_snr(x, clean).item() for x in (noisy, estimate)]
            + [stoi(clean.double().numpy(), x.double().numpy(), RATE, True) for x in (noisy, estimate)]
        )
    rows = np.array(rows)
    spoken = (rows[:, 2:] != 1e-5).all(1)  # pystoi's word for too little speech
    assert 5 < spoken.sum() < 8
    assert report["metrics"] == ["si_snr", "stoi"]
    assert set(report["figures"]) == {"si_snr", "stoi", "estoi"}
    for name, (before, after) in {"si_snr": (0, 1), "estoi": (2, 3)}.items():
        found = report["figures"][name]
        chosen = rows if name == "si_snr" else rows[spoken]
        assert found["clips"] == len(chosen)
        columns = np.column_stack((chosen[:, before], chosen[:, after], chosen[:, after] - chosen[:, before]))
        for side, expected in zip(("noisy", "denoised", "improvement"), intervals(columns), strict=True):
            assert list(found[side].values()) == pytest.approx(expected, abs=1e-5)
    assert report["si_snri"] == report["figures"]["si_snr"]["improvement"]["mean"]


def test_bands_are_of_the_mixing_snr():
    def score(snr, before, after):
        return Score(f"at {snr}", snr, {"si_snr": before}, {"si_snr": after}, 0.0)

    found = [score(-5, 0, 1), score(-1, 0, 3), score(20, 5, 5.5), score(math.nan, 0, 90), score(31, 0, 90)]
    bands = by_snr([*found, Score("failed", 7.0, problem="unreadable")])
    assert [(b["snr"], b["clips"], b["si_snri"]) for b in bands] == [("-5 to 0", 2, 2), ("15 to 20", 1, 0.5)]
    assert bands[0]["figures"]["si_snr"]["improvement"] == {"mean": 2, "low": 1, "high": 3}
    assert summary(found)["clips"] == 5


def test_means_are_over_clips_that_have_the_figure_on_both_sides():
    nan = math.nan
    found = [
        Score("a", 0, {"si_snr": 0.0, "pesq": 1.0}, {"si_snr": 4.0, "pesq": 2.0}, 1.0),
        Score("b", 0, {"si_snr": 2.0, "pesq": 3.0}, {"si_snr": 1.0, "pesq": nan}, nan, "denoised: pesq: ..."),
        Score("c", 0, problem="c.wav: not an audio file"),
    ]
    total = summary(found)
    assert (total["clips"], total["failed"], total["worse"]) == (2, 1, 1)
    assert (total["noisy_si_snr"], total["si_snr"], total["gain"]) == (1.0, 2.5, 1.0)
    assert total["figures"]["pesq"]["clips"] == 1
    assert total["figures"]["pesq"]["noisy"]["mean"] == 1.0
    assert summary(found[2:])["si_snr"] is None
    assert summary(found[1:2])["figures"]["pesq"] is None


def test_the_library_scores_clips_as_the_command_does(folder, model):
    clips = NdnsFolder(folder)
    found = list(scores(Denoiser.load(model), (clips[i] for i in range(3))))
    assert found == list(Evaluation(folder, model).run())[:3]


def test_names_of_metrics():
    assert checked_metrics(["stoi"]) == ("si_snr", "stoi")
    assert checked_metrics(["all", "pesq"]) == tuple(METRICS)
    assert {f for m in METRICS.values() for f in m} == set(FIGURES)
    with pytest.raises(ValueError, match="'peaq', expected some of si_snr, pesq, stoi, dnsmos, or all"):
        checked_metrics(["si_snr", "peaq"])


# Clips at the edge


def score(noisy, clean, model, metrics=("si_snr", "stoi", "pesq")) -> Score:
    pytest.importorskip("pystoi")
    pytest.importorskip("pesq", reason="pesq is built from source: needs a C compiler")
    clip = Clip(torch.as_tensor(noisy), torch.as_tensor(clean), ClipInfo(0, 0.0, 0.0, "x"))
    return score_clip(Denoiser.load(model), clip, Scorer(metrics))


@pytest.fixture(scope="module")
def pair(folder) -> tuple[torch.Tensor, torch.Tensor]:
    return NdnsFolder(folder)[5][:2]


@pytest.mark.parametrize("samples", [2, 127, 128, 513, 3999])
def test_short_clips_have_an_si_snr_and_no_more(pair, model, samples):
    found = score(*(x[8000 : 8000 + samples] for x in pair), model)
    assert math.isfinite(found.denoised["si_snr"])
    assert math.isnan(found.denoised["pesq"])
    assert math.isnan(found.denoised["stoi"])
    assert "0.4 s" in found.problem
    assert "1/4 of a second" in found.problem


def test_nothing_at_all_and_silent_clean_speech_are_failures(pair, model):
    with pytest.raises(ValueError, match="no samples"):
        score(pair[0][:0], pair[1][:0], model)
    with pytest.raises(ValueError, match="clean is silent"):
        score(pair[0], torch.zeros_like(pair[1]), model)
    with pytest.raises(ValueError, match="clean is silent"):
        score(pair[0][:1], pair[1][:1], model)


def test_a_silent_input_and_so_a_silent_estimate(pair, model):
    """SI-SNR 0 dB, STOI and ESTOI 0, no PESQ; the mean of figures has no NaN."""
    found = score(torch.zeros_like(pair[0]), pair[1], model)
    assert found.noisy["si_snr"] == found.denoised["si_snr"] == pytest.approx(0, abs=0.1)
    assert found.denoised["stoi"] == found.denoised["estoi"] == 0
    assert math.isnan(found.denoised["pesq"])
    assert found.problem == "pesq: the estimate is silent"
    assert "NaN" not in json.dumps(summary([found]))


def test_clipping_and_offsets_are_measured(pair, model):
    for noisy in (torch.clamp(50 * pair[0], -1, 1), pair[0] + 0.4):
        found = score(noisy, pair[1], model)
        assert all(map(math.isfinite, (*found.noisy.values(), *found.denoised.values())))
        assert found.problem == ""


def test_an_estimate_that_is_not_finite_is_a_failure(pair, model, monkeypatch):
    monkeypatch.setattr(Denoiser, "offline", lambda self, audio: audio * torch.nan)
    with pytest.raises(ValueError, match="denoised has NaN"):
        score(*pair, model)


@pytest.fixture
def hurt(tmp_path) -> Path:
    """Seven clips of which 1 is no sound, 2 has NaN, 3 unequal lengths, 4 silent clean, 5 is short."""
    folder = make_folder(tmp_path / "hurt", clips=7)
    noisy, clean = NdnsFolder(folder)[0][:2]
    (folder / "noisy" / "x_snr0_tl-20_fileid_1.wav").write_bytes(b"RIFF, or not")
    broken = noisy.clone()
    broken[77] = torch.nan
    put_clip(folder, 2, 5, broken.numpy(), clean.numpy())
    put_clip(folder, 3, 10, noisy.numpy(), clean[:-1].numpy())
    put_clip(folder, 4, 15, noisy.numpy(), 0 * clean.numpy())
    put_clip(folder, 5, 20, noisy[8000:9000].numpy(), clean[8000:9000].numpy())
    return folder


def test_clips_that_fail_are_named_and_the_rest_is_scored(hurt, model, tmp_path, capsys):
    pytest.importorskip("pystoi")
    csv = tmp_path / "s.csv"
    argv = ("--metrics", "stoi", "--jobs", 0, "--csv", csv)
    assert evaluate(hurt, model, *argv, "--json") == 1
    out, err = capsys.readouterr()
    report = strict_json(out)
    assert (report["clips"], report["failed"]) == (3, 4)
    assert report["figures"]["si_snr"]["clips"] == 3
    assert report["figures"]["stoi"]["clips"] == 2
    problems = {int(re.search(r"fileid_(\d)", p["name"])[1]): p["problem"] for p in report["problems"]}
    assert list(problems) == [1, 2, 3, 4, 5]
    for file_id, words in {1: "fileid_1.wav", 2: "NaN", 3: "15999 samples", 4: "silent", 5: "0.4 s"}.items():
        assert words in problems[file_id]
    assert err.count("not scored: ") == 4
    assert err.count("lrnn: warning: ") == 5
    for _ in range(2):  # as told by the file alone
        assert evaluate(hurt, model, *argv, "--json") == 1
        assert strict_json(capsys.readouterr().out) == report
    assert evaluate(hurt, model, *argv) == 1
    assert "3 clips, 4 not scored: SI-SNR" in capsys.readouterr().out


def test_where_no_clip_can_be_scored_the_first_reason_is_the_error(tmp_path, model, capsys):
    put_clip(tmp_path, 0, 0, np.ones(800, np.float32), np.zeros(800, np.float32))
    assert evaluate(tmp_path, model, "--jobs", 0) == 2
    assert "no clip could be scored; x_snr0_tl-20_fileid_0: clean is silent" in capsys.readouterr().err


# Runs that are broken off


def test_any_number_of_processes_and_breaks_makes_the_same_file(folder, model, tmp_path, capsys):
    """Killed for good while rows are written, and gone on with by another number of processes."""
    whole, broken = tmp_path / "whole.csv", tmp_path / "broken.csv"
    assert evaluate(folder, model, "--csv", whole, "--jobs", 0, "--json") == 0
    expected = capsys.readouterr().out
    command = [sys.executable, "-m", "lrnn.cli", "eval", "denoise", "--data", folder, "--model", model]
    run = subprocess.Popen([*command, "--csv", broken, "--jobs", "2"], stdout=subprocess.DEVNULL)
    while not broken.exists() or broken.read_bytes().count(b"\n") < 4:
        assert run.poll() is None, "it ended before two clips were scored"
        time.sleep(0.002)
    run.send_signal(signal.SIGKILL)
    run.wait()
    rows = broken.read_bytes()
    assert whole.read_bytes().startswith(rows)
    broken.write_bytes(rows[:-5])  # and as if the last row had been half written
    assert evaluate(folder, model, "--csv", broken, "--jobs", 1, "--json") == 0
    assert capsys.readouterr().out == expected
    assert broken.read_bytes() == whole.read_bytes()


def test_a_finished_file_is_read_not_made_again(folder, model, tmp_path, capsys, monkeypatch):
    argv = ("--csv", tmp_path / "s.csv", "--jobs", 0, "--json")
    assert evaluate(folder, model, *argv) == 0
    first = capsys.readouterr().out
    monkeypatch.setattr(Evaluation, "start", lambda self: pytest.fail("scored again"))
    assert evaluate(folder, model, *argv) == 0
    assert capsys.readouterr().out == first


def test_a_file_of_something_else_is_refused(folder, model, tmp_path, capsys):
    csv = tmp_path / "s.csv"
    assert evaluate(folder, model, "--csv", csv, "--jobs", 0) == 0
    before = csv.read_bytes()
    another_model = make_model(tmp_path / "other.lrnn", seed=1)
    another_folder = make_folder(tmp_path / "other", clips=8, seconds=0.5)
    for changed, word in (
        ((folder, another_model), "model"),
        ((another_folder, model), "data"),
        ((folder, model, "--engine", "numpy"), "engine"),
    ):
        assert evaluate(*changed, "--csv", csv, "--jobs", 0) == 2
        assert f"holds scores with {word} " in capsys.readouterr().err
        assert csv.read_bytes() == before
    assert evaluate(folder, another_model, "--csv", csv, "--jobs", 0, "--overwrite") == 0
    assert csv.read_bytes() != before


def test_rows_of_other_clips_are_refused(folder, model, tmp_path):
    evaluation = Evaluation(folder, model)
    file = ScoreFile(tmp_path / "s.csv", evaluation.header(), evaluation.figures)
    file.append(Score("another", 0.0, {"si_snr": 0.0}, {"si_snr": 0.0}))
    with pytest.raises(ValueError, match="rows are not of the clips"):
        next(evaluation.run(0, file))


# What is missing


def test_missing_models_and_packages_are_errors_before_anything_is_scored(
    folder, model, tmp_path, capsys, monkeypatch
):
    monkeypatch.delenv("LRNN_DNSMOS", raising=False)
    csv = tmp_path / "s.csv"
    assert evaluate(folder, model, "--metrics", "dnsmos", "--csv", csv) == 2
    assert "expected --dnsmos DIR or LRNN_DNSMOS" in capsys.readouterr().err
    assert evaluate(folder, model, "--metrics", "dnsmos", "--dnsmos", tmp_path, "--csv", csv) == 2
    assert "sig_bak_ovr.onnx: no such file" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "pesq", None)
    assert evaluate(folder, model, "--metrics", "pesq", "--csv", csv) == 2
    assert "pip install 'lrnn[eval]'" in capsys.readouterr().err
    assert evaluate(folder, model, "--jobs", -1, "--csv", csv) == 2
    assert "--jobs is -1" in capsys.readouterr().err
    assert evaluate(folder, model, "--overwrite") == 2
    assert "expected --csv FILE" in capsys.readouterr().err
    assert not csv.exists()


# What people see


def made_up(clips: int) -> list[Score]:
    rng = np.random.default_rng(0)
    return [
        Score(
            f"clip {i}",
            float(rng.integers(-5, 21)),
            dict(zip(FIGURES, rng.normal(2, 1, len(FIGURES)), strict=True)),
            dict(zip(FIGURES, rng.normal(3, 1, len(FIGURES)), strict=True)),
            0.0,
        )
        for i in range(clips)
    ]


def test_the_bar_counts_what_a_file_held_but_not_its_time(monkeypatch):
    """60 of 100 were there; each of the others takes a second."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    seconds = iter([0, *[0] * 60, *range(41)])  # at the beginning, at each item and at the end
    monkeypatch.setattr("lrnn.cli.console.time", SimpleNamespace(monotonic=lambda: next(seconds)))
    assert list(progress(range(100), 100, "eval", done=60)) == list(range(100))
    bars = [bar.rstrip() for bar in terminal.getvalue().split("\r")[1:]]
    assert bars[0].endswith("63/100 37 s left")
    assert bars[-1].endswith("█ 100/100 0 s left")


def test_the_text_is_aligned_and_no_wider_than_100():
    found = made_up(30)
    text = _text(summary(found), by_snr(found))
    assert max(map(len, text.splitlines())) <= 100
    assert all(figure.label in text for figure in FIGURES.values())
    for block in text.split("\n\n")[1:]:
        assert len({len(line) for line in block.splitlines()}) == 1


def test_the_picture_is_written_whole(tmp_path):
    pytest.importorskip("matplotlib")
    from lrnn.profile.plot_scores import plot_scores

    found = made_up(30)
    found.append(Score("failed", 3.0, problem="unreadable"))
    plot_scores(found, by_snr(found), tmp_path / "p.png")
    assert [p.name for p in tmp_path.iterdir()] == ["p.png"]
    with pytest.raises(ValueError, match="nothing to draw"):
        plot_scores(found[-1:], [], tmp_path / "q.png")
