"""Exports on Intel's Lava: its fixed-point simulator makes the normative integers, every one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess

import numpy as np
import pytest
from fixed_cases import ranges_of
from lava_cases import random_program

import lrnn
from lrnn.cli import main
from lrnn.data import audio
from lrnn.data.denoiser import Denoiser
from lrnn.export.lava import export
from lrnn.export.lava.folder import sha256
from lrnn.export.lava.vectors import generated_frames
from lrnn.export.lava.verify import verify
from lrnn.models import DEMO_CLIP, DENOISER, DENOISER_FLOAT
from lrnn.program import Program, compile_fixed
from lrnn.program.fixed import nodes as fixed

pytestmark = [pytest.mark.lava, pytest.mark.usefixtures("lava")]
LIMIT = 240  # seconds, where others use the machine too


def agrees(program: Program, folder, frames, resets=None) -> dict:
    """The result of a run in which every integer of every node was compared."""
    record = export(program, folder, frames, resets)
    found = verify(folder, LIMIT)
    assert found["equal"], found["first"]
    inner = program.nodes[1:-1]
    assert found["values"] == len(inner) + 1  # and what leaves the network
    widths = [program.widths[n.name] for n in inner] + [program.widths[record["output"]["value"]]]
    assert found["integers"] == len(frames) * sum(widths)
    return found


@pytest.fixture(scope="module")
def demo() -> np.ndarray:
    """Frames of real sounds, and some that saturate."""
    samples, rate = audio.read(DEMO_CLIP)
    frames = Denoiser.load().features(samples, rate)[200:395]
    return np.concatenate((frames, -frames[:3], frames[:2] * 1e4))


@pytest.mark.parametrize("scheme", ["w8a16", "loihi2"])
def test_the_shipped_denoiser(scheme, demo, tmp_path):
    program = lrnn.load(DENOISER)
    if scheme == "loihi2":
        floats = lrnn.load(DENOISER_FLOAT)
        program = compile_fixed(floats, ranges_of(floats, demo[:60]), scheme)
    found = agrees(program, tmp_path / "out", demo)
    assert (found["steps"], found["latency"]) == (
        200,
        11 if scheme == "w8a16" else 12,
    )  # the input is rescaled
    record = json.loads((tmp_path / "out" / "program.json").read_text())
    beyond = sum(len(s["rows_beyond_24_bits"]) for s in record["checks"]["sums"].values())
    assert (beyond == 0) == (scheme == "loihi2")


@pytest.mark.parametrize("seed", [0, 3, 8, 12])
def test_random_programs_with_resets(seed, tmp_path):
    program = random_program(seed, 20)
    agrees(program, tmp_path / "out", generated_frames(program, 40, seed), resets=[1, 13, 14, 33])


def recurrent(weight: np.ndarray, bias: int, exponent: int = 8) -> Program:
    """Matrix, complex state, matrix, table, gate, residual."""
    rows, cols = weight.shape

    def linear(name, source, weight, shift, **fields):
        n = len(weight)
        return fixed.Linear(
            name,
            (source,),
            weight=weight.astype(np.int8),
            weight_exponent=np.full(n, shift, np.int8),
            bias=np.full(n, bias, np.int32),
            exponent=exponent,
            **fields,
        )

    decay = np.stack((np.full(rows // 2, 0.01), np.linspace(-0.02, 0.02, rows // 2)), 1)
    nodes = (
        fixed.Quantize("x", ("in",), exponent=exponent),
        linear("B", "x", weight, 6, bits=24),
        fixed.Diagonal(
            "h",
            ("B",),
            decay=np.rint(decay * 2**15).astype(np.int16),
            decay_exponent=np.full(rows // 2, 15, np.int8),
            state_exponent=exponent,
            state_bits=24,
            exponent=exponent,
            bits=16,
        ),
        linear("C", "h", weight.T, 6, bits=16),
        fixed.Table(
            "table",
            ("C",),
            table=np.linspace(-32767, 32767, 257).astype(np.int16),
            function="none",
            max_error=0.0,
            exponent=15,
            bits=16,
        ),
        fixed.Product("gate", ("x", "table"), exponent=exponent, bits=24),
        fixed.Add("y", ("gate", "x"), exponent=exponent, bits=24),
        fixed.Dequantize("out", ("y",)),
    )
    return Program("in", cols, nodes, "out")


def test_extremes_and_saturation(tmp_path):
    """The greatest weights and inputs of both signs: states, sums and values at their ends."""
    program = recurrent(np.where(np.arange(96).reshape(12, 8) % 3, 127, -127), 1 << 20)
    signs = np.array([1, -1, 1, 1, 0, -1])[np.arange(60) // 10]
    frames = np.full((60, 8), 1e9, np.float32) * signs[:, None]
    agrees(program, tmp_path / "out", frames)
    with np.load(tmp_path / "out" / "vectors.npz") as golden:
        assert np.abs(golden["values/h"]).max() == 32767
        assert np.abs(golden["values/x"]).max() == 32767


def test_matrices_without_weights(tmp_path):
    """A bias alone drives the state, from the frame that is the first."""
    program = recurrent(np.zeros((6, 4)), 900)
    agrees(program, tmp_path / "out", generated_frames(program, 30), resets=[11])


def test_a_folder_verifies_itself_without_lrnn(lava, tmp_path):
    """By the copy of the executor that it holds."""
    export(recurrent(np.ones((4, 4)), 5), tmp_path / "out", resets=[3])
    done = subprocess.run(
        [lava, "-m", "lrnn_lava", "."],
        cwd=tmp_path / "out",
        env={name: value for name, value in os.environ.items() if not name.startswith("PYTHON")},
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["equal"] is True


def test_a_thousand_steps(tmp_path):
    random = np.random.default_rng(5)
    weight = random.integers(-127, 128, (16, 10)) * (random.random((16, 10)) < 0.2)
    program = recurrent(weight, 77)
    found = agrees(program, tmp_path / "out", generated_frames(program, 1000))
    assert found["steps"] == 1000


def test_the_first_difference_is_named(tmp_path, capsys):
    """And damage, and a limit."""
    folder = tmp_path / "out"
    program = recurrent(np.ones((4, 4)), 5)
    record = export(program, folder, generated_frames(program, 20))
    arrays = dict(np.load(folder / "vectors.npz"))
    arrays["values/h"][17, 1] += 1
    arrays["values/C"][9, 3] -= 2
    expected = int(arrays["values/C"][9, 3])
    np.savez(folder / "vectors.npz", **arrays)
    assert main(["export", "lava", "--verify-only", str(folder)]) == 2
    assert "vectors.npz: its SHA-256 is" in capsys.readouterr().err
    record["files"]["vectors.npz"] = sha256(folder / "vectors.npz")
    (folder / "program.json").write_text(json.dumps(record))
    assert main(["export", "lava", "--verify-only", str(folder), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)["verified"]
    first = {"node": "C", "step": 9, "index": 3, "expected": expected, "found": expected + 2}
    assert (found["equal"], found["first"]) == (False, first)
    assert main(["export", "lava", "--verify-only", str(folder), "--limit", "0.1"]) == 2
    assert "not verified in 0.1 s" in capsys.readouterr().err
    shutil.rmtree(folder)
    assert main(["export", "lava", "--verify-only", str(folder)]) == 2
    assert "program.json" in capsys.readouterr().err
