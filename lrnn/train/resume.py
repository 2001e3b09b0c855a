"""Stopping and going on equals not stopping: what Lightning's checkpoints lack, and when to take them."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn
from torch import distributed

from lrnn.train.random_state import random_state, set_random_state

KEY = "random_state"
"""Entry of a checkpoint with one `lrnn.train.random_state.random_state()` for each process, by rank."""

RESUME_POINT = "step-"
"""How the names of ResumePoints' files begin."""


class Resumable(L.Callback):
    """Random numbers go on where a checkpoint was taken, for any module. `lrnn fit` has this by itself.

    The state of every generator of every process is part of each checkpoint, and is put back when training
    starts from it. Validation draws from the generators, if at all, without moving them. Processes of a
    parallel run draw different numbers.
    """

    def __init__(self):
        self._loaded: list[dict[str, Any]] | None = None
        self._training: dict[str, Any] | None = None  # state of training while validation runs

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Put the checkpoint's numbers back, or set processes apart."""
        states, self._loaded = self._loaded, None
        if states is not None and len(states) == trainer.world_size:
            set_random_state(states[trainer.global_rank])
            return
        if states is not None:
            rank_zero_warn(
                f"the checkpoint was written by {len(states)} processes, this run has {trainer.world_size}: "
                "it does not go on with the same random numbers"
            )
        if trainer.global_rank:
            _reseed(torch.initial_seed() + trainer.global_rank)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Note where the generators are."""
        self._training = random_state()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Put them back there."""
        set_random_state(self._training)
        self._training = None

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict) -> None:
        """Add the random state of all processes."""
        states: list[Any] = [self._training or random_state()]
        if distributed.is_available() and distributed.is_initialized():
            mine, states = states[0], [None] * distributed.get_world_size()
            distributed.all_gather_object(states, mine)
        checkpoint[KEY] = states
        if trainer.state.fn == TrainerFn.FITTING and _is_accumulating(trainer):
            rank_zero_warn(
                f"the checkpoint at step {trainer.global_step} was taken between accumulated batches, "
                "without their gradients: going on from it will not equal not having stopped"
            )

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict) -> None:
        """Remember the random state until training starts."""
        if trainer.state.fn == TrainerFn.FITTING:
            self._loaded = checkpoint.get(KEY)


def _reseed(seed: int) -> None:
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)


def _is_accumulating(trainer: L.Trainer) -> bool:
    """Whether the batch in hand ends without an optimiser step."""
    return trainer.fit_loop._should_accumulate()


class ResumePoints(Checkpoint):
    """Writes checkpoints to go on from: every few steps, after each epoch's validation, and at the end.

    Each is taken where Lightning 2.6, resumed from it, does what it would have done. That is not so before a
    validation that is due at the same step, which ModelCheckpoint(every_n_train_steps=...) does and which is
    then left out; nor, when steps are counted (max_steps), at the end of an epoch, which is then counted
    twice; nor between accumulated batches. There it waits. A file gets its name when all that its step has
    logged is on the disk. `--ckpt_path last` finds the newest.

    Args:
        every: optimiser steps from one to the next.
        keep: how many of the newest to keep.
        folder: where; None is `checkpoints` in the folder of the run.
    """

    def __init__(self, every: int = 500, keep: int = 2, folder: str | None = None):
        if every < 1 or keep < 1:
            raise ValueError(f"every, keep are {every}, {keep}, expected at least 1")
        self.every, self.keep, self.folder = every, keep, folder
        self._folder = Path()
        self._saved_at = 0
        self._pending: Path | None = None  # written, but the logs of its step are not

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Find the folder; the same for all processes."""
        after = trainer.callbacks[trainer.callbacks.index(self) + 1 :]
        if other := next((c for c in after if isinstance(c, Checkpoint)), None):
            raise ValueError(
                f"callbacks has {type(other).__name__} after ResumePoints, expected ResumePoints last: "
                "its checkpoints hold what the others have saved"
            )
        run = trainer.log_dir or trainer.default_root_dir  # a broadcast
        self._folder = Path(self.folder or os.path.join(run, "checkpoints"))

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The step that a resumed run starts from is saved already."""
        self._saved_at = trainer.global_step

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        """By now all that follows the last step is done and logged."""
        self._publish(trainer)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        """In the middle of an epoch, where nothing else follows the step."""
        last = trainer.is_last_batch or trainer.global_step == trainer.max_steps
        if (
            self._is_due(trainer)
            and not last
            and not _is_accumulating(trainer)
            and not _validates_next(trainer)
        ):
            self._save(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """After a validation that follows a step."""
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking or _is_accumulating(trainer):
            return
        if trainer.is_last_batch or self._is_due(trainer):
            self._save(trainer)
            self._publish(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """After an epoch without a validation, where epochs are counted."""
        if trainer.max_steps == -1 and trainer.global_step != self._saved_at:
            self._save(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """When all other callbacks are done."""
        self._save(trainer)
        self._publish(trainer)

    def _is_due(self, trainer: L.Trainer) -> bool:
        return trainer.global_step // self.every > self._saved_at // self.every

    def _save(self, trainer: L.Trainer) -> None:
        if trainer.fast_dev_run:
            return
        self._saved_at = trainer.global_step
        self._pending = self._folder / f"{RESUME_POINT}{trainer.global_step:08d}.pending"
        trainer.save_checkpoint(self._pending, weights_only=False)  # not the weights alone

    def _publish(self, trainer: L.Trainer) -> None:
        if self._pending is None:
            return
        for logger in trainer.loggers:
            logger.save()
        if trainer.is_global_zero:
            os.replace(self._pending, self._pending.with_suffix(".ckpt"))
            saved = sorted(self._folder.glob(f"{RESUME_POINT}*.ckpt"), key=_written)
            for path in [*saved[: -self.keep], *self._folder.glob(f"{RESUME_POINT}*.pending")]:
                path.unlink()
        self._pending = None


def _written(path: Path) -> int:
    """When: a run that was taken up at an earlier step has left later steps behind, which are older."""
    return path.stat().st_mtime_ns


def _validates_next(trainer: L.Trainer) -> bool:
    """Whether Lightning will validate after this batch; it does not tell in public."""
    return trainer.fit_loop.epoch_loop._should_check_val_fx(trainer.fit_loop._data_fetcher)
