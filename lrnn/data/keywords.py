"""Spoken keywords in the layout of Google's Speech Commands (Warden 2018, arXiv 1804.03209), read from disk.

A folder for each word with one-second clips `<speaker>_nohash_<n>.wav` (or .flac), and two lists of clips,
`validation_list.txt` and `testing_list.txt`; the clips in neither are for training. The lists keep each
speaker's clips together. Folders that begin with an underscore hold no words.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from lrnn.data import audio
from lrnn.data.sources import MEMORY_LIMIT

SAMPLE_RATE = 16000
UNKNOWN, SILENCE = "_unknown_", "_silence_"
"""Labels of speech that is none of the words, and of no speech; no folder of words has such a name."""
LISTS = {"validation": "validation_list.txt", "testing": "testing_list.txt"}
Split = Literal["training", "validation", "testing"]
_GOOGLE_S = ("speech_commands_v0.01", "speech_commands_v0.02")  # names of the corpus's own folder
_PLACES = ("", "kws-mini", "SpeechCommands/speech_commands_v0.02", "speech_commands_v0.02")


class Clip(NamedTuple):
    """A clip's place below its corpus, such as "down/0a7c2a8d_nohash_0.wav"."""

    path: str

    @property
    def word(self) -> str:
        """What is said."""
        return self.path.split("/")[0]

    @property
    def speaker(self) -> str:
        """Who says it: the hash in the file's name."""
        return self.path.split("/")[-1].split("_nohash_")[0]


class KeywordFolder:
    """A folder of keywords: its words and the clips of each split.

    Args:
        folder: that holds a folder for each word.

    Raises:
        FileNotFoundError: no such folder, or one without words.
    """

    def __init__(self, folder: str | PathLike):
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise FileNotFoundError(f"{folder}: no such folder, expected one with a folder for each word")
        found = sorted(p for p in self.folder.iterdir() if p.is_dir() and p.name[0] not in "._")
        clips = {p.name: sorted(f.name for f in p.iterdir() if _is_clip(f)) for p in found}
        self._clips = {word: names for word, names in clips.items() if names}
        if not self._clips:
            raise FileNotFoundError(f"{folder}: no words, expected folders with WAV or FLAC files")

    @property
    def words(self) -> tuple[str, ...]:
        """What is said in it, in alphabetical order."""
        return tuple(self._clips)

    @cached_property
    def clips(self) -> tuple[Clip, ...]:
        """All of them, word by word."""
        return tuple(Clip(f"{word}/{name}") for word, names in self._clips.items() for name in names)

    def split(self, name: Split) -> tuple[Clip, ...]:
        """The clips of a split: those of its list, or for "training" those of no list, in alphabetical order.

        Of the corpus as Google packed it, torchaudio reads the lists where it imports.

        Raises:
            FileNotFoundError: a list that is not there, or names a clip that is not.
            ValueError: no such split.
        """
        if name not in ("training", *LISTS):
            raise ValueError(f"split is {name!r}, expected 'training', 'validation' or 'testing'")
        if self.folder.name in _GOOGLE_S and (paths := audio.speech_commands(self.folder, name)) is not None:
            return tuple(Clip(path) for path in sorted(paths))
        if name != "training":
            return self._listed(name)
        held_out = {clip for other in LISTS for clip in self._listed(other)}
        return tuple(clip for clip in self.clips if clip not in held_out)

    def to_report(self) -> tuple[str, tuple[Clip, ...]]:
        """What figures are made on: the testing clips, else the validation clips; without lists, all clips.

        Returns:
            "testing", "validation" or "all", and the clips.
        """
        for name in ("testing", "validation"):
            if (self.folder / LISTS[name]).is_file() and (clips := self._listed(name)):
                return name, clips
        return "all", self.clips

    def _listed(self, name: str) -> tuple[Clip, ...]:
        path = self.folder / LISTS[name]
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such list, expected the clips for {name}, one a line")
        there = set(self.clips)
        clips = tuple(
            Clip(line) for line in sorted(filter(None, map(str.strip, path.read_text().splitlines())))
        )
        for clip in clips:
            if clip not in there:
                raise FileNotFoundError(f"{path}: names {clip.path}, which is not there")
        return clips


def find_keywords(data: str | PathLike) -> KeywordFolder:
    """The folder of keywords at `data`, or where kws-mini and Speech Commands v2 lie below it.

    Raises:
        FileNotFoundError: none of them is there.
    """
    places = [Path(data) / place for place in _PLACES]
    for place in places:
        if any((place / name).is_file() for name in LISTS.values()):
            return KeywordFolder(place)
    for place in places[:1]:  # a folder of words without lists
        if place.is_dir() and any(p.is_dir() and any(map(_is_clip, p.iterdir())) for p in place.iterdir()):
            return KeywordFolder(place)
    looked = ", ".join(map(str, places))
    raise FileNotFoundError(
        f"{data}: no keywords; expected {' and '.join(LISTS.values())} beside a folder for each word, "
        f"looked at {looked}"
    )


def hold_out(clips: Sequence[Clip], share: float) -> tuple[tuple[Clip, ...], tuple[Clip, ...]]:
    """Part clips by speaker, the same way each time: those to keep, and about `share` of them held out."""
    if not 0 <= share < 1:
        raise ValueError(f"share is {share}, expected 0 <= share < 1")
    is_out = [_place(clip.speaker) < share for clip in clips]
    kept = tuple(clip for clip, out in zip(clips, is_out, strict=True) if not out)
    return kept, tuple(clip for clip, out in zip(clips, is_out, strict=True) if out)


def _place(speaker: str) -> float:
    """A speaker's place in 0..1, drawn by a hash."""
    return int(hashlib.sha1(speaker.encode()).hexdigest()[:8], 16) / 2**32


class KeywordClips:
    """Clips as samples of one second: shorter ones have silence after them, longer ones lose their end.

    Args:
        folder: of the corpus.
        clips: which of it.
        memory_limit: bytes of samples up to which the clips are read into memory, at once; more are read
            whenever they are asked for.
    """

    def __init__(self, folder: KeywordFolder, clips: Sequence[Clip], memory_limit: int = MEMORY_LIMIT):
        if not clips:
            raise ValueError(f"{folder.folder}: no clips of the kind asked for, expected at least one")
        self.folder, self.clips = folder.folder, tuple(clips)
        self._held: np.ndarray | None = None
        if 2 * SAMPLE_RATE * len(clips) <= memory_limit:
            self._held = np.stack([self._read(i) for i in range(len(clips))])

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> np.ndarray:
        """One clip, (SAMPLE_RATE,) int16."""
        return self._read(index) if self._held is None else self._held[index]

    def _read(self, index: int) -> np.ndarray:
        samples = audio.to_int16(audio.read_mono(self.folder / self.clips[index].path, SAMPLE_RATE))
        samples = samples[:SAMPLE_RATE]
        return np.pad(samples, (0, SAMPLE_RATE - len(samples)))


def _is_clip(path: Path) -> bool:
    return path.suffix.lower() in audio.EXTENSIONS and not path.name.startswith(".")
