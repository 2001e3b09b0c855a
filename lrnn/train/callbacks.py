"""Callbacks of a training run: honest norm statistics, a line of progress, the files at its end."""

from __future__ import annotations

import copy
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import nn

import lrnn
from lrnn.program import compile
from lrnn.prune import bake, sweep
from lrnn.quant import convert
from lrnn.train.checkpoint import QUANTIZATION
from lrnn.train.norms import recalibrate
from lrnn.train.prune import Prune
from lrnn.train.quant import QuantizationAware
from lrnn.train.random_state import untouched_random_state


class RecalibrateNorms(L.Callback):
    """Recompute batch norms' running statistics from training data before each validation and checkpoint.

    While the learning rate is high, running averages lag behind fast weights on heavy-tailed spectra: on
    ndns-mini evaluation read 4 dB where the same weights reached 12 dB with recomputed statistics. The
    statistics become the plain average over `batches` batches, each norm seeing its inputs as in training.
    Needs a datamodule with `calibration_batches(count)`, whose batches are tuples; the module is called with
    their first item. Random state, data order and gradients are left as they are.

    Args:
        batches: batches to average over.
    """

    def __init__(self, batches: int = 16):
        if batches < 1:
            raise ValueError(f"batches is {batches}, expected at least 1")
        self.batches = batches
        self._done_at = -1

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Before a validation during fit, the sanity check apart. AverageWeights has had its turn."""
        if _validating_in_fit(trainer):
            self._once(trainer, pl_module)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Where an epoch or the fit ends without a validation: before its checkpoint."""
        self._once(trainer, pl_module)

    def _once(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._done_at != trainer.global_step:
            self.apply(trainer, pl_module)
            self._done_at = trainer.global_step

    def state_dict(self) -> dict[str, int]:
        """The step of the last recalibration: where a run is taken up, it is not repeated."""
        return {"done_at": self._done_at}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """See state_dict."""
        self._done_at = state_dict["done_at"]

    def apply(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Recalibrate now; the same batches, hence the same statistics, in every process."""
        if not hasattr(trainer.datamodule, "calibration_batches"):
            raise ValueError("RecalibrateNorms needs a datamodule with calibration_batches(count)")
        inputs = (
            pl_module.transfer_batch_to_device(batch, pl_module.device, 0)[0]
            for batch in trainer.datamodule.calibration_batches(self.batches)
        )
        with untouched_random_state():
            recalibrate(pl_module, inputs)  # no autocast: what will run is float32


def _validating_in_fit(trainer: L.Trainer) -> bool:
    return trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking


class ReportProgress(L.Callback):
    """One line on stderr per validation: step, mean loss since the last line, metrics, rate, time.

    For logs, where a progress bar makes no sense.
    """

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self._begun, self._first_step = time.monotonic(), trainer.global_step
        self._losses: list[torch.Tensor] = []

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note the loss."""
        self._losses.append(outputs["loss"].detach())

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Print the line."""
        if not trainer.is_global_zero or not _validating_in_fit(trainer) or not self._losses:
            return
        seconds = time.monotonic() - self._begun
        parts = [f"step {trainer.global_step}/{trainer.estimated_stepping_batches}"]
        parts += [f"loss {torch.stack(self._losses).mean().item():.3f}"]
        parts += [f"{k} {v:.3f}" for k, v in sorted(trainer.callback_metrics.items()) if k.startswith("val_")]
        rate = (trainer.global_step - self._first_step) / seconds
        parts += [f"{rate:.2f} steps/s", f"{seconds / 60:.1f} min"]
        print("  ".join(parts), file=sys.stderr, flush=True)
        self._losses.clear()


class ExportProgram(L.Callback):
    """Write `model.safetensors` (baked, swept) and `model.lrnn` (compiled) into the run folder when fit ends.

    The module keeps its SequenceModel as `model`. It may have `finish(model, datamodule)`, a last touch on
    the baked copy, and `meta`, a dict of plain values that travels with both files; the card beside it says
    how the model was made. What was trained quantised is written on its grids, with the scheme and the ranges
    that it was trained with, and gets no last touch: scaled by any number, a matrix of 4 bits is rounded
    anew and loses up to 1.7 dB. Train it from an exported model, whose level is matched already.

    Args:
        folder: where to write; None is the logger's folder.
    """

    def __init__(self, folder: str | None = None):
        self.folder = folder
        self._metrics: dict[str, float] = {}

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Note the metrics, for the card of a run that is taken up and not validated again."""
        if _validating_in_fit(trainer):
            metrics = trainer.callback_metrics.items()
            self._metrics = {name: round(float(x), 4) for name, x in metrics if name.startswith("val_")}

    def state_dict(self) -> dict[str, Any]:
        """The metrics of the last validation."""
        return {"metrics": self._metrics}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """See state_dict."""
        self._metrics = state_dict["metrics"]

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Bake a copy, write it, compile it, write that. The last hook: all other callbacks are done."""
        log_dir = trainer.log_dir  # a broadcast: every process must ask
        folder = Path(self.folder or log_dir or trainer.default_root_dir)
        if not trainer.is_global_zero:
            return
        folder.mkdir(parents=True, exist_ok=True)
        baked = copy.deepcopy(pl_module.model).cpu().eval()
        quantization = _quantization(trainer, baked)
        convert(baked)
        bake(baked)
        sweep(baked)
        if hasattr(pl_module, "finish") and not quantization:
            pl_module.finish(baked, trainer.datamodule)
        meta = {**getattr(pl_module, "meta", {}), "card": card(trainer, pl_module, baked, self._metrics)}
        meta |= quantization
        baked.save(folder / "model.safetensors", meta)
        program = compile(baked)
        replace(program, meta={**program.meta, **meta}).save(folder / "model.lrnn")


def _quantization(trainer: L.Trainer, model: nn.Module) -> dict[str, Any]:
    """The entry of a model that was trained quantised, if it was."""
    callback = next((c for c in trainer.callbacks if isinstance(c, QuantizationAware)), None)
    return {} if callback is None else {QUANTIZATION: callback.card(model)}


def card(
    trainer: L.Trainer, pl_module: L.LightningModule, baked: nn.Module, metrics: dict[str, float]
) -> dict[str, Any]:
    """How a model was made: recipe, data, length of training, metrics, versions; plain values."""
    matrices = [p for p in baked.parameters() if p.ndim > 1]
    zeros = sum((p == 0).sum().item() for p in matrices)
    return {
        "network": baked.config.to_dict(),
        "recipe": getattr(pl_module, "recipe", {}),
        "pruning": next((c.state_dict() for c in trainer.callbacks if isinstance(c, Prune)), None),
        "data": getattr(trainer.datamodule, "card", {}),
        "seed": int(os.environ["PL_GLOBAL_SEED"]) if "PL_GLOBAL_SEED" in os.environ else None,
        "steps": trainer.global_step,
        "precision": str(trainer.precision),
        "parameters": sum(p.numel() for p in baked.parameters()),
        "sparsity": round(zeros / sum(p.numel() for p in matrices), 4),  # of what has two axes or more
        "metrics": metrics,
        "versions": {"lrnn": lrnn.__version__, "torch": torch.__version__, "lightning": L.__version__},
    }
