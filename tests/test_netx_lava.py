"""Stock lava-dl netx loads and runs what lrnn.export.netx writes, and makes its integers bit for bit."""

from __future__ import annotations

import json

import numpy as np
import pytest
from netx_cases import frames, integers, mlp, program, stack, two_branches

import lrnn
from lrnn.cli import main
from lrnn.export.netx import (
    Stack,
    program_integers,
    read_net,
    verify_nets,
    verify_segments,
    whole_stack,
    write_net,
)

pytestmark = pytest.mark.lava


def signed(rows: int, cols: int, seed: int, most: int = 127) -> np.ndarray:
    return np.random.default_rng(seed).integers(-most, most, (rows, cols), endpoint=True)


def biases(rows: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(-300, 300, rows)


STACKS = {
    "signed": lambda: stack(signed(9, 6, 0), signed(5, 9, 1), biases=[biases(9, 2), biases(5, 3)]),
    "all weights at their ends": lambda: stack(127 * np.sign(signed(6, 8, 4)), bits=16),
    "weights of one bit": lambda: stack(np.sign(signed(6, 8, 5)), bits=16),
    "positive": lambda: stack(np.abs(signed(6, 8, 6, 126)) + 1),
    "positive and zero": lambda: stack(np.maximum(signed(6, 8, 7), 0)),
    "negative": lambda: stack(-np.abs(signed(6, 8, 8, 126)) - 1, biases=[np.full(6, 50_000)]),
    "negative and zero": lambda: stack(np.minimum(signed(6, 8, 9), 0), biases=[np.full(6, 50_000)]),
    "odd and negative": lambda: stack(np.minimum(signed(6, 8, 10), 0) | 1, biases=[np.full(6, 50_000)]),
    "one weight": lambda: stack(np.eye(1, 12, 5).repeat(4, 0) * [[1], [0], [-1], [0]]),
    "one row": lambda: stack(signed(1, 7, 11), signed(4, 1, 12)),
    "empty rows and columns": lambda: stack(
        signed(6, 6, 13) * np.outer([1, 0, 1, 1, 0, 1], [0, 1, 1, 0, 1, 1]), biases=[biases(6, 14)]
    ),
    "no sign": lambda: stack(signed(6, 8, 15), low=0),
    "four layers": lambda: stack(*[signed(8, 8, n, 40) for n in range(4)], bits=10),
}


def assert_equal(cases: dict[str, tuple[Stack, np.ndarray]], folder, python) -> None:
    """All in one process of netx; verify_nets raises where an integer differs."""
    paths = {name: folder / f"{n}.net" for n, name in enumerate(cases)}
    for name, (of, _) in cases.items():
        write_net(of, paths[name])
    made = verify_nets([(paths[name], x) for name, (_, x) in cases.items()], python)
    for (of, x), y in zip(cases.values(), made, strict=True):
        np.testing.assert_array_equal(y, of.run(x))


def test_integers_are_those_of_the_reference(lava, tmp_path):
    assert_equal({name: (make(), integers(make(), 16)) for name, make in STACKS.items()}, tmp_path, lava)


def test_programs_run_and_their_sums_do_not_drift(lava, tmp_path):
    """Released lava-nc's own sigma-delta model is up to 99 off after 60 steps of such a network."""
    cases = {}
    for relu, density in ((True, 0.3), (False, 1.0)):
        made = program(12, 20, 8, relu=relu, density=density)
        found = whole_stack(made)
        x, y = program_integers(made, found, frames(12, 120))
        np.testing.assert_array_equal(found.run(x), y)
        cases[f"{relu}"] = (found, x)
    deep = program(16, 24, 24, 24, 24, 4, relu=False)
    found = whole_stack(deep)
    assert len(found.layers) > 5  # some only shift
    cases["deep"] = (found, program_integers(deep, found, 2 * frames(16, 40))[0])
    worst = whole_stack(program(20, 30, 12, relu=False))
    signs = np.sign(worst.layers[0].weight.astype(int))
    cases["worst frames"] = (worst, worst.input.high * np.concatenate([signs, -signs, signs]))
    assert_equal(cases, tmp_path, lava)


def test_a_file_that_says_something_else_is_found_out(lava, tmp_path):
    h5py = pytest.importorskip("h5py")
    found = stack(signed(6, 8, 0))
    write_net(found, tmp_path / "m.net")
    x = integers(found)
    python = tmp_path / "python"  # changes the file that netx loads, behind the back of the reference
    changed = tmp_path / "changed.net"
    write_net(found, changed)
    with h5py.File(changed, "a") as file:
        file["layer/1/bias"][3] += 1
    python.write_text(f'#!/bin/sh\nexec {lava} "$1" "$2" {changed} "$4" "$5"\n')
    python.chmod(0o755)
    with pytest.raises(RuntimeError, match=r"m.net with dense synapses: .* first at frame \d+, output 3"):
        verify_nets([(tmp_path / "m.net", x)], python)


def test_the_segments_of_an_export_run_on_the_integers_of_their_program(lava, tmp_path, capsys):
    made = two_branches()
    made.save(tmp_path / "m.lrnn")
    out = tmp_path / "out"
    argv = ["export", "lava", str(tmp_path / "m.lrnn"), "-o", str(out), "--steps", "20", "--verify", "--json"]
    assert main(argv) == 0
    verified = json.loads(capsys.readouterr().out)["verified"]
    assert verified["equal"]
    assert verified["netx_integers"] == 2 * 20 * (8 + 4 + 4 + 4)
    with np.load(out / "vectors.npz", allow_pickle=False) as vectors:
        values = {name.removeprefix("values/"): vectors[name] for name in vectors.files}
    values["left.relu"][7, 2] += 1
    with pytest.raises(RuntimeError, match=r"segment-1.net beside the program: 1 of .* frame 7, output 2"):
        verify_segments(out / "netx_segments", values, lava)


def test_a_matrix_of_zeros_is_what_netx_cannot_load(lava, tmp_path):
    """So that the refusal of such a layer stays true."""
    found = stack(np.zeros((3, 4)))
    write_net(found, tmp_path / "m.net")
    with pytest.raises(RuntimeError, match="netx failed: OverflowError"):
        verify_nets([(tmp_path / "m.net", integers(found))], lava)


def test_a_simulation_that_takes_too_long_is_ended(lava, tmp_path):
    found = stack(signed(3, 4, 0))
    write_net(found, tmp_path / "m.net")
    with pytest.raises(RuntimeError, match=r"longer than 0.1 s"):
        verify_nets([(tmp_path / "m.net", integers(found))], lava, timeout=0.1)


def test_the_command_verifies(lava, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    lrnn.compile(mlp(6, 8, 5, relu=False)).save("m.lrnn")
    np.save("x.npy", frames(6))
    assert main(["quantize", "m.lrnn", "-o", "q.lrnn", "--scheme", "netx", "--calibrate", "x.npy"]) == 0
    capsys.readouterr()
    argv = ["export", "netx", "q.lrnn", "-o", "m.net", "--verify", "--data", "x.npy", "--json"]
    assert main(argv) == 0
    assert json.loads(capsys.readouterr().out)["verified"] == {"frames": 40, "integers": 2 * 40 * 5}
    assert len(read_net("m.net").layers) == 2
