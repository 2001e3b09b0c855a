"""The Python that has Lava: found, or built. Needs nothing but the standard library, so that it also runs as
a script: `python environment.py FOLDER` builds one there.

Lava's last releases (lava-nc 0.10, lava-dl 0.6) are for Python 3.10 and numpy 1, so that they share no
environment with lrnn. On Python 3.11 and 3.12 they run once one module is corrected, which `build` does in
the environment that it makes; 3.10 is taken where there is one. lava-dl's own requirements name torch and
more, which its netx and lava-nc do without.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

VARIABLE = "LRNN_LAVA"  # the Python of an environment that has Lava
PYTHON_VARIABLE = "LRNN_LAVA_PYTHON"  # a Python to build one with
VERSIONS = ("3.10", "3.11", "3.12")  # in this order
LAVA = ("lava-nc==0.10.0", "lava-dl==0.6.0")
REQUIREMENTS = (
    "numpy==1.26.4",
    "scipy==1.15.3",
    "networkx==2.8.7",
    "asteval==1.0.10",
    "cloudpickle==3.1.3",
    "h5py==3.16.0",
    "scikit-learn==1.7.2",
    "setuptools==80.9.0",  # Python 3.12 brings none
)
_MARK = "lrnn-lava.txt"  # written last: an environment without it is unfinished
_CHECKOUT = Path(__file__).resolve().parents[3] / ".venv-lava"


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


def find_python() -> Path:
    """A Python to build an environment with: $LRNN_LAVA_PYTHON, else the first of VERSIONS that this one is,
    that is on the PATH, or that is one of pyenv's.

    Raises:
        FileNotFoundError: there is none; says where it was looked for.
    """
    expected = f"Python {', '.join(VERSIONS[:-1])} or {VERSIONS[-1]}"
    named = os.environ.get(PYTHON_VARIABLE)
    if named:
        if not any(_is_python(named, version) for version in VERSIONS):
            raise FileNotFoundError(f"{PYTHON_VARIABLE} is {named}, expected {expected} with its venv module")
        return Path(named)
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    for version in VERSIONS:
        candidates = [sys.executable, shutil.which(f"python{version}")]
        candidates += sorted(pyenv.glob(f"{version}*/bin/python"))
        for candidate in candidates:
            if candidate and _is_python(candidate, version):
                return Path(candidate)
    raise FileNotFoundError(
        f"found no {expected} with its venv module on the PATH or in {pyenv}: Lava needs one of them; "
        f"{PYTHON_VARIABLE} may name it"
    )


def build(folder: str | os.PathLike) -> Path:
    """Build an environment with Lava, unless it is there; returns its Python.

    Raises:
        FileNotFoundError: no Python that will do.
        FileExistsError: `folder` is something else.
        RuntimeError: the packages cannot be had.
    """
    folder = Path(folder)
    if _is_complete(folder):
        return _python_of(folder)
    if folder.exists() and not (folder / "pyvenv.cfg").is_file():
        raise FileExistsError(f"{folder}: it exists and is no virtual environment, expected a new folder")
    _run(find_python(), "-m", "venv", "--clear", folder)
    python = _python_of(folder)
    pip = (python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet")
    _run(*pip, *REQUIREMENTS)
    _run(*pip, "--no-deps", "--ignore-requires-python", *LAVA)
    _correct(folder)
    for tests in folder.glob("lib/*/site-packages/tests"):
        shutil.rmtree(tests)  # 109 MB of theirs, at the top level
    (folder / _MARK).write_text(_mark())
    return python


def _correct(folder: Path) -> None:
    """Since Python 3.11 a dataclass refuses defaults that cannot be hashed: a module of lava-nc has eight."""
    for module in folder.glob("lib/*/site-packages/lava/magma/compiler/var_model.py"):
        text = module.read_text()
        text = text.replace("import dataclass, InitVar", "import dataclass, field, InitVar")
        module.write_text(text.replace("= ByteEncoder()", "= field(default_factory=ByteEncoder)"))


def _mark() -> str:
    return "\n".join((*LAVA, *REQUIREMENTS)) + "\n"


def _is_complete(folder: Path) -> bool:
    mark = folder / _MARK
    return mark.is_file() and mark.read_text() == _mark()


def _python_of(folder: Path) -> Path:
    return folder / "bin" / "python"


def _is_python(python: str | os.PathLike, version: str) -> bool:
    code = "import ensurepip, sys, venv; print('%d.%d' % sys.version_info[:2])"
    try:
        done = subprocess.run([python, "-c", code], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return False
    return done.returncode == 0 and done.stdout.strip() == version


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
