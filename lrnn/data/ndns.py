"""Ready mixtures in the layout of the Intel N-DNS challenge.

    noisy/<names>_snr<S>_tl<L>_fileid_<N>.wav    clean/clean_fileid_<N>.wav    noise/noise_fileid_<N>.wav

FLAC serves as well as WAV. noise/ is not read: it is noisy - clean. Training and validation sets have this
form; a folder is listed once, its files are read as they are asked for.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.utils.data import Dataset

from lrnn.data import audio
from lrnn.data.faults import FAULTS, Fault, FaultLog, Policy

_FILE_ID = re.compile(r"fileid_(\d+)$")
_SNR = re.compile(r"_snr(-?\d+)")
_LEVEL = re.compile(r"_tl(-?\d+)")


class ClipInfo(NamedTuple):
    """What a mixture's file name says; NaN where it does not."""

    file_id: int
    snr: float  # dB
    level: float  # dBFS
    name: str


class Clip(NamedTuple):
    """A mixture, its clean speech and what its name says."""

    noisy: Tensor  # (N,) float32
    clean: Tensor  # (N,) float32
    info: ClipInfo


class NdnsFolder(Dataset):
    """The mixtures of a folder, ordered by file id.

    Args:
        path: a folder with noisy/ and clean/.
        clip_samples: cut or pad with zeros to this many samples (the challenge: 480,000); None leaves the
            lengths.
        sample_rate: in Hz; files of another rate are resampled.
        faults: what is done about a mixture with a file that is missing, unreadable, truncated or not finite:
            the error is raised, or it is counted in `log` and the next mixture is given in its place.
    """

    def __init__(
        self,
        path,
        clip_samples: int | None = None,
        sample_rate: int = 16000,
        faults: Policy = "error",
    ):
        self.path, self.clip_samples, self.sample_rate = Path(path), clip_samples, sample_rate
        self.faults = faults
        self._noisy, self._clean = (_by_id(self.path / kind) for kind in ("noisy", "clean"))
        self._ids = sorted(self._noisy)
        self.log = FaultLog([self._noisy[i] for i in self._ids])
        for index, file_id in enumerate(self._ids):
            if file_id not in self._clean:
                self.meet(index, self._without_clean(file_id))

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: int) -> Clip:
        """Read one mixture, or the next sound one where faults are skipped."""
        index = range(len(self))[index]  # IndexError beyond the end, where iteration stops
        for step in range(len(self)):
            place = (index + step) % len(self)
            try:
                return self._whole(place)
            except FAULTS as error:
                self.meet(place, error)
        raise Fault(f"{self.path}: {self.log.report()}, expected at least one sound mixture")

    def meet(self, index: int, error: Exception) -> None:
        """Raise what is wrong with a mixture, or count it, as `faults` says."""
        if self.faults == "error":
            raise error
        self.log.note(index, error)

    def paths(self, index: int) -> tuple[Path, Path]:
        """Where a mixture's noisy and clean sound is.

        Raises:
            FileNotFoundError: there is no clean file.
        """
        file_id = self._ids[index]
        if file_id not in self._clean:
            raise self._without_clean(file_id)
        return self.path / "noisy" / self._noisy[file_id], self.path / "clean" / self._clean[file_id]

    def _without_clean(self, file_id: int) -> FileNotFoundError:
        return FileNotFoundError(
            f"{self.path}: clean/ has no file with fileid_{file_id}, noisy/ has {self._noisy[file_id]}"
        )

    def _whole(self, index: int) -> Clip:
        paths = noisy_path, clean_path = self.paths(index)
        noisy, clean = (self._read(path) for path in paths)
        if noisy.shape != clean.shape:
            raise Fault(
                f"{clean_path}: {len(clean)} samples, expected {len(noisy)} as in {noisy_path.name}",
                "of unequal lengths",
            )
        return Clip(noisy, clean, self.info(index))

    def info(self, index: int) -> ClipInfo:
        """What the name of a mixture says; nothing is read."""
        file_id = self._ids[index]
        name = Path(self._noisy[file_id]).stem
        return ClipInfo(file_id, _number(_SNR, name), _number(_LEVEL, name), name)

    def _read(self, path: Path) -> Tensor:
        audio.check(path)
        samples = torch.from_numpy(audio.read_mono(path, self.sample_rate))
        if self.clip_samples is None:
            return samples
        return pad(samples[: self.clip_samples], (0, max(0, self.clip_samples - len(samples))))


def find_training(data) -> Path:
    """The folder of ready mixtures for training, where N-DNS keeps it below `data`."""
    return _find(data, ("training_set", "ndns-mini/training_set"))


def find_validation(data) -> Path:
    """The folder of mixtures for validation: `data`, or where N-DNS and ndns-mini keep it below `data`."""
    return _find(data, ("", "validation_set", "ndns-mini/validation_set"))


def _find(data, places: tuple[str, ...]) -> Path:
    folders = [Path(data) / place for place in places]
    for folder in folders:
        if (folder / "noisy").is_dir() and (folder / "clean").is_dir():
            return folder
    looked = ", ".join(str(folder) for folder in folders)
    raise FileNotFoundError(
        f"{data}: no mixtures; expected a folder with noisy/ and clean/, looked at {looked}"
    )


def _by_id(folder: Path) -> dict[int, str]:
    """File names by the id in them; names alone, as 120,000 of them are held."""
    names = sorted(os.listdir(folder)) if folder.is_dir() else []
    found = {}
    for name in names:
        stem, suffix = os.path.splitext(name)
        if suffix.lower() in audio.EXTENSIONS and (match := _FILE_ID.search(stem)):
            found[int(match[1])] = name
    if not found:
        raise FileNotFoundError(f"{folder}: no files named ...fileid_<N>.wav or .flac")
    return found


def _number(pattern: re.Pattern, name: str) -> float:
    match = pattern.search(name)
    return float(match[1]) if match else float("nan")
