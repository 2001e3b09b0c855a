"""A language model's Program and text: what tokens it reads, and how well it predicts them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from lrnn.data.bootstrap import Interval, intervals
from lrnn.data.tokenizer import Tokenizer
from lrnn.engine import default_engine, open_stream
from lrnn.program import Program

BLOCK = 4096
"""Tokens of a block in the resampling of a text: neighbouring tokens are not independent of each other."""
_LOGITS = 1 << 20  # at a time


def tokenizer_of(program: Program) -> Tokenizer:
    """How text becomes the tokens that a program reads.

    Raises:
        ValueError: it is no language model's.
    """
    text = program.meta.get("text")
    if not isinstance(text, dict) or program.input_width != 1:
        raise ValueError("the program has no entry 'text' in its meta, expected a language model's")
    tokenizer = Tokenizer(text.get("tokenizer"))
    if tokenizer.vocabulary > program.output_width:
        raise ValueError(
            f"the program gives {program.output_width} logits, expected at least {tokenizer.vocabulary}, "
            "the tokens of its tokenizer"
        )
    return tokenizer


class Scored(NamedTuple):
    """How well a document was predicted."""

    bits: np.ndarray  # (n,) float64: what each token costs
    bytes: int  # of its UTF-8


class Scorer:
    """Predicts documents token by token, each from the state zero.

    The first token of a document follows from nothing and costs as much as one of all tokens that are equally
    likely: eight bits for a byte.

    Args:
        program: a language model's.
        engine: see lrnn.engine; None is native where it is built, which takes a tenth of torch's time on a
            sparse network, else torch.

    Attributes:
        tokenizer: the program's.
        engine: what runs it.

    Raises:
        ValueError: the program is no language model's.
    """

    def __init__(self, program: Program, engine: str | None = None):
        self.engine = engine or ("native" if default_engine() == "native" else "torch")
        self.tokenizer = tokenizer_of(program)
        self._stream = open_stream(program, self.engine)
        self._chunk = max(1, _LOGITS // program.output_width)

    def __call__(self, document: bytes) -> Scored:
        """What each token of a document costs.

        Raises:
            ValueError: the tokenizer wants UTF-8, and the document is not.
        """
        (tokens,) = self.tokenizer.encode([document])
        return Scored(np.concatenate(list(self.pieces(tokens))), len(document))

    def count(self, tokens: np.ndarray) -> int:
        """How many pieces a document's tokens (n,) are scored in."""
        return 1 + -(-max(0, len(tokens) - 1) // self._chunk)

    def pieces(self, tokens: np.ndarray) -> Iterator[np.ndarray]:
        """Bits of a document's tokens (n,) in order, float64, a piece after the other as they are made."""
        self._stream.reset()
        yield np.full(min(1, len(tokens)), math.log2(self.tokenizer.vocabulary))
        for start in range(0, len(tokens) - 1, self._chunk):
            seen = tokens[start : start + self._chunk]
            targets = tokens[start + 1 : start + 1 + len(seen)]
            logits = self._stream.run(seen[: len(targets), None].astype(np.float32))
            yield _surprise(logits, targets.astype(np.int64)) / math.log(2)


def bits_per_byte(scores: Iterable[Scored]) -> Interval:
    """Bits over bytes of all documents together, with an interval from resampling blocks of BLOCK tokens.

    A block's bytes are its share of its documents', by tokens. The ratio is resampled as the mean of its
    linear terms, one for each block.
    """
    scores = [score for score in scores if len(score.bits)]
    if not scores:
        raise ValueError("scores is empty, expected a document with text")
    bits = np.concatenate([score.bits for score in scores])
    width = np.concatenate([np.full(len(s.bits), s.bytes / len(s.bits)) for s in scores])
    starts = np.arange(max(1, len(bits) // BLOCK)) * BLOCK  # the last block takes what is left over
    block_bits, block_bytes = (np.add.reduceat(values, starts) for values in (bits, width))
    ratio = bits.sum() / width.sum()
    (found,) = intervals((ratio + (block_bits - ratio * block_bytes) / block_bytes.mean())[:, None])
    return found


def _surprise(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """-log p (n,) float64 of each target (n,) under logits (n, V) float32, in nats; uses the logits up."""
    logits -= logits.max(axis=1, keepdims=True)
    wanted = np.take_along_axis(logits, targets[:, None], axis=1)[:, 0]
    np.exp(logits, logits)
    return np.log(logits.sum(axis=1, dtype=np.float64)) - wanted
