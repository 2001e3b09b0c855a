"""What a folder of recordings holds: found by walking it, its headers read once and remembered.

A corpus of 60,000 files takes a walk (a second) at each start and its headers (a minute) at the first one.
They are kept in a file of the cache folder: LRNN_CACHE, else lrnn/ in XDG_CACHE_HOME or ~/.cache. A file
whose size or time of change differs is read again; a folder of fewer than 2,000 files is always read.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple
from pathlib import Path
from typing import NamedTuple

from lrnn.data import audio
from lrnn.data.faults import FAULTS, Fault
from lrnn.files import written_whole

REMEMBERED_FROM = 2000
"""Headers of fewer files are not worth a file of their own."""
_FORMAT = "lrnn-index-1"
_READERS = 8  # threads: a network disk answers late, not seldom

Progress = Callable[[Iterable, int, str], Iterable]
"""Passes items through and shows how far they are: (items, total, label); lrnn.cli.console has one."""


def unseen(items: Iterable, total: int, label: str) -> Iterable:
    """Passes items through and shows nothing."""
    return items


class Entry(NamedTuple):
    """A file as it was when its header was read."""

    path: str  # relative to the folder, with /
    size: int  # bytes
    changed: int  # ns
    info: audio.AudioInfo | None  # None where the file is faulty
    fault: Fault | None


def index_folder(folder, progress: Progress = unseen) -> list[Entry]:
    """All WAV and FLAC files below a folder, at any depth, ordered by their paths' parts.

    Args:
        folder: to walk; links to folders are not followed.
        progress: shows how far the reading of headers is.

    Raises:
        FileNotFoundError: no such files.
    """
    folder = Path(folder).resolve()
    found = sorted(_walk(folder), key=lambda file: file[0].split("/"))
    if not found:
        raise FileNotFoundError(f"{folder}: no WAV or FLAC files, expected recordings")
    cache = cache_file(folder)
    known = {entry[:3]: entry for entry in _load(cache)} if len(found) >= REMEMBERED_FROM else {}
    new = [file for file in found if file not in known]
    with ThreadPoolExecutor(_READERS) as pool:
        entries = pool.map(lambda file: _read_header(folder, *file), new)
        known |= {entry[:3]: entry for entry in progress(entries, len(new), "headers")}
    if new and len(found) >= REMEMBERED_FROM:
        _save(cache, folder, [known[file] for file in found])
    return [known[file] for file in found]


def cache_folder() -> Path:
    """Where what was read once is kept."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("LRNN_CACHE") or base / "lrnn")


def cache_file(folder) -> Path:
    """Where the headers of a folder's files are remembered."""
    name = hashlib.sha256(str(Path(folder).resolve()).encode()).hexdigest()[:16]
    return cache_folder() / f"index-{name}.json"


def _walk(folder: Path) -> list[tuple[str, int, int]]:
    """(path, size, time of change) of every audio file."""
    found, waiting = [], [folder]
    while waiting:
        with os.scandir(waiting.pop()) as items:
            for item in items:
                if item.is_dir(follow_symlinks=False):
                    waiting.append(Path(item.path))
                elif os.path.splitext(item.name)[1].lower() in audio.EXTENSIONS and item.is_file():
                    status = item.stat()
                    path = Path(item.path).relative_to(folder).as_posix()
                    found.append((path, status.st_size, status.st_mtime_ns))
    return found


def _read_header(folder: Path, path: str, size: int, changed: int) -> Entry:
    try:
        return Entry(path, size, changed, audio.check(folder / path), None)
    except FAULTS as error:
        fault = error if isinstance(error, Fault) else Fault(str(error), "missing")
        return Entry(path, size, changed, None, fault)


def _load(cache: Path) -> list[Entry]:
    """What was remembered; nothing where the file is missing, of another version or damaged."""
    try:
        found = json.loads(cache.read_text())
        if found["format"] != _FORMAT:
            return []
        return [
            Entry(path, size, changed, info and audio.AudioInfo(*info), fault and Fault(*fault))
            for path, size, changed, info, fault in found["files"]
        ]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _save(cache: Path, folder: Path, entries: list[Entry]) -> None:
    """Remember; where the cache folder cannot be written, the headers are read again next time."""
    files = [
        (e.path, e.size, e.changed, e.info and astuple(e.info), e.fault and (str(e.fault), e.fault.kind))
        for e in entries
    ]
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(cache) as temporary:
            temporary.write_text(json.dumps({"format": _FORMAT, "folder": str(folder), "files": files}))
    except OSError:
        pass
