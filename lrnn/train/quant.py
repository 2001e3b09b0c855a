"""QuantizationAware: the Lightning callback around lrnn.quant."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn

from lrnn.prune import mask
from lrnn.prune.score import mask_shape
from lrnn.prune.weights import find_weights
from lrnn.quant import Observer, Ranges, Scheme, get_scheme
from lrnn.quant.observer import check_observer
from lrnn.quant.prepare import calibrate_model, calibrated, prepare, set_ranges, unfrozen
from lrnn.quant.tap import passing
from lrnn.train.checkpoint import QUANTIZATION
from lrnn.train.norms import recalibrate
from lrnn.train.prune import Prune, check_strategy
from lrnn.train.random_state import untouched_random_state


class QuantizationAware(L.Callback):
    """Trains any LightningModule as it will run quantised: `Trainer(callbacks=[QuantizationAware("w8a16")])`.

    Weights are rounded at every pass and have straight-through gradients; zeros they start with, pruned ones,
    stay zeros, whatever the optimiser does to what lies below them. When training starts, batch norms that
    are folded into matrices get their statistics anew from the calibration clips and are frozen, because
    their scale is part of the rounded matrices: with running averages the grids would move under the weights.
    Then the same clips give every rounded activation its range, static from there on.

    The grids are part of every checkpoint, and a run that is resumed goes on with them. `lrnn fit` exports,
    and `lrnn.train.load_checkpoint` reads, plain weights on their grids; their ranges travel in `meta`. To do
    the same by hand, call `lrnn.quant.convert(module)`.

    Needs a datamodule with `calibration_batches(count)`, whose batches are tuples; the module is called with
    their first item. The module makes its layers in `__init__`. It is trained in one process or under DDP,
    where all processes use the ranges of the first.

    Args:
        scheme: a name of lrnn.quant.SCHEMES, or a Scheme.
        clips: how many clips to calibrate on.
        observer: how ranges are chosen: "minmax", "percentile" or "mse"; see lrnn.quant.Histogram.range.
        percentile: for "percentile".
        exclude: globs of names of parameters or modules to leave in float.
    """

    def __init__(
        self,
        scheme: str | Scheme = "w8a16",
        clips: int = 64,
        observer: Observer = "minmax",
        percentile: float = 99.999,
        exclude: Sequence[str] = (),
    ):
        self.scheme = get_scheme(scheme)
        if clips < 1:
            raise ValueError(f"clips is {clips}, expected at least 1")
        check_observer(observer, percentile)
        if isinstance(exclude, str):
            raise TypeError(f"exclude is the string {exclude!r}, expected a sequence of globs")
        self.clips, self.observer, self.percentile = clips, observer, percentile
        self.exclude = tuple(exclude)
        self._module: nn.Module | None = None
        self._calibrated = False
        self._sanity = ExitStack()

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Masks and grids: before optimisers are made and before a checkpoint is loaded into the module."""
        check_strategy(trainer.strategy, "QuantizationAware", "it rounds rows of whole weights")
        if any(isinstance(c, Prune) for c in trainer.callbacks):
            raise ValueError(
                "callbacks has Prune beside QuantizationAware: prune first, then train quantised"
            )
        if self._module is not pl_module:
            _keep_zeros(pl_module)
            prepare(pl_module, self.scheme, self.exclude)
            self._module, self._calibrated = pl_module, False

    def on_sanity_check_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Before there are ranges, activations pass as floats."""
        if not self._calibrated:
            self._sanity.enter_context(passing(pl_module))

    def on_sanity_check_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Nothing passes any more."""
        self._sanity.close()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Statistics of norms, then ranges, unless a checkpoint has brought them along."""
        if self._calibrated:
            return
        with untouched_random_state():
            with passing(pl_module), unfrozen(pl_module):
                recalibrate(pl_module, self._inputs(trainer, pl_module))
            inputs = self._inputs(trainer, pl_module)
            ranges = calibrate_model(pl_module, inputs, self.observer, self.percentile)
        if ranges is not None:
            set_ranges(pl_module, Ranges.from_json(trainer.strategy.broadcast(ranges.to_json())))
        self._calibrated = True
        rank_zero_info(f"{self.scheme.name}: calibrated on {self.clips} clips ({self.observer})")

    def _inputs(self, trainer: L.Trainer, pl_module: L.LightningModule) -> Iterator[Tensor]:
        """As many clips as were asked for; the same in every process."""
        if not hasattr(trainer.datamodule, "calibration_batches"):
            raise ValueError("QuantizationAware needs a datamodule with calibration_batches(count)")
        missing = self.clips
        for batch in trainer.datamodule.calibration_batches(self.clips):
            x = pl_module.transfer_batch_to_device(batch, pl_module.device, 0)[0][:missing]
            missing -= len(x)
            yield x
            if missing == 0:
                return
        raise ValueError(f"clips is {self.clips}, but the datamodule gave {self.clips - missing}")

    def state_dict(self) -> dict[str, Any]:
        """What was asked for, in plain values; the grids are in the module's state dict."""
        return {
            "scheme": self.scheme.to_json(),
            "clips": self.clips,
            "observer": self.observer,
            "exclude": list(self.exclude),
            "calibrated": self._calibrated,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where a checkpoint was saved; called after `setup`.

        Raises:
            ValueError: another scheme, or other weights left in float.
        """
        mine = self.state_dict()
        for name in ("scheme", "exclude"):
            if state_dict[name] != mine[name]:
                raise ValueError(
                    f"{name} is {mine[name]!r}, but the checkpoint was trained with {state_dict[name]!r}"
                )
        self._calibrated = state_dict["calibrated"]

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict) -> None:
        """Add what `load_checkpoint` needs."""
        if self._calibrated:
            checkpoint[QUANTIZATION] = {
                **self.card(getattr(pl_module, "model", pl_module)),
                "exclude": list(self.exclude),
            }

    def card(self, model: nn.Module) -> dict[str, Any]:
        """Scheme and ranges of a prepared model, in plain values."""
        ranges = calibrated(model)
        return {"scheme": self.scheme.to_json(), "ranges": None if ranges is None else ranges.to_json()}


@torch.no_grad()
def _keep_zeros(module: nn.Module) -> None:
    """Put masks on all weights; where there was none, zeros are pruned and the rest is not."""
    for weight in find_weights(module):
        for owner, attribute in weight.places:
            if mask.find(owner, attribute) is None:
                shape = mask_shape(owner, attribute, weight.dense)
                kept = weight.dense != 0
                if shape != kept.shape:  # a complex pair
                    kept = kept.any(-1, keepdim=True)
                mask.attach(owner, attribute, shape).mask.copy_(kept)
