"""Rows of tokens to train on: row n follows from the seed, the stream's number and n alone."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from lrnn.data.stream import pass_order
from lrnn.data.tokens import Tokens

IGNORED = -100
"""The target where there is none, as in torch.nn.functional.cross_entropy: the first token of a document does
not follow from the one before it."""


class Row(NamedTuple):
    """A stretch of a corpus; batched, each has an axis B before."""

    tokens: Tensor  # (T,) int64
    targets: Tensor  # (T,) int64: the token after each, or IGNORED
    reset: Tensor  # (T,) bool: whether a document starts at each


class Rows(Dataset):
    """An endless stream of rows, packed: documents follow one another, cut where a row ends.

    Pass e over the corpus begins at a token drawn from (seed, stream, e), cuts what follows into rows and
    takes them in an order drawn from the same: within a pass no token is seen twice.

    Args:
        tokens: the corpus.
        length: tokens T of a row.
        seed: of all streams.
        stream: streams of other numbers have other cuts and orders.
        count: what len() says; every n >= 0 is there.
    """

    def __init__(self, tokens: Tokens, length: int, seed: int, stream: int, count: int):
        if length < 1:
            raise ValueError(f"length is {length}, expected at least 1")
        self.tokens, self.length, self.seed, self.stream, self.count = tokens, length, seed, stream, count
        self.per_pass = (len(tokens) - length) // length
        if self.per_pass < 1:
            raise ValueError(
                f"length is {length}, expected at most {len(tokens) // 2}, half the tokens there are"
            )

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, n: int) -> Row:
        """Row n."""
        e, place = divmod(n, self.per_pass)
        offset = int(np.random.default_rng((self.seed, self.stream, e)).integers(self.length))
        index = int(pass_order(self.per_pass, self.seed, self.stream, e)[place])
        return row_at(self.tokens, offset + index * self.length, self.length)


class EvenRows(Dataset):
    """`count` rows at equal distances over a corpus, in its order; fewer where it is too short for them.

    Args:
        tokens: the corpus, of more tokens than `length`.
        length: tokens T of a row.
        count: rows at most.
    """

    def __init__(self, tokens: Tokens, length: int, count: int):
        if not 1 <= length < len(tokens):
            raise ValueError(f"length is {length}, expected 1 to {len(tokens) - 1}, the tokens to predict")
        room = (len(tokens) - 1) // length
        self.tokens, self.length, self.count = tokens, length, min(count, room)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, n: int) -> Row:
        """Row n."""
        n = range(self.count)[n]
        last = len(self.tokens) - self.length - 1
        return row_at(self.tokens, n * last // max(self.count - 1, 1), self.length)


def row_at(tokens: Tokens, start: int, length: int) -> Row:
    """`length` tokens from `start` on, and what follows each; one token more must be there."""
    found, first = tokens.read(start, start + length + 1)
    targets = np.where(first[1:], IGNORED, found[1:])
    return Row(*map(torch.from_numpy, (found[:-1], targets, first[:-1])))
