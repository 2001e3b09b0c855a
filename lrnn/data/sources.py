"""Recordings, in memory or on disk, and random stretches drawn from them."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

import numpy as np

from lrnn.data import audio
from lrnn.data.faults import FAULTS, Fault, FaultLog, Policy
from lrnn.data.index import Entry, Progress, index_folder, unseen

GAP_SECONDS = 0.2
MEMORY_LIMIT = 1 << 30
"""Bytes of samples that are held in memory (9.3 hours at 16 kHz); more are read as they are drawn."""
_KINDS = (("clean", "noise"), ("clean_fullband", "noise_fullband"))
_PLACES = ("", "sources/train", "ndns-mini/sources/train", "datasets", "datasets_fullband")
_MAX_DRAWS = 100


class Recordings:
    """Many mono recordings in one int16 array: an hour at 16 kHz takes 115 MB.

    Args:
        recordings: (n,) int16 arrays, or float arrays in -1..1.
        sample_rate: of all of them, in Hz.
        log: the faulty files that were left out, of a folder.
    """

    def __init__(
        self, recordings: Sequence[np.ndarray], sample_rate: int = 16000, log: FaultLog | None = None
    ):
        recordings = [_int16(r) for r in recordings if len(r)]
        if not recordings:
            raise ValueError("recordings is empty, expected at least one array with samples")
        self._samples = np.concatenate(recordings)
        self._set([len(r) for r in recordings], sample_rate, log)

    def _set(self, lengths: Sequence[int], sample_rate: int, log: FaultLog | None) -> None:
        self.sample_rate, self.log = sample_rate, log
        self._ends = np.cumsum(lengths)  # (m,) one past each recording's last sample
        self._gap = round(GAP_SECONDS * sample_rate)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> np.ndarray:
        """One recording, (n,) int16."""
        return self._read(index, self._start(index), int(self._ends[index]))

    @property
    def seconds(self) -> float:
        """Length of all recordings together."""
        return int(self._ends[-1]) / self.sample_rate

    def draw(self, rng: np.random.Generator, length: int) -> np.ndarray:
        """A random stretch of (length,) int16 samples.

        It starts at a sample drawn uniformly from all recordings; where a recording ends, 0.2 s of silence
        and another one drawn at random follow.
        """
        clip = np.zeros(length, np.int16)
        start = int(rng.integers(int(self._ends[-1])))
        index = int(np.searchsorted(self._ends, start, side="right"))
        filled = 0
        while filled < length:
            piece = self._read(index, start, min(int(self._ends[index]), start + length - filled))
            clip[filled : filled + len(piece)] = piece
            filled += len(piece) + self._gap
            index = int(rng.integers(len(self._ends)))
            start = self._start(index)
        return clip

    def _start(self, index: int) -> int:
        return int(self._ends[index - 1]) if index else 0

    def _read(self, index: int, start: int, stop: int) -> np.ndarray:
        """Samples [start, stop), counted over all recordings, of which all belong to recording `index`."""
        return self._samples[start:stop]


class StreamedRecordings(Recordings):
    """Recordings that stay on disk: draws the very samples that `Recordings` of the same files would.

    Only the lengths are held. A file that turns out silent or not finite is found when it is drawn: an error,
    or another draw in place of the whole stretch.

    Args:
        folder: that holds them.
        entries: its index; faulty ones are left out.
        sample_rate: in Hz; files of other rates are resampled.
        faults: what is done about a file that is found faulty.
        log: counts those files, by their place in `entries`.
    """

    def __init__(self, folder, entries: Sequence[Entry], sample_rate: int, faults: Policy, log: FaultLog):
        self.folder, self.faults = Path(folder), faults
        self._places = _sound(entries, sample_rate)
        self._paths = [entries[place].path for place in self._places]
        lengths = [audio.resampled_length(entries[place].info, sample_rate) for place in self._places]
        self._set(lengths, sample_rate, log)

    def draw(self, rng: np.random.Generator, length: int) -> np.ndarray:
        """A random stretch of (length,) int16 samples; see Recordings."""
        for _ in range(_MAX_DRAWS):
            try:
                return super().draw(rng, length)
            except FAULTS as error:
                if self.faults == "error":
                    raise
                last = error
        raise ValueError(f"{_MAX_DRAWS} stretches in a row could not be read, the last: {last}")

    def _read(self, index: int, start: int, stop: int) -> np.ndarray:
        path, first = self.folder / self._paths[index], self._start(index)
        try:
            samples = _read_int16(path, start - first, stop - first, self.sample_rate)
            if not samples.any():
                _read_int16(path, 0, int(self._ends[index]) - first, self.sample_rate, audible=True)
        except FAULTS as error:
            self.log.note(self._places[index], error)
            raise
        return samples


def read_recordings(
    folder,
    sample_rate: int = 16000,
    faults: Policy = "error",
    memory_limit: int = MEMORY_LIMIT,
    progress: Progress = unseen,
    files: str = "*",
) -> Recordings:
    """The WAV and FLAC files below a folder; other rates are resampled, channels averaged.

    Args:
        folder: at any depth of which the files are.
        sample_rate: in Hz.
        faults: what is done about files that are unreadable, truncated, silent or not finite.
        memory_limit: bytes of samples up to which the files are read into memory; more stay on disk.
        progress: shows how far the reading is.
        files: glob of the files' names; the others are left alone.

    Raises:
        FileNotFoundError: no files. Fault: a faulty one, or none that is not.
    """
    entries = [e for e in index_folder(folder, progress) if fnmatch(e.path.split("/")[-1], files)]
    if not entries:
        raise FileNotFoundError(f"{folder}: no audio files named {files!r}")
    log = FaultLog([entry.path for entry in entries])
    for place, entry in enumerate(entries):
        if entry.fault is not None:
            _meet(entry.fault, place, faults, log)
    sound = _sound(entries, sample_rate)
    if not sound:
        raise Fault(f"{folder}: {log.report()}, expected at least one with sound")
    lengths = [audio.resampled_length(entries[place].info, sample_rate) for place in sound]
    if 2 * sum(lengths) > memory_limit:
        return StreamedRecordings(folder, entries, sample_rate, faults, log)
    recordings = []
    for place, length in progress(zip(sound, lengths, strict=True), len(sound), "recordings"):
        path = Path(folder) / entries[place].path
        try:
            recordings.append(_read_int16(path, 0, length, sample_rate, audible=True))
        except FAULTS as error:
            _meet(error, place, faults, log)
    if not recordings:
        raise Fault(f"{folder}: {log.report()}, expected at least one with sound")
    return Recordings(recordings, sample_rate, log)


def _sound(entries: Sequence[Entry], sample_rate: int) -> list[int]:
    """Places of the entries that hold samples, as far as headers tell."""
    return [
        place for place, e in enumerate(entries) if e.info and audio.resampled_length(e.info, sample_rate)
    ]


def _meet(error: Exception, place: int, faults: Policy, log: FaultLog) -> None:
    if faults == "error":
        raise error
    log.note(place, error)


def _read_int16(path: Path, start: int, stop: int, sample_rate: int, audible: bool = False) -> np.ndarray:
    samples = audio.to_int16(audio.read_span(path, start, stop, sample_rate))
    if audible and not samples.any():
        raise Fault(f"{path}: silent, expected a recording with sound", "silent")
    return samples


def read_sources(
    folder,
    sample_rate: int = 16000,
    faults: Policy = "error",
    memory_limit: int = MEMORY_LIMIT,
    progress: Progress = unseen,
) -> tuple[Recordings, Recordings]:
    """Clean and noise recordings of a folder that `find_sources` finds; see `read_recordings`."""
    clean, noise = (
        read_recordings(place, sample_rate, faults, memory_limit, progress)
        for place in source_folders(folder)
    )
    return clean, noise


def find_sources(data) -> Path:
    """The folder with clean/ and noise/ (or clean_fullband/ and noise_fullband/) to mix from: `data` itself,
    or where the DNS corpora and ndns-mini keep it below `data`.

    A folder of ready mixtures, which has noisy/ too, is not taken.
    """
    places = [Path(data) / place for place in _PLACES]
    for place in places:
        if _source_names(place):
            return place
    looked = ", ".join(str(p) for p in places)
    raise FileNotFoundError(
        f"{data}: no sources to mix; expected a folder with clean/ and noise/, looked at {looked}"
    )


def source_folders(folder) -> tuple[Path, Path]:
    """Where a folder that `find_sources` finds keeps clean recordings and noise."""
    clean, noise = _source_names(Path(folder)) or _KINDS[0]
    return Path(folder) / clean, Path(folder) / noise


def _source_names(folder: Path) -> tuple[str, str] | None:
    if (folder / "noisy").exists():
        return None
    return next((names for names in _KINDS if all((folder / name).is_dir() for name in names)), None)


def _int16(samples: np.ndarray) -> np.ndarray:
    samples = np.asarray(samples)
    if samples.ndim != 1:
        raise ValueError(f"a recording has shape {samples.shape}, expected (n,)")
    if samples.dtype == np.int16:
        return samples
    if samples.dtype.kind != "f":
        raise TypeError(f"a recording is {samples.dtype}, expected int16 or float")
    if not np.isfinite(samples).all():
        raise ValueError("a recording has NaN or infinite samples")
    return audio.to_int16(samples)
