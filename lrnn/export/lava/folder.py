"""An export as a folder: written whole or not at all, and never over anything but an earlier export."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from lrnn.export.lava.lowering import FORMAT, VERSION

PROGRAM = "program.json"
SEGMENTS = "netx_segments"
NAMES = (PROGRAM, "weights.npz", "vectors.npz", "resources.json", "lrnn_lava", SEGMENTS)


@contextlib.contextmanager
def written_folder(folder: str | os.PathLike) -> Iterator[Path]:
    """A temporary folder beside `folder` that replaces it when the block ends without an error.

    Raises:
        FileExistsError: there is something else than an earlier export at `folder`.
        FileNotFoundError: its parent does not exist.
    """
    folder = Path(folder)
    _check_replaceable(folder)
    parent = folder.resolve().parent
    if not parent.is_dir():
        raise FileNotFoundError(f"{folder}: the folder {parent} does not exist")
    temporary = Path(tempfile.mkdtemp(dir=parent, prefix=f".{folder.name}-"))
    try:
        yield temporary
        temporary.chmod(0o755)
        _replace(temporary, folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _replace(temporary: Path, folder: Path) -> None:
    """Give a folder its name; what has it now goes once that is done."""
    if not folder.exists():
        os.replace(temporary, folder)
        return
    old = Path(tempfile.mkdtemp(dir=temporary.parent, prefix=f".{folder.name}-"))
    os.replace(folder, old)
    try:
        os.replace(temporary, folder)
    except OSError:
        os.replace(old, folder)
        raise
    shutil.rmtree(old)


def _check_replaceable(folder: Path) -> None:
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    try:
        read_record(folder)
    except (OSError, ValueError):
        raise FileExistsError(
            f"{folder}: it exists and is no earlier export, expected a new folder"
        ) from None
    others = sorted(path.name for path in folder.iterdir() if path.name not in NAMES)
    if others:
        raise FileExistsError(
            f"{folder}: it holds {others[0]!r}, which no export writes; expected a new folder"
        )


def read_record(folder: str | os.PathLike) -> dict:
    """What program.json of an export holds.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is damaged, or of another kind or version.
    """
    path = Path(folder) / PROGRAM
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file, expected a folder of `lrnn export lava`") from None
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error})") from None
    found = (record.get("format"), record.get("version")) if isinstance(record, dict) else None
    if found != (FORMAT, VERSION):
        raise ValueError(f"{path}: found format and version {found}, expected {(FORMAT, VERSION)}")
    for name in ("steps", "latency"):
        if type(record.get(name)) is not int:
            raise ValueError(f"{path}: {name} is {record.get(name)!r}, expected a number of steps")
    return record


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> str:
    """Write an .npz file, and return its SHA-256."""
    if any(array.dtype.hasobject for array in arrays.values()):
        raise ValueError(f"{path}: an array holds objects, expected numbers")
    np.savez_compressed(path, **arrays)
    return sha256(path)


def sha256(path: str | os.PathLike) -> str:
    """Of a file."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
