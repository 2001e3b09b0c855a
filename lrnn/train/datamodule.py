"""Data for the denoiser: mixtures drawn on the fly to train on, a fixed set of mixed clips to validate on."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import asdict

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from lrnn.data.augment import OFF, Augment
from lrnn.data.mix import Mixer
from lrnn.data.ndns import NdnsFolder, find_validation
from lrnn.data.sources import Recordings, find_sources, read_sources
from lrnn.data.synthetic import synthetic_sources

_TRAINING, _CALIBRATION, _VALIDATION = range(3)  # streams of mixtures that share no clip


class DenoiseData(L.LightningDataModule):
    """Training mixtures without end, cut into epochs only to pace validation and checkpoints.

    Clip n of the training stream depends on (seed, n) alone, and the stream goes on from the number of
    batches that the trainer has processed: a run resumed from any checkpoint, in the middle of an epoch too,
    sees the clips it would have seen.

    Args:
        root: folder with sources to mix and a validation set (such as ndns-mini, or the folder that holds
            it). None takes LRNN_DATA; without either a small synthetic corpus stands in, with a notice.
        batch_size: clips per training batch.
        batches_per_epoch: training batches between validations.
        clip_seconds: length of a training clip.
        snr: least and greatest SNR of the mixtures in dB.
        level: least and greatest RMS of the mixtures in dBFS.
        seed: of the mixtures.
        num_workers: processes that mix; 0 mixes in the training process, which takes a few milliseconds per
            batch.
        augment: what else may happen to a training clip; off by default.
    """

    def __init__(
        self,
        root: str | None = None,
        batch_size: int = 16,
        batches_per_epoch: int = 250,
        clip_seconds: float = 2.0,
        snr: tuple[int, int] = (-5, 20),
        level: tuple[float, float] = (-35.0, -15.0),
        seed: int = 0,
        num_workers: int = 0,
        augment: Augment = OFF,
    ):
        super().__init__()
        if batch_size < 1 or batches_per_epoch < 1:
            raise ValueError(
                f"batch_size, batches_per_epoch are {batch_size}, {batches_per_epoch}, expected at least 1"
            )
        self.root = root if root is not None else os.environ.get("LRNN_DATA")
        self.batch_size, self.batches_per_epoch = batch_size, batches_per_epoch
        self.clip_seconds, self.snr, self.level = clip_seconds, snr, level
        self.seed, self.num_workers, self.augment = seed, num_workers, augment
        self.mixer: Mixer | None = None
        self.validation: Dataset | None = None

    def setup(self, stage: str) -> None:
        """Read the recordings, once."""
        if self.mixer is not None:
            return
        if self.root is None:
            rank_zero_warn(
                "no data: training on synthetic sounds, which teaches nothing about speech; "
                "name a corpus with --data.root or LRNN_DATA"
            )
            self.mixer = self._mixer(*synthetic_sources(self.seed))
            held_out = Mixer(*synthetic_sources(self.seed + 1), self.clip_seconds, self.snr, self.level)
            self.validation = Mixtures(held_out, self.seed, _VALIDATION, self.batch_size)
            return
        self.mixer = self._mixer(*read_sources(find_sources(self.root)))
        self.validation = NdnsFolder(find_validation(self.root))

    def _mixer(self, clean: Recordings, noise: Recordings) -> Mixer:
        return Mixer(clean, noise, self.clip_seconds, self.snr, self.level, self.augment)

    def train_dataloader(self) -> DataLoader:
        """Batches of the training stream from the trainer's position on."""
        clips = self.batches_per_epoch * self.batch_size
        return DataLoader(
            Mixtures(self.mixer, self.seed, _TRAINING, clips),
            self.batch_size,
            sampler=StreamSampler(clips, self._position),
            num_workers=self.num_workers,
            drop_last=True,
            generator=torch.Generator(),  # so that making an iterator draws nothing from the global generator
        )

    def _position(self) -> int:
        """Clips used so far by all processes. Counted at each optimiser step, so true in every checkpoint."""
        batches = self.trainer.fit_loop.epoch_loop.batch_progress.total.processed
        return batches * self.batch_size * self.trainer.world_size

    def val_dataloader(self) -> DataLoader:
        """Validation clips one by one, so that they may differ in length."""
        return DataLoader(self.validation, 1, collate_fn=_one_clip, generator=torch.Generator())

    def calibration_batches(self, count: int) -> Iterator[tuple[Tensor, Tensor]]:
        """`count` batches like the training batches, the same each time, that training never sees."""
        clips = Mixtures(self.mixer, self.seed, _CALIBRATION, count * self.batch_size)
        return iter(DataLoader(clips, self.batch_size, generator=torch.Generator()))

    @property
    def card(self) -> dict:
        """What a model card says of the data: plain values, no paths of this machine."""
        return {
            "corpus": _corpus(self.root),
            "batch_size": self.batch_size,
            "clip_seconds": self.clip_seconds,
            "snr_db": list(self.snr),
            "level_dbfs": list(self.level),
            "seed": self.seed,
            "augment": {k: v for k, v in asdict(self.augment).items() if v != getattr(OFF, k)},
        }


class Mixtures(Dataset):
    """An endless, numbered stream of mixtures: clip n follows from (seed, stream, n).

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


class StreamSampler(Sampler[int]):
    """Yields `length` numbers from `position()` on, where the stream stands when it is iterated."""

    def __init__(self, length: int, position: Callable[[], int]):
        self.length, self.position = length, position

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[int]:
        start = self.position()
        return iter(range(start, start + self.length))


def _corpus(root: str | None) -> str:
    """The name of the folder that holds the sources, or "synthetic"."""
    if root is None:
        return "synthetic"
    sources = find_sources(root).resolve()
    return sources.parents[1].name if sources.parts[-2:] == ("sources", "train") else sources.name


def _one_clip(items: list) -> tuple[Tensor, Tensor]:
    noisy, clean = (torch.as_tensor(x)[None] for x in items[0][:2])
    return noisy, clean
