"""Text corpora: which files hold the text of a split, and the documents in them.

    train/*.txt  val/*.txt     or   NAME_train.txt  NAME_val.txt,   at any depth
    train/*.parquet                 one document a row, in the column "text", as FineWeb has it

A .txt file is one document. Files that name no split are for training.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

Split = Literal["train", "val"]

COLUMN = "text"
"""The column of a parquet file that holds its documents."""
_SUFFIXES = (".txt", ".parquet")
_VALIDATION = ("val", "valid", "validation", "test")
_ROWS = 1024  # of a parquet file at a time


def find_text(data, split: Split) -> list[Path]:
    """The files of a split, in the order of their paths.

    Args:
        data: a file, which is any split; a folder; or one that holds text-mini/.
        split: "train" or "val".

    Raises:
        FileNotFoundError, or ValueError that names what was found.
    """
    data = Path(data)
    if data.is_file():
        if data.suffix not in _SUFFIXES:
            raise ValueError(f"{data}: found suffix {data.suffix!r}, expected .txt or .parquet")
        return [data]
    if not data.is_dir():
        raise FileNotFoundError(f"{data}: no such file or folder, expected text")
    folder = data / "text-mini" if (data / "text-mini").is_dir() else data
    files = [path for path in sorted(folder.rglob("*")) if path.suffix in _SUFFIXES and path.is_file()]
    found = [path for path in files if split_of(path.relative_to(folder)) == split]
    if not found:
        raise FileNotFoundError(
            f"{folder}: {len(files)} .txt and .parquet files, none of them for {split}; expected some in a "
            f"folder {split}/ or named ..._{split}.txt"
        )
    return found


def split_of(path: Path) -> Split:
    """What a path says: "val" where a folder, or the last word of the name, is val, validation or test."""
    words = [*path.parent.parts, re.split(r"[-_.]", path.stem)[-1]]
    return "val" if any(word.lower() in _VALIDATION for word in words) else "train"


def documents(path: Path) -> Iterator[bytes]:
    """The documents of a file, in order, as UTF-8; empty ones are left out.

    Raises:
        OSError of a .txt file, or ValueError: it cannot be read; names the file.
        ImportError: parquet needs pyarrow, which is not installed.
    """
    if path.suffix == ".txt":
        text = path.read_bytes()
        if text:
            yield text
        return
    for text in _rows(path):
        if text:
            yield text.encode()


def _rows(path: Path) -> Iterator[str | None]:
    try:
        from pyarrow import ArrowException, parquet, types
    except ModuleNotFoundError:
        raise ImportError(f"{path}: parquet needs pyarrow: pip install 'lrnn[text]'") from None
    try:
        with parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if COLUMN not in names:
                raise ValueError(f"{path}: found the columns {', '.join(names)}, expected {COLUMN!r}")
            kind = file.schema_arrow.field(COLUMN).type
            if not (types.is_string(kind) or types.is_large_string(kind)):
                raise ValueError(f"{path}: the column {COLUMN!r} holds {kind}, expected strings")
            for batch in file.iter_batches(_ROWS, columns=[COLUMN]):
                yield from batch.column(0).to_pylist()
    except (ArrowException, OSError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path}: not a parquet file that can be read ({reason})") from None
