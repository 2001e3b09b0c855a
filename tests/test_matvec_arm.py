"""The NEON kernels, cross-compiled and run in an emulator where both are installed: exact, as everywhere."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

COMPILER, EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64"
ROOT = Path(__file__).resolve().parents[1]

pytestmark = pytest.mark.skipif(
    not (shutil.which(COMPILER) and shutil.which(EMULATOR)),
    reason=f"needs {COMPILER} and {EMULATOR} (Debian: g++-aarch64-linux-gnu, qemu-user)",
)


@pytest.fixture(scope="module")
def program(tmp_path_factory) -> Path:
    """The matvec core for AArch64 with its check, NEON files with the flags that setup.py gives them."""
    folder = tmp_path_factory.mktemp("arm")
    sources = [p for p in (ROOT / "csrc/core/matvec").glob("*.cpp") if "_avx" not in p.stem]
    objects = []
    for source in [*sources, ROOT / "csrc/core/isa.cpp", ROOT / "tests/matvec_arm.cpp"]:
        objects.append(folder / f"{source.stem}.o")
        flags = ["-march=armv8.2-a+dotprod"] if source.stem.endswith("_neon") else []
        _run(COMPILER, "-std=c++20", "-O2", *flags, "-I", ROOT / "csrc", "-c", source, "-o", objects[-1])
    _run(COMPILER, "-static", *objects, "-o", folder / "check")
    return folder / "check"


@pytest.mark.slow
@pytest.mark.parametrize("isa", ["neon", "scalar"])
def test_integers_are_exact(program, isa):
    found = _run(EMULATOR, "-cpu", "max", program, environment={"LRNN_ISA": isa})
    assert found == f"{isa}: 0 wrong\n"


def _run(*command, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        env={**os.environ, **(environment or {})},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
