"""From a stream of scores to words that were said: pooling over a window, smoothing, a threshold, a pause.

A network trained on clips of a second scores every frame, and a clip's score is the mean over its frames. In
a stream the mean is over a window that is a little shorter, for words are, and it holds a whole word for a
moment only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lrnn.data.keywords import SILENCE, UNKNOWN


@dataclass(frozen=True)
class Decision:
    """When a word counts as said; times in seconds.

    Args:
        threshold: least smoothed probability of the word.
        window: over which scores are averaged before the softmax.
        smoothing: over which the probabilities are averaged after it.
        refractory: after a word, in which nothing is decided. The same word is decided again only after its
            probability has been below the threshold.
    """

    threshold: float = 0.7
    window: float = 0.8
    smoothing: float = 0.2
    refractory: float = 0.8

    def __post_init__(self):
        if not 0 < self.threshold <= 1:
            raise ValueError(f"threshold is {self.threshold}, expected 0 < threshold <= 1")
        if self.window <= 0 or self.smoothing < 0 or self.refractory < 0:
            raise ValueError(
                f"window, smoothing, refractory are {self.window}, {self.smoothing}, {self.refractory}, "
                "expected window > 0, the others >= 0"
            )


@dataclass(frozen=True)
class Keyword:
    """A word that was said.

    Args:
        word: which.
        time: seconds from the start of the stream to the end of the frame that decided it.
        probability: the smoothed one that passed the threshold.
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
        self._is_word = np.array([label not in (UNKNOWN, SILENCE) for label in labels])
        self._window = max(1, round(decision.window / frame_seconds))
        self._smoothing = max(1, round(decision.smoothing / frame_seconds))
        self._pause = round(decision.refractory / frame_seconds)
        self.reset()

    def reset(self) -> None:
        """The next frame is the first of a stream."""
        self._scores = np.zeros((self._window, len(self.labels)))
        self._probabilities = np.zeros((self._smoothing, len(self.labels)))
        self._frames = 0
        self._free_at = 0  # frames until which nothing may be decided
        self._lasting: int | None = None  # the word decided last, while it stays above the threshold

    def push(self, scores: np.ndarray) -> list[Keyword]:
        """Take scores before the softmax (T, labels); return the words they decide, in order."""
        found = (self._hear(row) for row in np.asarray(scores, np.float64))
        return [keyword for keyword in found if keyword is not None]

    def _hear(self, scores: np.ndarray) -> Keyword | None:
        self._scores[self._frames % self._window] = scores
        self._probabilities[self._frames % self._smoothing] = softmax(self._scores.mean(0))
        self._frames += 1
        smoothed = self._probabilities.mean(0)
        best = int(np.where(self._is_word, smoothed, -1.0).argmax())
        if self._lasting is not None and smoothed[self._lasting] < self.decision.threshold:
            self._lasting = None
        if smoothed[best] < self.decision.threshold or best == self._lasting or self._frames <= self._free_at:
            return None
        self._free_at, self._lasting = self._frames + self._pause, best
        return Keyword(self.labels[best], self._frames * self.frame_seconds, float(smoothed[best]))


def softmax(scores: np.ndarray) -> np.ndarray:
    """Probabilities of scores (..., labels)."""
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)
