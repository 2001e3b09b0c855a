"""Prune: the Lightning callback around lrnn.prune.Pruner."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import lightning as L
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy, Strategy
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn

from lrnn.prune import Distribution, Mode, Pruner, Schedule, ScheduleName, Score, make_schedule
from lrnn.prune.pruner import check_options
from lrnn.prune.weights import find_weights

_SHARDED = (DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy)


class Prune(L.Callback):
    """Prunes any LightningModule while it trains: `Trainer(callbacks=[lrnn.Prune(0.9)])`.

    Masks, schedule and progress are part of every checkpoint; a run that is resumed goes on along the
    schedule it was started with. After training the module still carries its masks: `lrnn.prune.bake(module)`
    writes the zeros into plain weights, and `lrnn.prune.attach_masks(module, state_dict)` prepares a plain
    module for such a checkpoint.

    Logged: `sparsity`, the total, on the progress bar and in `callback_metrics`; and to the loggers, whenever
    the masks change, `sparsity/total`, and `sparsity/<parameter>` and `dead/<parameter>`, the number of its
    units without any connection. A warning tells when the first units of a parameter die.

    The module makes its layers in `__init__`. It is trained in one process or under DDP; sharded strategies
    (FSDP, DeepSpeed) are refused.

    Args:
        sparsity: final share of zeros over all pruned weights, 0 <= sparsity < 1.
        distribution: how it is shared out among the tensors: "erk", "uniform" or "global".
        start: optimiser step where pruning begins; a float is a fraction of all steps of the fit.
        end: optimiser step from which the masks are frozen; a float is a fraction of all steps.
        every: steps from one choice of masks to the next.
        exclude: globs of names of parameters or modules to leave dense; they count for nothing.
        mode: "ste", or "paper" for the rule of the paper's code; see lrnn.prune.Pruner.
        overrides: sparsity of single tensors by globs as in `exclude`; the others share what is left, so that
            all together have `sparsity`.
        schedule: "cubic" or "linear" from `start` to `end`; "constant", the whole sparsity from `start` and
            masks that may change until `end`; "oneshot", the whole at `start`, where masks freeze (`end` is
            not used).
        score: what ranks the entries of B of an S5: "discretized", |B_bar|, or "magnitude", |B|.
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
        overrides: Mapping[str, float] | None = None,
        schedule: ScheduleName = "cubic",
        score: Score = "discretized",
    ):
        check_options(sparsity, distribution, every, mode, exclude, overrides, score)
        make_schedule(schedule, 0, 0)
        for name, value in (("start", start), ("end", end)):
            if value < 0 or (isinstance(value, float) and value > 1):
                raise ValueError(
                    f"{name} is {value}, expected a step >= 0 or a fraction (float) of at most 1.0"
                )
        self.sparsity, self.distribution, self.start, self.end = sparsity, distribution, start, end
        self.every, self.exclude, self.mode = every, tuple(exclude), mode
        self.overrides, self.schedule, self.score = overrides, schedule, score
        self.pruner: Pruner | None = None
        self._resumed = False
        self._total = 0.0
        self._dying: set[str] = set()  # parameters whose dead units were reported

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Attach the masks: before optimisers are made and before a checkpoint is loaded into the module."""
        check_strategy(trainer.strategy, "Prune", "it ranks the entries of whole weights")
        if self.pruner is None or self.pruner.module is not pl_module:
            self.pruner = Pruner(
                pl_module,
                self.sparsity,
                self.distribution,
                make_schedule(self.schedule, 0, 0),  # until the trainer knows its number of steps
                self.every,
                self.mode,
                self.exclude,
                self.overrides,
                self.score,
            ).attach()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Turn fractions into steps, unless a checkpoint has brought its schedule along."""
        self._check_weights(pl_module)
        schedule = self._make_schedule(trainer.estimated_stepping_batches)
        if not self._resumed:
            if schedule is None:
                raise ValueError(
                    "start and end are fractions, but the fit has no last step; give them as numbers of steps"
                )
            self.pruner.schedule = schedule
        elif schedule is not None and schedule != self.pruner.schedule:
            rank_zero_warn(
                f"pruning goes on with the checkpoint's {self.pruner.schedule}, not with {schedule}"
            )
        self._total = self.pruner.total_sparsity()

    def _make_schedule(self, total: int | float) -> Schedule | None:
        """The schedule of a fit of `total` steps; None where a fraction of infinity would be needed."""
        if math.isinf(total) and not (isinstance(self.start, int) and isinstance(self.end, int)):
            return None
        return make_schedule(self.schedule, _steps(self.start, total), _steps(self.end, total))

    def _check_weights(self, pl_module: L.LightningModule) -> None:
        """Weights that came after `setup` have no masks; frozen ones have, which may surprise."""
        known = {weight.name for weight in self.pruner.weights}
        late = [w.name for w in find_weights(pl_module, self.exclude) if w.name not in known]
        if late:
            raise ValueError(
                f"{late[0]} was made after Prune.setup and has no mask; make layers in the module's __init__"
            )
        frozen = [weight.name for weight in self.pruner.weights if not weight.dense.requires_grad]
        if frozen:
            rank_zero_warn(
                f"{len(frozen)} weights are frozen and will be pruned without being trained ({frozen[0]}"
                f"{', ...' if len(frozen) > 1 else ''}); exclude them to leave them dense"
            )

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: object, batch_idx: int
    ) -> None:
        """Prune as far as the schedule asks at this optimiser step, and log."""
        if self.pruner.step(trainer.global_step):
            self._report(trainer)
        pl_module.log("sparsity", self._total, prog_bar=True, logger=False, batch_size=1)

    def _report(self, trainer: L.Trainer) -> None:
        """Log what the new masks leave; warn of weights in which a unit has just died."""
        self._total = self.pruner.total_sparsity()
        dead = self.pruner.dead_units()
        metrics = {"sparsity/total": self._total}
        metrics |= {f"sparsity/{name}": share for name, share in self.pruner.sparsities().items()}
        metrics |= {f"dead/{name}": len(units) for name, units in dead.items()}
        for logger in trainer.loggers:
            logger.log_metrics(metrics, step=trainer.global_step)
        dying = [name for name, units in dead.items() if len(units) and name not in self._dying]
        if dying:
            found = "; ".join(f"{name}: {dead[name]}" for name in dying)
            rank_zero_warn(f"units died at step {trainer.global_step}, sparsity {self._total:.3f}: {found}")
            self._dying.update(dying)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """With mode "paper", evaluate masked weights as its code does: updates fill the zeros."""
        fitting = trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking
        if self.mode == "paper" and fitting:
            self.pruner.step(trainer.global_step)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Prune once more: no batch follows the last step to do it, and end = 1.0 is that very step."""
        if self.pruner.step(trainer.global_step):
            self._report(trainer)
        if trainer.global_step < self.pruner.schedule.end:
            rank_zero_warn(
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


def check_strategy(strategy: Strategy, callback: str, reason: str) -> None:
    """Raise ValueError where parameters are sharded."""
    if isinstance(strategy, _SHARDED):
        raise ValueError(
            f"strategy is {type(strategy).__name__}, but {callback} needs one process or DDP: "
            f"{reason}, and a sharded strategy holds only a part of each"
        )


def _steps(at: int | float, total: int | float) -> int:
    return at if isinstance(at, int) else round(at * total)
