"""Text to tokens and back: bytes, or what a tokenizer.json of Hugging Face's tokenizers library says."""

from __future__ import annotations

import codecs
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np


class Tokenizer:
    """Text to tokens and back; the tokens of bytes are the bytes.

    Args:
        definition: the text of a tokenizer.json; None is bytes.
    """

    def __init__(self, definition: str | None = None):
        self.definition = definition
        self._tokenizer = None if definition is None else _load(definition)
        numbers = range(256) if self._tokenizer is None else self._tokenizer.get_vocab().values()
        self._vocabulary = 1 + max(numbers, default=0)

    @classmethod
    def read(cls, path: str | os.PathLike | None) -> Tokenizer:
        """The tokenizer of a file; None is bytes. Errors name the file."""
        if path is None:
            return cls()
        try:
            return cls(Path(path).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ValueError(f"{path}: no such file, expected a tokenizer.json") from None
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    @property
    def vocabulary(self) -> int:
        """Tokens are below it; it is how many there are, unless numbers between them are left out."""
        return self._vocabulary

    @property
    def dtype(self) -> np.dtype:
        """The narrowest type that holds them."""
        return np.min_scalar_type(self.vocabulary - 1)

    @property
    def name(self) -> str:
        """Equal for equal tokenizers."""
        if self.definition is None:
            return "bytes"
        return hashlib.sha256(self.definition.encode()).hexdigest()[:16]

    def encode(self, texts: Sequence[bytes]) -> list[np.ndarray]:
        """Tokens of each text, (n,) of `dtype`; a tokenizer works on all of them in parallel.

        Raises:
            ValueError: a tokenizer wants UTF-8, and a text is not.
        """
        if self._tokenizer is None:
            return [np.frombuffer(text, np.uint8) for text in texts]
        try:
            found = self._tokenizer.encode_batch_fast(
                [text.decode() for text in texts], add_special_tokens=False
            )
        except UnicodeDecodeError as error:
            raise ValueError(f"not UTF-8 at byte {error.start}, which the tokenizer wants") from None
        return [np.array(tokens.ids, self.dtype) for tokens in found]

    def decoder(self) -> Decoder:
        """Turns tokens into text one by one."""
        return Decoder(self._tokenizer)


class Decoder:
    """Tokens in, text out as soon as it is settled: characters are given whole.

    Args:
        tokenizer: of the tokenizers library; None is bytes, of which those that are no UTF-8 become U+FFFD.
    """

    def __init__(self, tokenizer=None):
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._tokenizer = tokenizer
        self._pending: list[int] = []  # tokens whose text may still change
        self._given = ""  # of their text

    def step(self, token: int) -> str:
        """The text that is settled by one more token; may be empty."""
        if self._tokenizer is None:
            return self._utf8.decode(bytes([token]))
        self._pending.append(token)
        text = self._tokenizer.decode(self._pending)
        if text.endswith("\ufffd"):  # in the middle of a character
            return ""
        new, self._given = text[len(self._given) :], text
        if text.endswith("\n"):  # nothing before its token has a say in what follows
            self._pending = [token]
            self._given = self._tokenizer.decode(self._pending)
        return new

    def end(self) -> str:
        """What is left: U+FFFD for half a character."""
        if self._tokenizer is None:
            return self._utf8.decode(b"", final=True)
        return self._tokenizer.decode(self._pending)[len(self._given) :]


def _load(definition: str):
    try:
        import tokenizers
    except ModuleNotFoundError:
        raise ImportError("a tokenizer.json needs tokenizers: pip install 'lrnn[text]'") from None
    try:
        tokenizer = tokenizers.Tokenizer.from_str(definition)
    except Exception as error:  # the library raises nothing narrower
        raise ValueError(f"not a tokenizer.json ({str(error).splitlines()[0]})") from None
    # A file may ask for both, for batches of a model of fixed length: here texts are whole and apart.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
