"""From a stream of scores to words that were said: pooling over a window, a threshold, a duration, a pause.

A network trained on clips of a second scores every frame, and a clip's score is the mean over its frames. In
a stream the mean is over a window that is a little shorter, for words are. A word that was said is then ahead
of all labels for half a second; what only sounds like it for a moment, in the midst of speech, is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, isfinite

import numpy as np

from lrnn.data.keywords import SILENCE, UNKNOWN


@dataclass(frozen=True)
class Decision:
    """When a word counts as said; times in seconds.

    Args:
        threshold: least probability of the word.
        window: over which scores are averaged before the softmax.
        hold: for which the word is at the threshold, and ahead of all other words, until it is decided.
        other: added to the score of other speech, which makes it exp(other) times as likely beside each word
            as the network thinks: clips to train on are mostly keywords, what is said is mostly not.
        refractory: after a word, in which nothing is decided. The same word is decided again only after its
            probability has been below the threshold.
    """

    threshold: float = 0.5
    window: float = 0.8
    hold: float = 0.4
    other: float = 3.0
    refractory: float = 0.8

    def __post_init__(self):
        if not 0 < self.threshold <= 1:
            raise ValueError(f"threshold is {self.threshold}, expected 0 < threshold <= 1")
        if not (self.window > 0 and self.hold >= 0 and self.refractory >= 0):
            raise ValueError(
                f"window, hold, refractory are {self.window}, {self.hold}, {self.refractory}, "
                "expected window > 0, the others >= 0"
            )
        if not isfinite(self.other):
            raise ValueError(f"other is {self.other}, expected a finite number")

    @staticmethod
    def from_meta(values: dict) -> Decision:
        """The decision that a program's meta describes; ValueError where values do not fit."""
        try:
            return Decision(**values)
        except TypeError as error:
            raise ValueError(f"decision is {values!r}: {error}") from None


@dataclass(frozen=True)
class Keyword:
    """A word that was said.

    Args:
        word: which.
        time: seconds from the start of the stream to the end of the frame that decided it.
        probability: its own, then.
    """

    word: str
    time: float
    probability: float


class Detector:
    """Takes scores frame by frame, in any pieces, and says what was said.

    Before the first window is full, frames that are missing count as undecided: scores of zero.

    Args:
        labels: of the scores.
        frame_seconds: from one frame to the next.
        decision: when a word counts as said.
    """

    def __init__(self, labels: Sequence[str], frame_seconds: float, decision: Decision):
        self.labels, self.frame_seconds, self.decision = tuple(labels), frame_seconds, decision
        self._words = [i for i, label in enumerate(labels) if label not in (UNKNOWN, SILENCE)]
        self._prior = [decision.other if label == UNKNOWN else 0.0 for label in labels]
        self._window = max(1, round(decision.window / frame_seconds))
        self._hold = max(1, round(decision.hold / frame_seconds))
        self._pause = round(decision.refractory / frame_seconds)
        self._mean = np.full(self._window, 1 / self._window)
        self.reset()

    def reset(self) -> None:
        """The next frame is the first of a stream."""
        self._scores = np.zeros((self._window, len(self.labels)))
        self._frames = 0
        self._free_at = 0  # frames until which nothing may be decided
        self._ahead: int | None = None  # the word at the threshold now
        self._held = 0  # frames for which it has been
        self._lasting: int | None = None  # the word decided last, while it stays at the threshold

    def push(self, scores: np.ndarray) -> list[Keyword]:
        """Take scores before the softmax (T, labels); return the words they decide, in order."""
        found = (self._hear(row) for row in np.asarray(scores, np.float64))
        return [keyword for keyword in found if keyword is not None]

    def _hear(self, scores: np.ndarray) -> Keyword | None:
        probabilities = self._pooled(scores)
        best = max(self._words, key=probabilities.__getitem__)
        least = self.decision.threshold
        ahead = best if probabilities[best] >= least else None
        self._held = self._held + 1 if ahead == self._ahead else 1
        self._ahead = ahead
        if self._lasting is not None and probabilities[self._lasting] < least:
            self._lasting = None
        if (
            ahead is None
            or self._held < self._hold
            or ahead == self._lasting
            or self._frames <= self._free_at
        ):
            return None
        self._free_at, self._lasting = self._frames + self._pause, ahead
        return Keyword(self.labels[ahead], self._frames * self.frame_seconds, probabilities[ahead])

    def _pooled(self, scores: np.ndarray) -> list[float]:
        """Probabilities over the window that ends with these scores; for so few, numpy's calls cost more."""
        self._scores[self._frames % self._window] = scores
        self._frames += 1
        means = [
            mean + prior
            for mean, prior in zip((self._mean @ self._scores).tolist(), self._prior, strict=True)
        ]
        highest = max(means)
        powers = [exp(mean - highest) for mean in means]
        total = sum(powers)
        return [power / total for power in powers]
