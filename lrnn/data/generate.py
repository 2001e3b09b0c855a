"""Text that goes on from a prompt: tokens drawn one by one from a language model's Program."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from lrnn.data.text_program import tokenizer_of
from lrnn.engine import open_stream
from lrnn.program import Program


class Sampler:
    """Draws a token from logits.

    Args:
        temperature: divides the logits; 0 takes the most likely token.
        top_p: draws from the most likely tokens that together have this probability (nucleus sampling,
            Holtzman et al. 2020), 0 < top_p <= 1; of equally likely tokens all or none.
        seed: of the draws.
    """

    def __init__(self, temperature: float = 1.0, top_p: float = 1.0, seed: int = 0):
        if not 0 <= temperature < np.inf:
            raise ValueError(f"temperature is {temperature}, expected a finite number, 0 or more")
        if not 0 < top_p <= 1:
            raise ValueError(f"top_p is {top_p}, expected 0 < top_p <= 1")
        if seed < 0:
            raise ValueError(f"seed is {seed}, expected 0 or more")
        self.temperature, self.top_p = temperature, top_p
        self._rng = np.random.default_rng(seed)

    def __call__(self, logits: np.ndarray) -> int:
        """A token of logits (V,).

        Raises:
            ValueError: they hold NaN or infinity; minus infinity is a token that is never drawn.
        """
        best = int(logits.argmax())  # of NaN where there is one
        if not math.isfinite(logits[best]):
            raise ValueError(f"logits[{best}] is {logits[best]}, expected finite numbers")
        if self.temperature == 0:
            return best
        likely = logits.astype(np.float64)
        likely -= likely[best]
        likely /= self.temperature
        np.exp(likely, likely)
        return self._draw(likely)

    def _draw(self, likely: np.ndarray) -> int:
        """A token of the nucleus, by its weight; `likely` is used up.

        Draws from all tokens until one is in the nucleus, which sorting would find at a higher price. What is
        no likelier than a token outside is outside too, and is not drawn again.
        """
        ends = likely.cumsum()
        nucleus = self.top_p * ends[-1]
        while True:
            token = int(min(ends.searchsorted(self._rng.random() * ends[-1], "right"), len(ends) - 1))
            if self.top_p == 1 or likely.dot(likely > likely[token]) < nucleus:
                return token
            likely[likely <= likely[token]] = 0
            ends = likely.cumsum()


class Generator:
    """A language model at work on one text, of any length in constant memory.

    Args:
        program: a language model's.
        engine: see lrnn.engine.

    Raises:
        ValueError: the program is no language model's.
    """

    def __init__(self, program: Program, engine: str):
        self.tokenizer = tokenizer_of(program)
        self._stream = open_stream(program, engine)
        self._logits: np.ndarray | None = None

    def read(self, text: str) -> int:
        """Take in text; returns its number of tokens."""
        (tokens,) = self.tokenizer.encode([text.encode()])
        for token in tokens:
            self._logits = self._step(token)
        return len(tokens)

    def tokens(self, count: int, sampler: Sampler) -> Iterator[int]:
        """`count` tokens that go on from what was read.

        Raises:
            ValueError: nothing was read.
        """
        if self._logits is None:
            raise ValueError("no text to go on from, expected at least one character")
        for _ in range(count):
            token = sampler(self._logits)
            self._logits = self._step(token)
            yield token

    def _step(self, token: int) -> np.ndarray:
        """Logits of those tokens that have a text; a model may have room for more."""
        return self._stream.step(np.array([token], np.float32))[: self.tokenizer.vocabulary]
