"""Training data without end: what the data of all tasks have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

import lightning as L
import torch
from torch.utils.data import DataLoader, Dataset

from lrnn.data.stream import StreamSampler

TRAINING, CALIBRATION, VALIDATION = range(3)  # streams that share no draw


class StreamData(L.LightningDataModule):
    """A stream of training items, cut into epochs only to pace validation and checkpoints.

    Item n of the training stream depends on (seed, n) alone, and the stream goes on from the number of
    batches that the trainer has processed: a run resumed from any checkpoint, in the middle of an epoch too,
    sees the items it would have seen. Processes of a distributed run take turns in the one stream.

    Args:
        batch_size: items per training batch and process.
        batches_per_epoch: training batches of a process between validations.
        num_workers: processes that make training batches.
        validation_batch_size: items per validation batch.

    Attributes:
        validation: items to validate on, once `setup` has found them.
    """

    collate_validation: Callable[[list], Any] | None = None

    def __init__(
        self, batch_size: int, batches_per_epoch: int, num_workers: int, validation_batch_size: int
    ) -> None:
        super().__init__()
        for name, value in (("batch_size", batch_size), ("batches_per_epoch", batches_per_epoch)):
            if value < 1:
                raise ValueError(f"{name} is {value}, expected at least 1")
        self.batch_size, self.batches_per_epoch = batch_size, batches_per_epoch
        self.num_workers, self.validation_batch_size = num_workers, validation_batch_size
        self.validation: Dataset | None = None

    @abstractmethod
    def items(self, stream: int, count: int) -> Dataset:
        """The items of a stream, any number of them; `count` is its nominal length."""

    def train_dataloader(self) -> DataLoader:
        """Batches of the training stream from the trainer's position on."""
        count = self.batches_per_epoch * self.batch_size
        rank, world_size = self.trainer.global_rank, self.trainer.world_size
        return DataLoader(
            self.items(TRAINING, count),
            self.batch_size,
            sampler=StreamSampler(count, self._position, rank, world_size),
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            drop_last=True,
            generator=torch.Generator(),  # so that making an iterator draws nothing from the global generator
        )

    def _position(self) -> int:
        """Items used so far by all processes. Counted at each optimiser step, so true in every checkpoint."""
        batches = self.trainer.fit_loop.epoch_loop.batch_progress.total.processed
        return batches * self.batch_size * self.trainer.world_size

    def val_dataloader(self) -> DataLoader:
        """Validation items in their order, each in one process only.

        Lightning's own sampler would repeat some, so that all processes have as many.
        """
        rank, world_size = self.trainer.global_rank, self.trainer.world_size
        share = StreamSampler(len(range(rank, len(self.validation), world_size)), lambda: 0, rank, world_size)
        return DataLoader(
            self.validation,
            self.validation_batch_size,
            sampler=share,
            collate_fn=self.collate_validation,
            generator=torch.Generator(),
        )

    def calibration_batches(self, count: int) -> Iterator[Any]:
        """`count` batches like the training batches, the same each time and on every process.

        Training never sees these draws, though it may see the files that they are cut from.
        """
        items = self.items(CALIBRATION, count * self.batch_size)
        return iter(DataLoader(items, self.batch_size, generator=torch.Generator()))
