"""Tokenizers for tests."""

from __future__ import annotations

from pathlib import Path

import pytest


def word_tokenizer(path: Path) -> Path:
    """A byte-level BPE of a few merges."""
    tokenizers = pytest.importorskip("tokenizers")
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    made.train_from_iterator(["the cat sat on the mat\nand the dog, é"] * 20, trainer)
    made.save(str(path))
    return path
