"""What docs/lava.md shows works as shown: its commands parse, its scripts run in Lava."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from netx_cases import program

import lrnn
from lrnn.cli import make_parser
from lrnn.export.lava import export
from lrnn.export.netx import verify, whole_stack, write_net

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "lava.md").read_text()
SCRIPTS = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
COMMANDS = re.findall(r"^    lrnn (.*)$", PAGE, flags=re.MULTILINE)
TIME_LIMIT = 120


@pytest.mark.parametrize("line", COMMANDS)
def test_the_commands_are_there(line):
    assert make_parser().parse_args(shlex.split(line, comments=True)).run


def test_the_files_it_names_are_there():
    assert len(COMMANDS) >= 6
    named = re.findall(r"(?:lrnn|experiments)/[\w/.-]+\.(?:py|md|lrnn|flac)", PAGE)
    assert len(set(named)) >= 4
    assert [name for name in named if not (ROOT / name).is_file()] == []


def run_script(python: Path, code: str, folder: Path, path: Path, *saved: str) -> list[np.ndarray]:
    """Arrays that a script of the page has at its end."""
    tail = "".join(f"np.save('{name}.npy', {name})\n" for name in saved)
    (folder / "script.py").write_text(code + tail)
    done = subprocess.run(
        [str(python), "script.py"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(path)},
        capture_output=True,
        text=True,
        timeout=TIME_LIMIT,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return [np.load(folder / f"{name}.npy") for name in saved]


@pytest.mark.lava
def test_the_network_of_a_folder_runs_in_a_script_of_ones_own(lava, tmp_path):
    torch.manual_seed(0)
    config = lrnn.SequenceModelConfig(d_in=5, d_out=4, d_model=6, d_state=8, blocks=2, n_layers=1)
    floats = lrnn.compile(lrnn.SequenceModel(config).eval())
    frames = np.random.default_rng(1).normal(0, 0.3, (40, 5)).astype(np.float32)
    made = lrnn.compile_fixed(floats, lrnn.calibrate(floats, [frames]))
    export(made, tmp_path / "denoiser-lava")
    integers, mask = run_script(lava, SCRIPTS[0], tmp_path, tmp_path / "denoiser-lava", "integers", "mask")
    exponent = made.nodes[0].exponent
    expected = made.stream("numpy").run(np.ldexp(integers.astype(np.float32), -exponent))
    np.testing.assert_array_equal(mask, expected)


@pytest.mark.lava
def test_a_net_file_runs_in_a_script_of_ones_own(lava, tmp_path):
    made = program(12, 20, 8, relu=False)
    write_net(whole_stack(made), tmp_path / "mlp.net")
    x, mask = run_script(lava, SCRIPTS[1], tmp_path, verify.STOCK.parent, "x", "mask")
    expected = made.stream("numpy").run(np.ldexp(x.astype(np.float32), -made.nodes[0].exponent))
    np.testing.assert_array_equal(mask, expected[: len(mask)])


@pytest.mark.lava
def test_with_lavas_own_sigma_delta_model_the_sums_drift(lava, tmp_path):
    """So that the page's reason for the one model that is not stock stays true."""
    made = program(12, 20, 8, relu=False)
    write_net(whole_stack(made), tmp_path / "mlp.net")
    stock = SCRIPTS[1].replace(", exception_proc_model_map={SigmaDelta: WithoutDrift}", "")
    assert stock != SCRIPTS[1]
    x, mask = run_script(lava, stock, tmp_path, verify.STOCK.parent, "x", "mask")
    expected = made.stream("numpy").run(np.ldexp(x.astype(np.float32), -made.nodes[0].exponent))[: len(mask)]
    off = np.abs(mask - expected) * 2.0 ** whole_stack(made).exponent
    assert off[-1].max() > 3
