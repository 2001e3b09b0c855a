"""The code for AArch64, cross-compiled and run in an emulator where both are installed: right there too."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
from fixed_cases import ranges_of
from test_fixed_engine import frames, network
from test_fixed_hgrn import tokens

import lrnn
from lrnn.data import audio
from lrnn.engine.native_nodes import call_of
from lrnn.models import DEMO_CLIP
from lrnn.program import Program, compile_fixed

COMPILER, EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64"
ROOT = Path(__file__).resolve().parents[1]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (shutil.which(COMPILER) and shutil.which(EMULATOR)),
        reason=f"needs {COMPILER} and {EMULATOR} (Debian: g++-aarch64-linux-gnu, qemu-user)",
    ),
]


@pytest.fixture(scope="module")
def binary(tmp_path_factory):
    """Programs for AArch64 by the name of their main file, with the core in them."""
    folder = tmp_path_factory.mktemp("arm")
    parts = ("matvec", "engine", "spmm")
    sources = [p for part in parts for p in (ROOT / "csrc/core" / part).glob("*.cpp") if "_avx" not in p.stem]
    objects = [_compiled(source, folder) for source in [*sources, ROOT / "csrc/core/isa.cpp"]]

    def linked(name: str) -> Path:
        main = _compiled(ROOT / f"tests/{name}.cpp", folder)
        _run(COMPILER, "-static", main, *objects, "-o", folder / name)
        return folder / name

    return linked


@pytest.mark.parametrize("isa", ["neon", "scalar"])
def test_products_of_integers_are_exact(binary, isa):
    found = _run(EMULATOR, "-cpu", "max", binary("matvec_arm"), environment={"LRNN_ISA": isa})
    assert found == f"{isa}: 0 wrong\n"


def test_programs_in_fixed_point_are_exact(binary, tmp_path):
    """To the bit what the numpy executor makes, saturation included, of every kind of node."""
    run = binary("engine_arm")
    for i, (program, x) in enumerate(_programs()):
        expected = program.stream("numpy").run(x)
        _write(program, x, tmp_path / f"{i}.in")
        _run(EMULATOR, "-cpu", "max", run, tmp_path / f"{i}.in", tmp_path / f"{i}.out")
        found = np.fromfile(tmp_path / f"{i}.out", np.float32).reshape(expected.shape)
        assert np.array_equal(found, expected), i


@pytest.mark.parametrize("kind", ["real", "complex"])
@pytest.mark.parametrize("relu", ["none", "all"])
def test_hgrns_in_float(binary, tmp_path, kind, relu):
    """From tokens on, step by step and in tiles, as near to the numpy executor as on other machines."""
    program, x = tokens(kind=kind, relu=relu), np.random.default_rng(0).integers(0, 11, (150, 1))
    expected = program.stream("numpy").run(x)
    _write(program, x, tmp_path / "in")
    for tiles in ([], ["tiles"]):
        _run(EMULATOR, "-cpu", "max", binary("engine_arm"), tmp_path / "in", tmp_path / "out", *tiles)
        found = np.fromfile(tmp_path / "out", np.float32).reshape(expected.shape)
        assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


def _programs():
    x = np.concatenate((frames(0, 30), frames(1, 10, scale=1e3), frames(2, 20)))
    for options, scheme in (
        ({"relu": "pair", "norm": "layer"}, "w8a16"),
        ({"relu": "none"}, "w8a8"),
        ({"head": "classification"}, "w16a16"),
        ({"relu": "parts"}, "loihi2"),
    ):
        program = lrnn.compile(network(**options))
        yield compile_fixed(program, ranges_of(program, x[:30]), scheme), x
    for kind, relu in (("real", "none"), ("complex", "gates")):
        program, x = tokens(kind=kind, relu=relu), np.random.default_rng(0).integers(0, 11, (60, 1))
        yield compile_fixed(program, ranges_of(program, x), "w8a16"), x.astype(np.float32)
    denoiser = lrnn.Denoiser.load()
    yield denoiser.program, denoiser.features(*audio.read(DEMO_CLIP))[:40]


def _write(program: Program, x: np.ndarray, path: Path) -> None:
    """The calls that build the engine, and the frames, as engine_arm.cpp reads them."""
    ids, calls = {program.input: 0}, []
    for node in program.nodes:
        name, arguments = call_of(node, tuple(program.formats[i] for i in node.inputs))
        calls.append((name.encode(), [*(ids[i] for i in node.inputs), *arguments]))
        ids[node.name] = len(ids)
    parts = [_number(program.input_width), _number(len(calls))]
    for name, arguments in calls:
        parts += [_bytes(name), _number(len(arguments))]
        for value in arguments:
            is_number = isinstance(value, int)
            parts += [_number(not is_number), _number(value) if is_number else _bytes(_array(value))]
    path.write_bytes(b"".join([*parts, _bytes(np.ascontiguousarray(x, np.float32).tobytes())]))


def _array(value) -> bytes:
    """Of an array, a structure, a float or nothing."""
    if isinstance(value, float):
        return struct.pack("<f", value)
    return b"" if value is None else bytes(value)


def _number(value: int) -> bytes:
    return struct.pack("<q", value)


def _bytes(value: bytes) -> bytes:
    return _number(len(value)) + value


def _compiled(source: Path, folder: Path) -> Path:
    flags = ["-march=armv8.2-a+dotprod"] if source.stem.endswith("_neon") else []
    target = folder / f"{source.parent.name}-{source.stem}.o"
    _run(COMPILER, "-std=c++20", "-O2", "-w", *flags, "-I", ROOT / "csrc", "-c", source, "-o", target)
    return target


def _run(*command, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        env={**os.environ, **(environment or {})},
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout
