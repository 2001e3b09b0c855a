"""Files are written whole or not at all; safetensors headers are read with errors that name the file."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


@contextlib.contextmanager
def written_whole(path: str | os.PathLike) -> Iterator[Path]:
    """A temporary path beside `path` that replaces it when the block ends without an error.

    What was written is on the disk before it gets its name: a machine that stops leaves the old file or the
    new one. A process that is killed may leave the temporary file, see `remove_leftovers`.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path}: the folder {path.parent} does not exist")
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    with os.fdopen(handle, "rb") as lock:
        if fcntl is None:
            lock.close()  # Windows renames no open file
        else:
            fcntl.flock(lock, fcntl.LOCK_EX)  # let go of when the process dies
        try:
            yield Path(temporary)
            os.chmod(temporary, 0o666 & ~_umask())
            _sync(temporary)
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    if fcntl is not None:
        _sync(path.parent)


def remove_leftovers(folder: str | os.PathLike, suffix: str) -> None:
    """Delete temporary files of `written_whole` in `folder` whose writers were killed; live ones stay."""
    if fcntl is None:
        return
    for path in Path(folder).glob(f".*-????????{suffix}"):  # mkstemp's names
        with contextlib.suppress(OSError), open(path, "rb") as file:  # locked, or another process was faster
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()


def _sync(path: str | os.PathLike) -> None:
    """Wait until a file, or on POSIX a folder's list of names, is on the disk."""
    handle = os.open(path, os.O_RDONLY if fcntl is not None else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def read_header(path: str | os.PathLike, expected: str) -> dict:
    """The JSON that lrnn put into a safetensors file's metadata.

    Args:
        path: the file.
        expected: the `format` it must declare.

    Raises:
        FileNotFoundError, or ValueError that names the file and what was found in it.
    """
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        with safe_open(str(path), framework="np") as file:
            text = (file.metadata() or {}).get("lrnn")
    except SafetensorError as error:
        raise ValueError(f"{path}: not a safetensors file ({error})") from None
    try:
        header = json.loads(text or "{}")
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: its lrnn header is not JSON ({error})") from None
    if not isinstance(header, dict) or header.get("format") != expected:
        found = header.get("format") if isinstance(header, dict) else type(header).__name__
        raise ValueError(f"{path}: found format {found!r}, expected {expected!r}")
    return header
