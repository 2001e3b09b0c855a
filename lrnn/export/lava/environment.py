"""The Python that has Lava: found, or built. Needs nothing but the standard library, so that it also runs as
a script: `python environment.py FOLDER` builds one there.

Lava's last releases (lava-nc 0.10, lava-dl 0.6) want Python 3.10 and numpy 1; they never share an environment
with lrnn. lava-dl's own requirements name torch and more, which its netx and lava-nc do without.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

VARIABLE = "LRNN_LAVA"  # the Python of an environment that has Lava
PYTHON_VARIABLE = "LRNN_LAVA_PYTHON"  # a Python 3.10 to build one with
LAVA = ("lava-nc==0.10.0", "lava-dl==0.6.0")
REQUIREMENTS = (
    "numpy==1.26.4",
    "scipy==1.15.3",
    "networkx==2.8.7",
    "asteval==1.0.10",
    "cloudpickle==3.1.3",
    "h5py==3.16.0",
    "scikit-learn==1.7.2",
)
_MARK = "lrnn-lava.txt"  # written last: an environment without it is unfinished
_CHECKOUT = Path(__file__).resolve().parents[3] / ".venv-lava"
_TOO_OLD = "expected Python 3.10"


def find_lava() -> Path | None:
    """The Python of an environment that has Lava, None where there is none: $LRNN_LAVA, else that of
    `make lava`, else that of `default_folder`.

    Raises:
        FileNotFoundError: $LRNN_LAVA names no file.
    """
    named = os.environ.get(VARIABLE)
    if named:
        if not Path(named).is_file():
            raise FileNotFoundError(f"{VARIABLE} is {named}, expected the Python of an environment with Lava")
        return Path(named)
    for folder in (_CHECKOUT, default_folder()):
        if _is_complete(folder):
            return _python_of(folder)
    return None


def default_folder() -> Path:
    """Where an environment lies that belongs to no checkout: in the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "lrnn" / "lava"


def find_python310() -> Path:
    """A Python 3.10: $LRNN_LAVA_PYTHON, else this one, `python3.10` or one of pyenv's.

    Raises:
        FileNotFoundError: there is none; says where it was looked for.
    """
    named = os.environ.get(PYTHON_VARIABLE)
    if named:
        if not _is_python310(named):
            raise FileNotFoundError(f"{PYTHON_VARIABLE} is {named}, {_TOO_OLD} with its venv module")
        return Path(named)
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    candidates = [sys.executable, shutil.which("python3.10"), *sorted(pyenv.glob("3.10*/bin/python"))]
    for candidate in candidates:
        if candidate and _is_python310(candidate):
            return Path(candidate)
    raise FileNotFoundError(
        f"no Python 3.10 found as python3.10 on the PATH or in {pyenv}: Lava needs it. Name one with "
        f"{PYTHON_VARIABLE}"
    )


def build(folder: str | os.PathLike) -> Path:
    """Build an environment with Lava, unless it is there; returns its Python.

    Raises:
        FileNotFoundError: no Python 3.10.
        FileExistsError: `folder` is something else.
        RuntimeError: the packages cannot be had.
    """
    folder = Path(folder)
    if _is_complete(folder):
        return _python_of(folder)
    if folder.exists() and not (folder / "pyvenv.cfg").is_file():
        raise FileExistsError(f"{folder}: it exists and is no virtual environment, expected a new folder")
    _run(find_python310(), "-m", "venv", "--clear", folder)
    python = _python_of(folder)
    pip = (python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet")
    _run(*pip, *REQUIREMENTS)
    _run(*pip, "--no-deps", *LAVA)
    for tests in folder.glob("lib/*/site-packages/tests"):
        shutil.rmtree(tests)  # 109 MB of theirs, at the top level
    (folder / _MARK).write_text(_mark())
    return python


def _mark() -> str:
    return "\n".join((*LAVA, *REQUIREMENTS)) + "\n"


def _is_complete(folder: Path) -> bool:
    mark = folder / _MARK
    return mark.is_file() and mark.read_text() == _mark()


def _python_of(folder: Path) -> Path:
    return folder / "bin" / "python"


def _is_python310(python: str | os.PathLike) -> bool:
    code = "import ensurepip, sys, venv; sys.exit(sys.version_info[:2] != (3, 10))"
    try:
        return subprocess.run([python, "-c", code], capture_output=True, timeout=60).returncode == 0
    except (OSError, subprocess.SubprocessError):
        return False


def _run(*command: str | os.PathLike) -> None:
    done = subprocess.run(
        list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["no message"]
        raise RuntimeError(f"{' '.join(map(str, command))}: {last[0]}")


def main(arguments: list[str]) -> int:
    """Build into the folder named, or the default one, and print its Python."""
    if len(arguments) > 1 or any(a.startswith("-") for a in arguments):
        print("usage: python environment.py [FOLDER]", file=sys.stderr)
        return 2
    try:
        print(build(arguments[0] if arguments else default_folder()))
    except (OSError, RuntimeError) as error:
        print(f"lava: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
