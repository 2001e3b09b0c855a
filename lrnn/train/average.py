"""A moving average of the weights, for validation and for what is exported."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn

from lrnn.train.callbacks import ExportProgram, RecalibrateNorms
from lrnn.train.prune import Prune

KEY = "live_weights"
"""Entry of a checkpoint with the weights that the optimiser goes on from; `state_dict` has their average."""


class AverageWeights(L.Callback):
    """Validates, saves and exports an exponential moving average of the weights; trains the weights.

    After each optimiser step: average = decay * average + (1 - decay) * weight. At full learning rate, with
    norms recalibrated for it, the average of decay 0.98 read 12.3 to 12.6 dB where the weights read 11.6 to
    12.2, and 12.8 at the end of a decay to zero (denoiser of k = 0.5 on ndns-mini).

    Masks are the live weights': the average of the dense weights is seen through them, so that what is zero
    in training is zero here. Batch norms' statistics do not follow from averaged weights: put a
    RecalibrateNorms beside this. When the fit ends, the module holds the average.

    Lightning's EMAWeightAveraging averages the masks or leaves stale norm statistics, hence this one.

    Args:
        decay: share of the old average that is kept per optimiser step, 0 <= decay < 1.
        start: optimiser steps before averaging begins; until then the average is the weights.
    """

    def __init__(self, decay: float = 0.999, start: int = 0):
        if not 0 <= decay < 1:
            raise ValueError(f"decay is {decay}, expected 0 <= decay < 1")
        if start < 0:
            raise ValueError(f"start is {start}, expected a step >= 0")
        self.decay, self.start = decay, start
        self._average: dict[str, Tensor] = {}
        self._live: dict[
            str, Tensor
        ] = {}  # weights and statistics of training, while the average is validated
        self._statistics: dict[str, Tensor] = {}  # of the average
        self._measured_at = self._updated_at = -1

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Refuse what would not work."""
        if any(isinstance(c, Prune) and c.mode == "paper" for c in trainer.callbacks):
            raise ValueError(
                "AverageWeights needs Prune(mode='ste'): mode 'paper' has no masks for an average"
            )
        before = trainer.callbacks[: trainer.callbacks.index(self)]
        if any(isinstance(c, ExportProgram) for c in before):
            raise ValueError("callbacks has ExportProgram before AverageWeights, expected it after")

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin with the weights as they are, unless a checkpoint has brought an average."""
        source = self._average or _weights(pl_module)
        self._average = {
            name: tensor.detach().clone().to(pl_module.device) for name, tensor in source.items()
        }
        self._updated_at = trainer.global_step

    @torch.no_grad()
    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        """Average after an optimiser step; batches that only accumulate gradients change nothing."""
        if trainer.global_step == self._updated_at:
            return
        new = 1.0 if trainer.global_step <= self.start else 1.0 - self.decay
        weights = _weights(pl_module)
        torch._foreach_lerp_([self._average[name] for name in weights], list(weights.values()), new)
        self._updated_at = trainer.global_step

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Put the average in the place of the weights, during fit."""
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            tensors = {**_weights(pl_module), **_statistics(pl_module)}
            self._live = {name: tensor.detach().clone() for name, tensor in tensors.items()}
            _copy(self._average, pl_module)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Put the weights and their norms' statistics back."""
        if self._live:
            self._statistics = {name: t.detach().clone() for name, t in _statistics(pl_module).items()}
            self._measured_at = trainer.global_step
            _copy(self._live, pl_module)
            self._live = {}

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Leave the average in the module, with statistics that are its own."""
        if not self._average:
            return
        _copy(self._average, pl_module)
        self._average = {}
        if self._measured_at == trainer.global_step:
            _copy(self._statistics, pl_module)
            return
        for callback in trainer.callbacks:
            if isinstance(callback, RecalibrateNorms):
                callback.apply(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        """The step at which the statistics in a checkpoint's `state_dict` were measured."""
        return {"measured_at": self._measured_at}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Called after on_load_checkpoint."""
        self._measured_at = state_dict["measured_at"]

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict) -> None:
        """The average becomes the checkpoint's model, as was validated; the weights stand beside it."""
        if not self._average:
            return
        names = [*_weights(pl_module), *_statistics(pl_module)]
        state = checkpoint["state_dict"]
        checkpoint[KEY] = self._live or {name: state[name] for name in names if name in state}
        measured = self._statistics if self._measured_at == trainer.global_step else {}
        averages = {**self._average, **measured}
        checkpoint["state_dict"] = {name: averages.get(name, tensor) for name, tensor in state.items()}

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict) -> None:
        """Before a fit goes on: the average is what the module was just given, the weights come after it."""
        if trainer.state.fn != TrainerFn.FITTING or KEY not in checkpoint:
            return
        self._average = {name: p.detach().clone() for name, p in _weights(pl_module).items()}
        self._statistics = {name: t.detach().clone() for name, t in _statistics(pl_module).items()}
        _copy(checkpoint[KEY], pl_module)


def _weights(module: nn.Module) -> dict[str, Tensor]:
    return dict(module.named_parameters(remove_duplicate=False))  # a shared weight under each of its names


def _statistics(module: nn.Module) -> dict[str, Tensor]:
    """Buffers that training moves: running statistics, but not masks."""
    return {name: tensor for name, tensor in module.named_buffers() if tensor.is_floating_point()}


@torch.no_grad()
def _copy(source: dict[str, Tensor], module: nn.Module) -> None:
    for name, tensor in {**_weights(module), **_statistics(module)}.items():
        if name in source:
            tensor.copy_(source[name])
