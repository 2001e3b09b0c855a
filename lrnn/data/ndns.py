"""Ready mixtures in the layout of the Intel N-DNS challenge.

    noisy/<names>_snr<S>_tl<L>_fileid_<N>.wav    clean/clean_fileid_<N>.wav    noise/noise_fileid_<N>.wav

FLAC serves as well as WAV. noise/ is not read: it is noisy - clean.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.utils.data import Dataset

from lrnn.data import audio

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
    """

    def __init__(self, path, clip_samples: int | None = None, sample_rate: int = 16000):
        self.path, self.clip_samples, self.sample_rate = Path(path), clip_samples, sample_rate
        noisy, clean = (_by_id(self.path / kind) for kind in ("noisy", "clean"))
        missing = sorted(noisy.keys() - clean.keys())
        if missing:
            raise FileNotFoundError(
                f"{path}: clean/ has no file with fileid_{missing[0]}, noisy/ has {noisy[missing[0]].name}"
            )
        self._pairs = [(i, noisy[i], clean[i]) for i in sorted(noisy)]

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> Clip:
        """Read one mixture."""
        noisy_path, clean_path = self.paths(index)
        noisy, clean = self._read(noisy_path), self._read(clean_path)
        if noisy.shape != clean.shape:
            raise ValueError(
                f"{clean_path}: {len(clean)} samples, expected {len(noisy)} as in {noisy_path.name}"
            )
        return Clip(noisy, clean, self.info(index))

    def paths(self, index: int) -> tuple[Path, Path]:
        """The files of one mixture: noisy, clean."""
        return self._pairs[index][1:]

    def info(self, index: int) -> ClipInfo:
        """What the name of one mixture says; nothing is read."""
        file_id, noisy_path, _ = self._pairs[index]
        name = noisy_path.stem
        return ClipInfo(file_id, _number(_SNR, name), _number(_LEVEL, name), name)

    def _read(self, path: Path) -> Tensor:
        samples = torch.from_numpy(audio.read_mono(path, self.sample_rate))
        if self.clip_samples is None:
            return samples
        return pad(samples[: self.clip_samples], (0, max(0, self.clip_samples - len(samples))))


def find_validation(data) -> Path:
    """The folder of mixtures for validation: `data`, or where N-DNS and ndns-mini keep it below `data`."""
    places = [Path(data) / p for p in ("", "validation_set", "ndns-mini/validation_set")]
    for place in places:
        if (place / "noisy").is_dir() and (place / "clean").is_dir():
            return place
    looked = ", ".join(str(p) for p in places)
    raise FileNotFoundError(
        f"{data}: no mixtures; expected a folder with noisy/ and clean/, looked at {looked}"
    )


def _by_id(folder: Path) -> dict[int, Path]:
    files = (
        [p for p in sorted(folder.glob("*")) if p.suffix.lower() in audio.EXTENSIONS]
        if folder.is_dir()
        else []
    )
    found = {int(m[1]): p for p in files if (m := _FILE_ID.search(p.stem))}
    if not found:
        raise FileNotFoundError(f"{folder}: no files named ...fileid_<N>.wav or .flac")
    return found


def _number(pattern: re.Pattern, name: str) -> float:
    match = pattern.search(name)
    return float(match[1]) if match else float("nan")
