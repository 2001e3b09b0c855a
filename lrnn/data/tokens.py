"""Corpora as tokens: text files as they are where tokens are bytes; all else made once and kept on disk.

What a tokenizer makes of a file, or bytes of a parquet file, is written into the cache folder (see
lrnn.data.index): one file of tokens, mapped into memory, and one that says where documents start. A corpus
may be larger than memory; where it was stopped, the making goes on with the next file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lrnn.data.index import Progress, cache_folder, unseen
from lrnn.data.text import documents
from lrnn.data.tokenizer import Tokenizer
from lrnn.files import written_whole

_FORMAT = "lrnn-tokens-1"
_AT_ONCE = 256  # documents that a tokenizer gets together


class Part(NamedTuple):
    """The tokens of one file."""

    tokens: np.ndarray  # (n,) unsigned, mapped from disk
    starts: np.ndarray  # (m,) int64: where each document begins, the first at 0


class Tokens:
    """The tokens of several files in a row, with the places where documents start.

    Args:
        parts: the files'.
    """

    def __init__(self, parts: Sequence[Part]):
        self._parts = [part for part in parts if len(part.tokens)]
        self._ends = np.cumsum([len(part.tokens) for part in self._parts], dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def read(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Tokens [start, stop), int64, and whether a document starts at each, bool."""
        if not 0 <= start <= stop <= len(self):
            raise ValueError(f"start, stop are {start}, {stop}, expected 0 <= start <= stop <= {len(self)}")
        tokens, first = np.empty(stop - start, np.int64), np.zeros(stop - start, bool)
        index = int(np.searchsorted(self._ends, start, side="right"))
        at = start
        while at < stop:
            part, end = self._parts[index], int(self._ends[index])
            begin = end - len(part.tokens)  # of the part
            until = min(stop, end)
            tokens[at - start : until - start] = part.tokens[at - begin : until - begin]
            low, high = np.searchsorted(part.starts, (at - begin, until - begin))
            first[part.starts[low:high] + begin - start] = True
            index, at = index + 1, until
        return tokens, first


def read_tokens(files: Iterable[Path], tokenizer: Tokenizer, progress: Progress = unseen) -> Tokens:
    """The tokens of `files`; what is not there yet is made and kept.

    Args:
        files: as find_text gives them.
        tokenizer: makes the tokens.
        progress: shows how far it is.

    Raises:
        ValueError or OSError that names the file; ValueError where there is no text at all.
    """
    files = list(files)
    missing = [
        path for path in files if not _is_mapped(path, tokenizer) and not _kept(path, tokenizer)[0].is_file()
    ]
    for path in progress(missing, len(missing), "files of text"):
        _make(path, tokenizer)
    tokens = Tokens([_part(path, tokenizer) for path in files])
    if not len(tokens):
        raise ValueError(f"{files[0] if files else 'no file'}: no text, expected some")
    return tokens


def _is_mapped(path: Path, tokenizer: Tokenizer) -> bool:
    """Whether a file holds its tokens as they are."""
    return path.suffix == ".txt" and tokenizer.definition is None


def _part(path: Path, tokenizer: Tokenizer) -> Part:
    if _is_mapped(path, tokenizer):
        size = path.stat().st_size
        tokens = np.memmap(path, np.uint8, "r") if size else np.empty(0, np.uint8)
        return Part(tokens, np.zeros(min(size, 1), np.int64))
    kept, starts = _kept(path, tokenizer)
    tokens = np.memmap(kept, tokenizer.dtype, "r") if kept.stat().st_size else np.empty(0, tokenizer.dtype)
    return Part(tokens, np.load(starts, allow_pickle=False))


def _kept(path: Path, tokenizer: Tokenizer) -> tuple[Path, Path]:
    """Where the tokens of a file are kept, and the starts of its documents; other files when it changes."""
    status = path.stat()
    what = [_FORMAT, str(path.resolve()), status.st_size, status.st_mtime_ns, tokenizer.name]
    name = hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]
    return cache_folder() / f"tokens-{name}.bin", cache_folder() / f"tokens-{name}.npy"


def _make(path: Path, tokenizer: Tokenizer) -> None:
    """The starts get their name first: where there are tokens, there are starts."""
    kept, starts = _kept(path, tokenizer)
    kept.parent.mkdir(parents=True, exist_ok=True)
    found, length = [], 0
    with written_whole(kept) as temporary:
        with open(temporary, "wb") as file:
            for tokens in _encoded(path, tokenizer):
                if len(tokens):
                    found.append(length)
                    length += len(tokens)
                    file.write(tokens.tobytes())
        with written_whole(starts) as places:
            np.save(places, np.array(found, np.int64), allow_pickle=False)


def _encoded(path: Path, tokenizer: Tokenizer) -> Iterator[np.ndarray]:
    waiting = documents(path)
    while texts := list(islice(waiting, _AT_ONCE)):
        try:
            yield from tokenizer.encode(texts)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
