"""Numbered streams of training clips: clip n follows from the seed, the stream's number and n alone.

Workers, ranks and resumption only choose which n are asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.utils.data import Dataset
from torch.utils.data.distributed import DistributedSampler

from lrnn.data import audio
from lrnn.data.faults import FAULTS, Fault
from lrnn.data.mix import Mixer
from lrnn.data.ndns import NdnsFolder

SILENT_PEAK = 1e-3
"""Clean speech that stays below -60 dBFS is silence: no estimate of it has an SI-SNR."""
_MAX_DRAWS = 100


class Mixtures(Dataset):
    """An endless stream of mixtures drawn on the fly.

    Args:
        mixer: draws the clips.
        seed: of all streams.
        stream: streams of other numbers share no clip with this one.
        length: what len() says; every n >= 0 is there.
    """

    def __init__(self, mixer: Mixer, seed: int, stream: int, length: int):
        self.mixer, self.seed, self.stream, self.length = mixer, seed, stream, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, n: int) -> tuple[Tensor, Tensor]:
        """Noisy and clean, (N,) float32 each."""
        noisy, clean = self.mixer(self.seed, self.stream, n)
        return torch.from_numpy(noisy), torch.from_numpy(clean)


class ReadyMixtures(Dataset):
    """An endless stream of clips from a folder of ready mixtures, shuffled anew for each pass through it.

    Pass e of stream s is in an order drawn from (seed, s, e); where clip n begins in its file is drawn from
    (seed, s, n), anew where no speech is, and so is another file in place of a faulty one.

    Args:
        folder: the mixtures.
        clip_seconds: length of a clip; shorter files are padded with zeros.
        seed: of all streams.
        stream: streams of other numbers have other orders and clips, of the same files.
        length: what len() says; every n >= 0 is there.
    """

    def __init__(self, folder: NdnsFolder, clip_seconds: float, seed: int, stream: int, length: int):
        self.folder, self.seed, self.stream, self.length = folder, seed, stream, length
        self.clip_samples = round(clip_seconds * folder.sample_rate)
        if self.clip_samples < 1:
            raise ValueError(f"clip_seconds is {clip_seconds}, expected at least one sample")

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, n: int) -> tuple[Tensor, Tensor]:
        """Noisy and clean, (N,) float32 each."""
        epoch, place = divmod(n, len(self.folder))
        index = int(pass_order(len(self.folder), self.seed, self.stream, epoch)[place])
        rng = np.random.default_rng(np.random.SeedSequence((self.seed, self.stream, n)))
        for _ in range(_MAX_DRAWS):
            try:
                return self._crop(index, rng)
            except FAULTS as error:
                self.folder.meet(index, error)
                index = int(rng.integers(len(self.folder)))
        raise Fault(f"{self.folder.path}: {_MAX_DRAWS} mixtures in a row are faulty")

    def _crop(self, index: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """A stretch of a mixture with speech in it."""
        rate = self.folder.sample_rate
        noisy_path, clean_path = self.folder.paths(index)
        length, other = (audio.resampled_length(audio.check(p), rate) for p in (noisy_path, clean_path))
        if length != other:
            raise Fault(
                f"{clean_path}: {other} samples, expected {length} as in {noisy_path.name}",
                "of unequal lengths",
            )
        last = max(length - self.clip_samples, 0)
        start = int(rng.integers(last, endpoint=True))
        clean = self._span(clean_path, start, length)
        if clean.abs().max() < SILENT_PEAK:
            start = min(
                max(self._loudest(clean_path, length) - int(rng.integers(self.clip_samples)), 0), last
            )
            clean = self._span(clean_path, start, length)
        return self._span(noisy_path, start, length), clean

    def _span(self, path, start: int, length: int) -> Tensor:
        stop = min(start + self.clip_samples, length)
        samples = torch.from_numpy(audio.read_span(path, start, stop, self.folder.sample_rate))
        return pad(samples, (0, self.clip_samples - len(samples)))

    def _loudest(self, path, length: int) -> int:
        """Where a clean file's peak is."""
        height = np.abs(audio.read_span(path, 0, length, self.folder.sample_rate))
        if height.max() < SILENT_PEAK:
            raise Fault(f"{path}: silent, expected speech", "silent")
        return int(height.argmax())


@lru_cache(maxsize=4)
def pass_order(count: int, seed: int, stream: int, epoch: int) -> np.ndarray:
    """The order of a pass, (count,). Few are in use at a time, whoever asks."""
    return np.random.default_rng(np.random.SeedSequence((seed, stream, epoch, count))).permutation(count)


class StreamSampler(DistributedSampler):
    """Yields `length` numbers for each rank: from `position()` on, where the stream stands when iterated.

    With R ranks, rank r takes position + r, position + r + R, ...: together they take what one process would.
    It is a DistributedSampler by name, so that Lightning does not wrap it into one that shuffles.

    Args:
        length: numbers per rank.
        position: the first number that no rank has used.
        rank: of this process.
        world_size: ranks.
    """

    def __init__(self, length: int, position: Callable[[], int], rank: int = 0, world_size: int = 1):
        self.length, self.position, self.rank, self.num_replicas = length, position, rank, world_size

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[int]:
        start = self.position() + self.rank
        return iter(range(start, start + self.length * self.num_replicas, self.num_replicas))

    def set_epoch(self, epoch: int) -> None:
        """Nothing: the position says it all."""
