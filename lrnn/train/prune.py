"""Prune: the Lightning callback around lrnn.prune.Pruner."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import lightning as L
from lightning.pytorch.trainer.states import TrainerFn

from lrnn.prune import CubicSchedule, Distribution, Mode, Pruner
from lrnn.prune.pruner import check_options


class Prune(L.Callback):
    """Prunes any LightningModule while it trains: `Trainer(callbacks=[lrnn.Prune(0.9)])`.

    Masks, schedule and progress are part of every checkpoint; a run that is resumed goes on along the
    schedule it was started with. After training the module still carries its masks: `lrnn.prune.bake(module)`
    writes the zeros into plain weights, and `lrnn.prune.attach_masks(module, state_dict)` prepares a plain
    module for such a checkpoint.

    Logged: `sparsity`, the total, on the progress bar and in `callback_metrics`; and to the loggers, whenever
    the masks change, `sparsity/total` and `sparsity/<parameter>`.

    Args:
        sparsity: final share of zeros over all pruned weights, 0 <= sparsity < 1.
        distribution: how it is shared out among the tensors: "erk", "uniform" or "global".
        start: optimiser step where pruning begins; a float is a fraction of all steps of the fit.
        end: optimiser step from which the masks are frozen; a float is a fraction of all steps.
        every: steps from one choice of masks to the next.
        exclude: globs of names of parameters or modules to leave dense.
        mode: "ste", or "paper" for the rule of the paper's code; see lrnn.prune.Pruner.
    """

    def __init__(
        self,
        sparsity: float = 0.9,
        distribution: Distribution = "erk",
        start: int | float = 0.05,
        end: int | float = 0.9,
        every: int = 8,
        exclude: Sequence[str] = (),
        mode: Mode = "ste",
    ):
        check_options(sparsity, distribution, every, mode, exclude)
        for name, value in (("start", start), ("end", end)):
            if value < 0 or (isinstance(value, float) and value > 1):
                raise ValueError(
                    f"{name} is {value}, expected a step >= 0 or a fraction (float) of at most 1.0"
                )
        self.sparsity, self.distribution, self.start, self.end = sparsity, distribution, start, end
        self.every, self.exclude, self.mode = every, tuple(exclude), mode
        self.pruner: Pruner | None = None
        self._resumed = False
        self._total = 0.0

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Attach the masks: before optimisers are made and before a checkpoint is loaded into the module."""
        if self.pruner is None or self.pruner.module is not pl_module:
            self.pruner = Pruner(
                pl_module,
                self.sparsity,
                self.distribution,
                every=self.every,
                mode=self.mode,
                exclude=self.exclude,
            ).attach()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Turn fractions into steps, unless a checkpoint has brought its schedule along."""
        total = trainer.estimated_stepping_batches
        schedule = None
        if all(isinstance(at, int) for at in (self.start, self.end)) or not math.isinf(total):
            schedule = CubicSchedule(_steps(self.start, total), _steps(self.end, total))
        if not self._resumed:
            if schedule is None:
                raise ValueError(
                    "start and end are fractions, but the fit has no last step; give them as numbers of steps"
                )
            self.pruner.schedule = schedule
        elif schedule is not None and schedule != self.pruner.schedule:
            warnings.warn(
                f"pruning goes on with the checkpoint's {self.pruner.schedule}, not with {schedule}"
            )
        self._total = self.pruner.total_sparsity()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: object, batch_idx: int
    ) -> None:
        """Prune as far as the schedule asks at this optimiser step, and log."""
        if self.pruner.step(trainer.global_step):
            sparsities = self.pruner.sparsities()
            self._total = self.pruner.total_sparsity()
            metrics = {"sparsity/total": self._total, **{f"sparsity/{k}": v for k, v in sparsities.items()}}
            for logger in trainer.loggers:
                logger.log_metrics(metrics, step=trainer.global_step)
        pl_module.log("sparsity", self._total, prog_bar=True, logger=False, batch_size=1)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """With mode "paper", evaluate masked weights as its code does: updates fill the zeros."""
        fitting = trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking
        if self.mode == "paper" and fitting:
            self.pruner.step(trainer.global_step)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Prune once more: no batch follows the last step to do it, and end = 1.0 is that very step."""
        self.pruner.step(trainer.global_step)
        if trainer.global_step < self.pruner.schedule.end:
            warnings.warn(
                f"training ended at step {trainer.global_step}, before pruning did at "
                f"{self.pruner.schedule.end}: sparsity is {self.pruner.total_sparsity():.3f}, "
                f"not {self.sparsity}"
            )

    def state_dict(self) -> dict:
        """Progress and schedule, in plain values."""
        return {} if self.pruner is None else self.pruner.state_dict()

    def load_state_dict(self, state_dict: dict) -> None:
        """Go on where a checkpoint was saved; called after `setup`."""
        if state_dict:
            self.pruner.load_state_dict(state_dict)
            self._resumed = True


def _steps(at: int | float, total: int | float) -> int:
    return at if isinstance(at, int) else round(at * total)
