"""`lrnn eval text`: how well a language model predicts held-out text."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lrnn.cli.console import progress, table
from lrnn.data.bootstrap import LEVEL
from lrnn.engine import ENGINES


def add(tasks) -> None:
    """Declare the task."""
    parser = tasks.add_parser(
        "text",
        help="bits per byte of held-out text",
        description="Stream every document through the program, each from the state zero. The first token of "
        "a document costs as much as one of all tokens that are equally likely.",
    )
    parser.add_argument(
        "--data",
        metavar="DIR",
        default=os.environ.get("LRNN_DATA"),
        help="a file; a folder with val/*.txt, *_val.txt or .parquet at any depth; or one that holds "
        "text-mini/; default: $LRNN_DATA",
    )
    parser.add_argument(
        "--model", metavar="M", help="a language model's program (.lrnn); default: the shipped one"
    )
    parser.add_argument("--engine", choices=ENGINES, help="default: native where it is built, else torch")
    parser.add_argument("--bytes", metavar="N", type=int, help="of each document no more than the first N")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.set_defaults(run=run)


def run(args) -> int:
    """Score every document; print bits per byte by file and in all, or one JSON object."""
    import lrnn
    from lrnn.data.text import find_text
    from lrnn.data.text_program import Scorer, bits_per_byte
    from lrnn.models import LANGUAGE

    if args.data is None:
        raise ValueError("no data: expected --data DIR or LRNN_DATA in the environment")
    if args.bytes is not None and args.bytes < 1:
        raise ValueError(f"--bytes is {args.bytes}, expected at least 1")
    model = Path(args.model or LANGUAGE)
    files = find_text(args.data, "val")
    scorer = Scorer(lrnn.load(model), args.engine)
    by_file = _scored(scorer, {path: list(_read(scorer, path, args.bytes)) for path in files})
    scores = [score for found in by_file.values() for score in found]
    if not scores:
        raise ValueError(f"{args.data}: no text, expected some")
    total = bits_per_byte(scores)
    report = {
        "task": "text",
        "model": model.name,
        "engine": scorer.engine,
        "bits_per_byte": total.mean,
        "low": total.low,
        "high": total.high,
        "bytes": sum(score.bytes for score in scores),
        "tokens": sum(len(score.bits) for score in scores),
        "files": [
            {
                "name": path.name,
                "bytes": sum(s.bytes for s in found),
                "bits_per_byte": bits_per_byte(found).mean,
            }
            for path, found in by_file.items()
            if found
        ],
    }
    print(json.dumps(report) if args.json else _text(report))
    return 0


class _Text(NamedTuple):
    tokens: np.ndarray
    bytes: int


def _read(scorer, path: Path, most: int | None) -> Iterator[_Text]:
    """The documents of a file; errors name it."""
    from lrnn.data.text import documents

    for document in documents(path):
        cut = document if most is None else _cut(document, most)
        try:
            (tokens,) = scorer.tokenizer.encode([cut])
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        yield _Text(tokens, len(cut))


def _scored(scorer, texts: dict[Path, list[_Text]]) -> dict[Path, list]:
    """The scores of documents that have tokens, by file; draws how far it is."""
    from lrnn.data.text_program import Scored

    every = [(path, text) for path, found in texts.items() for text in found]
    bits: list[list[np.ndarray]] = [[] for _ in every]
    pieces = ((i, piece) for i, (_, text) in enumerate(every) for piece in scorer.pieces(text.tokens))
    for i, piece in progress(pieces, sum(scorer.count(text.tokens) for _, text in every), "eval"):
        bits[i].append(piece)
    scores: dict[Path, list] = {path: [] for path in texts}
    for (path, text), found in zip(every, bits, strict=True):
        if len(text.tokens):
            scores[path].append(Scored(np.concatenate(found), text.bytes))
    return scores


def _cut(document: bytes, most: int) -> bytes:
    """At most so many bytes, in whole characters."""
    while 0 < most < len(document) and document[most] & 0xC0 == 0x80:
        most -= 1
    return document[:most]


def _text(report: dict) -> str:
    rows = [[f["name"], f"{f['bytes']:,}", f"{f['bits_per_byte']:.3f}"] for f in report["files"]]
    sure = f"{100 * LEVEL:.0f} % interval {report['low']:.3f} to {report['high']:.3f}"
    text = f"{report['bytes']:,} bytes, {report['tokens']:,} tokens: "
    text += f"{report['bits_per_byte']:.3f} bits per byte, {sure}"
    return text + "\n\n" + table(rows, ["file", "bytes", "bits per byte"])
