"""Data for keyword spotting: clips augmented on the fly to train on, the clips of a split to validate on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from lrnn.data.keyword_mix import KeywordAugment, KeywordMixer, KeywordStream, LabelledClips
from lrnn.data.keywords import KeywordClips, KeywordFolder, find_keywords, hold_out
from lrnn.data.sources import MEMORY_LIMIT, Recordings, find_sources, read_recordings
from lrnn.data.stream import StreamSampler

_TRAINING, _CALIBRATION = range(2)  # streams of clips that share no draw
_BATCH = 64  # of validation
_BACKGROUND = "_background_noise_"


class KeywordData(L.LightningDataModule):
    """Training clips without end, cut into epochs only to pace validation and checkpoints.

    Clip n of the training stream depends on (seed, n) alone, and the stream goes on from the number of
    batches that the trainer has processed: a run resumed from any checkpoint sees the clips it would have
    seen. What is told apart, the labels, belongs to the module.

    Args:
        root: folder with keywords, such as kws-mini, Speech Commands or the folder that holds one. None takes
            LRNN_DATA.
        noise: folder with recordings of noise. None takes `_background_noise_` of the corpus, or else the
            noise of ndns-mini below `root`; without one nothing is mixed in.
        speech: folder with recordings of speech to learn "_unknown_" from. None takes the speech of ndns-mini
            below `root`, if it is there.
        speech_files: glob of the files in `speech` that are used.
        batch_size: clips per training batch and process.
        batches_per_epoch: training batches of a process between validations.
        augment: what happens to a training clip.
        held_out: share of the training speakers, chosen by a hash of their names, that are validated on and
            not trained on. 0 trains on all and validates on the validation split.
        seed: of the augmentation.
        num_workers: processes that augment; 0 does it in the training process.
        memory_limit: bytes of samples up to which the keywords (and noise, and speech) are held in memory.
    """

    def __init__(
        self,
        root: str | None = None,
        noise: str | None = None,
        speech: str | None = None,
        speech_files: str = "*",
        batch_size: int = 64,
        batches_per_epoch: int = 100,
        augment: KeywordAugment = KeywordAugment(),  # noqa: B008  frozen
        held_out: float = 0.0,
        seed: int = 0,
        num_workers: int = 0,
        memory_limit: int = MEMORY_LIMIT,
    ):
        super().__init__()
        if batch_size < 1 or batches_per_epoch < 1:
            raise ValueError(
                f"batch_size, batches_per_epoch are {batch_size}, {batches_per_epoch}, expected at least 1"
            )
        if not 0 <= held_out < 1:
            raise ValueError(f"held_out is {held_out}, expected 0 <= held_out < 1")
        self.root = root if root is not None else os.environ.get("LRNN_DATA")
        self.noise, self.speech, self.speech_files = noise, speech, speech_files
        self.batch_size, self.batches_per_epoch = batch_size, batches_per_epoch
        self.augment, self.held_out, self.seed = augment, held_out, seed
        self.num_workers, self.memory_limit = num_workers, memory_limit
        self.mixer: KeywordMixer | None = None
        self.validation: LabelledClips | None = None

    def setup(self, stage: str) -> None:
        """Find and read the recordings, once."""
        if self.validation is None:
            self.read(self.trainer.lightning_module.labels)

    def read(self, labels: tuple[str, ...]) -> None:
        """Find and read the recordings for a network that tells `labels` apart."""
        if self.root is None:
            raise ValueError("no data: name a folder with keywords by root or LRNN_DATA")
        folder = find_keywords(self.root)
        kept, held_out = hold_out(folder.split("training"), self.held_out)
        noise, speech = self._noise(folder), self._speech()
        self.mixer = KeywordMixer(self._clips(folder, kept), labels, noise, speech, self.augment)
        validation = held_out if self.held_out else folder.split("validation")
        self.validation = LabelledClips(self._clips(folder, validation), labels)

    def _clips(self, folder: KeywordFolder, clips) -> KeywordClips:
        return KeywordClips(folder, clips, self.memory_limit)

    def _noise(self, folder: KeywordFolder) -> Recordings | None:
        place = self.noise
        if place is None:
            background = folder.folder / _BACKGROUND
            place = background if background.is_dir() else self._source("noise")
        return None if place is None else read_recordings(place, memory_limit=self.memory_limit)

    def _speech(self) -> Recordings | None:
        place = self.speech if self.speech is not None else self._source("clean")
        if place is None:
            return None
        return read_recordings(place, memory_limit=self.memory_limit, files=self.speech_files)

    def _source(self, kind: str) -> Path | None:
        """The folder of ndns-mini with recordings of a kind."""
        try:
            return find_sources(self.root) / kind
        except FileNotFoundError:
            return None

    def train_dataloader(self) -> DataLoader:
        """Batches of the training stream from the trainer's position on."""
        clips = self.batches_per_epoch * self.batch_size
        return DataLoader(
            KeywordStream(self.mixer, self.seed, _TRAINING, clips),
            self.batch_size,
            sampler=StreamSampler(clips, self._position, self.trainer.global_rank, self.trainer.world_size),
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            drop_last=True,
            generator=torch.Generator(),  # so that making an iterator draws nothing from the global generator
        )

    def _position(self) -> int:
        """Clips used so far by all processes. Counted at each optimiser step, so true in every checkpoint."""
        batches = self.trainer.fit_loop.epoch_loop.batch_progress.total.processed
        return batches * self.batch_size * self.trainer.world_size

    def val_dataloader(self) -> DataLoader:
        """Validation clips in their order; each in one process only."""
        rank, world_size = self.trainer.global_rank, self.trainer.world_size
        share = StreamSampler(len(range(rank, len(self.validation), world_size)), lambda: 0, rank, world_size)
        return DataLoader(self.validation, _BATCH, sampler=share, generator=torch.Generator())

    def calibration_batches(self, count: int) -> Iterator[tuple[Tensor, Tensor]]:
        """`count` batches like the training batches, the same each time and on every process."""
        clips = KeywordStream(self.mixer, self.seed, _CALIBRATION, count * self.batch_size)
        return iter(DataLoader(clips, self.batch_size, generator=torch.Generator()))

    @property
    def card(self) -> dict:
        """What a model card says of the data: plain values, no paths of this machine."""
        return {
            "corpus": None if self.root is None else find_keywords(self.root).folder.resolve().name,
            "batch_size": self.batch_size,
            "held_out": self.held_out,
            "seed": self.seed,
            "augment": asdict(self.augment),
        }
