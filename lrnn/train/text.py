"""Data for language models: rows of a corpus to train on, and of held-out text to validate on."""

from __future__ import annotations

import os
from collections.abc import Iterable

from lightning.pytorch.utilities import rank_zero_info

from lrnn.data.rows import EvenRows, Rows
from lrnn.data.text import find_text
from lrnn.data.tokenizer import Tokenizer
from lrnn.data.tokens import Tokens, read_tokens
from lrnn.train.stream_data import StreamData


class TextData(StreamData):
    """Training rows without end, see StreamData. A batch is a Row: tokens, targets and resets.

    Args:
        root: folder with the text of both splits, or the one that holds text-mini; see lrnn.data.text. None
            takes LRNN_DATA.
        tokenizer: a tokenizer.json; None reads bytes.
        batch_size: rows per training batch and process.
        length: tokens T of a row.
        batches_per_epoch: training batches of a process between validations.
        validation_rows: rows of held-out text in a validation.
        validation_length: tokens of each.
        seed: of the rows.
        num_workers: processes that read rows; 0 reads in the training process.
        validation_root: folder with the validation text where it is not in `root`.
    """

    def __init__(
        self,
        root: str | None = None,
        tokenizer: str | None = None,
        batch_size: int = 16,
        length: int = 256,
        batches_per_epoch: int = 250,
        validation_rows: int = 64,
        validation_length: int = 1024,
        seed: int = 0,
        num_workers: int = 0,
        validation_root: str | None = None,
    ):
        super().__init__(batch_size, batches_per_epoch, num_workers, validation_batch_size=batch_size)
        sizes = {
            "length": length,
            "validation_rows": validation_rows,
            "validation_length": validation_length,
        }
        for name, value in sizes.items():
            if value < 1:
                raise ValueError(f"{name} is {value}, expected at least 1")
        self.root = root if root is not None else os.environ.get("LRNN_DATA")
        self.validation_root = validation_root
        self.length, self.seed = length, seed
        self.validation_rows, self.validation_length = validation_rows, validation_length
        self.tokenizer = Tokenizer.read(tokenizer)
        self.tokens: Tokens | None = None

    def prepare_data(self) -> None:
        """Make tokens in one process of a node, so that the others find them made."""
        self._read()

    def setup(self, stage: str) -> None:
        """Find and map the text, once."""
        if self.validation is not None:
            return
        self.tokens, held_out = self._read()
        self.validation = EvenRows(held_out, self.validation_length, self.validation_rows)

    def _read(self) -> tuple[Tokens, Tokens]:
        if self.root is None:
            raise ValueError("no data: expected a folder of text, named by --data.root or LRNN_DATA")
        training = find_text(self.root, "train")
        held_out = find_text(self.validation_root or self.root, "val")
        return tuple(read_tokens(files, self.tokenizer, _said) for files in (training, held_out))

    def items(self, stream: int, count: int) -> Rows:
        """Rows of a stream; those of calibration are cut elsewhere than those of training."""
        return Rows(self.tokens, self.length, self.seed, stream, count)

    @property
    def card(self) -> dict:
        """What a model card says of the data: plain values, no paths of this machine."""
        files = [] if self.root is None else find_text(self.root, "train")
        return {
            "files": [path.name for path in files[:50]],
            "n_files": len(files),
            "tokenizer": self.tokenizer.name,
            "batch_size": self.batch_size,
            "length": self.length,
            "seed": self.seed,
        }


def _said(items: Iterable, total: int, label: str) -> Iterable:
    """Say so before tokens are made, which can take long: there is no bar below Lightning's."""
    if total:
        rank_zero_info(f"data: making tokens of {total:,} {label}; they are kept, see lrnn.data.tokens")
    return items
