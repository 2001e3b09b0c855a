"""`lrnn profile --target loihi2`: what it prints, draws and refuses."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from test_profile_fixed import make_float

from lrnn.cli import main
from lrnn.models import DEMO_CLIP


@pytest.fixture
def program(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_float(density=0.4).save("m.lrnn")
    np.save("x.npy", np.random.default_rng(0).standard_normal((30, 5)).astype(np.float32))
    return "m.lrnn"


def test_the_shipped_denoiser_on_the_demos_clip(capsys):
    assert main(["profile", "--target", "loihi2"]) == 0
    text = capsys.readouterr().out
    assert "estimate, not a measurement" in text
    assert "frames of the demo's clip" in text
    assert "Baseline SDNN" in text
    assert "fall-through" in text
    assert max(map(len, text.splitlines())) <= 120


def test_json_says_what_activity_was_measured_on(capsys):
    assert main(["profile", "--target", "loihi2", "--data", str(DEMO_CLIP), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["activity"].endswith(f"frames of {DEMO_CLIP}")
    assert found["ndns"]["latency_ms"] > 32
    power = found["ndns"]["power_proxy_ops_per_second"]
    assert power == pytest.approx((found["synops"] + 10 * found["neurons"]) / 0.008)
    assert found["ndns"]["pdp_proxy_ops"] == pytest.approx(power * found["ndns"]["latency_ms"] / 1e3)
    assert all(0 < share < 1 for share in [found["neurobench"]["activation_sparsity"]])


def test_a_program_without_data_is_the_worst_case(program, capsys):
    assert main(["profile", program, "--target", "loihi2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["activity"].startswith("worst case")
    assert found["ndns"] is None
    assert found["neurobench"]["activation_sparsity"] is None
    assert found["synops"] == found["synapses"]
    assert any("8-bit weights" in note for note in found["assumptions"])


def test_a_program_on_frames(program, capsys):
    assert main(["profile", program, "--target", "loihi2", "--data", "x.npy"]) == 0
    text = capsys.readouterr().out
    assert "on 30 frames of x.npy" in text
    assert "N-DNS" not in text


def test_the_picture_has_a_tile_for_every_core(program, tmp_path, capsys):
    assert main(["profile", program, "--target", "loihi2", "--plot", "p.svg", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    text = (tmp_path / "p.svg").read_text()
    chips = sum(found["chips"][end] * per_chip for end, per_chip in enumerate((128, 120)))
    fastest = found["spread"]["placement"]["packed"]
    tiles = sum(map(len, found["placement"].values())) + chips + len(fastest) + 128
    assert text.count("stroke: #8a8a8a") == tiles


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_the_picture(program, tmp_path, suffix, capsys):
    assert main(["profile", program, "--target", "loihi2", "--plot", f"p.{suffix}"]) == 0
    assert (tmp_path / f"p.{suffix}").stat().st_size > 1000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--float", "m.lrnn"], "--float is m.lrnn, but --target estimates no noise"),
        (["--data", "none.npy"], "none.npy"),
        (["--plot", "p.xyz"], "p.xyz"),
    ],
)
def test_errors_are_one_line_that_names_what_is_wrong(program, arguments, message, capsys):
    assert main(["profile", program, "--target", "loihi2", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


def test_without_yaml_the_error_names_the_extra(program, tmp_path):
    code = (
        "import sys; sys.modules['yaml'] = None; from lrnn.cli import main; "
        "sys.exit(main(['profile', 'm.lrnn', '--target', 'loihi2']))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert "pip install 'lrnn[loihi]'" in done.stderr


def test_profiling_without_a_target_reads_no_yaml(program, tmp_path):
    code = (
        "import sys; sys.modules['yaml'] = None; from lrnn.cli import main; "
        "sys.exit(main(['profile', 'm.lrnn']))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
