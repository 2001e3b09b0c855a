"""How good a keyword spotter is: accuracy on clips, words found in a stream of them, and false alarms."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np

from lrnn.data import audio
from lrnn.data.bootstrap import intervals
from lrnn.data.detector import Decision, Keyword
from lrnn.data.index import Progress, index_folder, unseen
from lrnn.data.keyword_mix import LabelledClips
from lrnn.data.keywords import SAMPLE_RATE, KeywordClips
from lrnn.data.spotter import KeywordSpotter

_BATCH = 64
EARLY_SECONDS = 0.2
"""What is decided so soon after a clip begins belongs to the clip before."""
PAUSE_RMS = 1e-3
"""Of the noise between the clips of a stream: -60 dBFS."""


@dataclass(frozen=True)
class Scored:
    """Scores of clips.

    Args:
        spotter: that gave them.
        scores: (clips, labels), before the softmax.
        labels: (clips,) the index of the label that is right.
    """

    spotter: KeywordSpotter
    scores: np.ndarray
    labels: np.ndarray

    @property
    def chosen(self) -> np.ndarray:
        """(clips,) the label with the highest score of all."""
        return self.scores.argmax(1)

    @property
    def words(self) -> np.ndarray:
        """Indices of the labels that are words."""
        return np.array([i for i, name in enumerate(self.spotter.labels) if name in self.spotter.words])

    @property
    def right(self) -> np.ndarray:
        """Of the clips of words, in their order, whether the word has the highest score among the words."""
        said = np.isin(self.labels, self.words)
        if not said.any():
            raise ValueError("no clip of a word that the model knows")
        return self.words[self.scores[said][:, self.words].argmax(1)] == self.labels[said]

    def report(self) -> dict:
        """Plain values: `accuracy`, the share of words' clips whose word has the highest score among the
        words, with `low` and `high` of its 95 % interval; `accuracy_all_labels`, the share of all clips whose
        label has the highest score of all labels; `rejected`, the share of words' clips that no word got.
        """
        interval = intervals(self.right[:, None].astype(float))[0]
        said = np.isin(self.labels, self.words)
        return {
            "clips": len(self.labels),
            "accuracy": interval.mean,
            "low": interval.low,
            "high": interval.high,
            "accuracy_all_labels": float((self.chosen == self.labels).mean()),
            "rejected": float((~np.isin(self.chosen[said], self.words)).mean()),
            "labels": list(self.spotter.labels),
            "confusion": self.confusion().tolist(),
        }

    def confusion(self) -> np.ndarray:
        """Counts (labels, labels): row by what was said, column by the highest score of all labels."""
        counts = np.zeros((len(self.spotter.labels),) * 2, int)
        np.add.at(counts, (self.labels, self.chosen), 1)
        return counts


def score_clips(spotter: KeywordSpotter, clips: KeywordClips, progress: Progress = unseen) -> Scored:
    """Score clips with the torch executor, each from a state of zeros, resampled to the spotter's rate.

    Raises:
        ValueError: a clip of a word that is no label, where none is unknown.
    """
    import torch

    data = LabelledClips(clips, spotter.labels)
    scores = []
    starts = range(0, len(data), _BATCH)
    for start in progress(starts, len(starts), "clips"):
        batch = np.stack([data[i][0] for i in range(start, min(start + _BATCH, len(data)))], axis=1)  # (N, B)
        batch = audio.resample(batch, SAMPLE_RATE, spotter.sample_rate)
        scores.append(spotter.scores(torch.from_numpy(batch).T).numpy())
    return Scored(spotter, np.concatenate(scores), np.array(data.labels))


def score_stream(
    spotter: KeywordSpotter, clips: KeywordClips, engine: str, decision: Decision, seed: int = 0
) -> dict:
    """All clips as one stream, in a random order, a second of faint noise after each.

    Returns:
        `found`, the share of words' clips whose word was decided first; `wrong`, the share for which another
        word was; `missed`, the share for which none was; `extra`, the number of all other decisions; and
        `delay`, the median of the seconds from the start of a clip until its word was found, None without.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(clips))
    stream = spotter.stream(SAMPLE_RATE, engine, decision)
    said: list[Keyword] = []
    for index in order:
        pause = PAUSE_RMS * rng.standard_normal(SAMPLE_RATE).astype(np.float32)
        said += stream.step(np.concatenate((clips[int(index)].astype(np.float32) / 32768, pause)))
    first: dict[int, Keyword] = {}
    for keyword in said:  # two seconds to each clip
        first.setdefault(max(int((keyword.time - EARLY_SECONDS) / 2), 0), keyword)
    wanted = {place: clips.clips[int(index)].word for place, index in enumerate(order)}
    wanted = {place: word for place, word in wanted.items() if word in spotter.words}
    decided = {place: first[place] for place in wanted if place in first}
    delays = [keyword.time - 2 * place for place, keyword in decided.items() if keyword.word == wanted[place]]
    return {
        "found": len(delays) / len(wanted),
        "wrong": (len(decided) - len(delays)) / len(wanted),
        "missed": 1 - len(decided) / len(wanted),
        "extra": len(said) - len(decided),
        "delay": float(np.median(delays)) if delays else None,
    }


def false_alarms(
    spotter: KeywordSpotter,
    folder: str | PathLike,
    engine: str,
    decision: Decision,
    progress: Progress = unseen,
) -> dict:
    """What is heard in recordings without keywords, each a stream of its own.

    Returns:
        `hours` listened to, `alarms` in them, `per_hour`, and `words` with the count of each.
    """
    alarms: dict[str, int] = {}
    seconds = 0.0
    entries = index_folder(folder)
    for entry in progress(entries, len(entries), "speech"):
        path = Path(folder) / entry.path
        seconds += audio.info(path).frames / audio.info(path).rate
        for keyword in _listen(spotter, path, engine, decision):
            alarms[keyword.word] = alarms.get(keyword.word, 0) + 1
    if not seconds:
        raise ValueError(f"{folder}: no samples, expected recordings of speech")
    total = sum(alarms.values())
    return {
        "hours": seconds / 3600,
        "alarms": total,
        "per_hour": total / seconds * 3600,
        "words": dict(sorted(alarms.items())),
    }


def _listen(spotter: KeywordSpotter, path: Path, engine: str, decision: Decision) -> Iterator[Keyword]:
    rate = audio.info(path).rate
    stream = spotter.stream(rate, engine, decision)
    for block in audio.blocks(path, 10 * rate):
        yield from stream.step(block.mean(1))
    yield from stream.flush()
