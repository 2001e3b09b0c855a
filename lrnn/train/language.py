"""A language model as a LightningModule: the cross entropy of the next token."""

from __future__ import annotations

import math
import os
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import Optimizer

from lrnn.data.rows import IGNORED, Row
from lrnn.nn import LanguageModel, LanguageModelConfig
from lrnn.prune import bake
from lrnn.train.checkpoint import KEY, load_checkpoint
from lrnn.train.optim import parameter_groups, scheduler


class LanguageModule(L.LightningModule):
    """Trains a LanguageModel to predict the next token.

    Logs `train_loss` (nats per token) and `val_bits` (bits per token of held-out text; bits per byte where
    tokens are bytes). A batch is a lrnn.data.rows.Row. Each row begins with the state zero.

    Args:
        network: the model.
        lr: peak learning rate of everything but S5 parameters.
        ssm_lr_factor: the S5 parameters' rate as a fraction of `lr`.
        betas: of AdamW.
        weight_decay: AdamW's, of matrices alone.
        warmup: linear warm-up as a fraction of all steps.
        lr_min: rate at the end, as a fraction of `lr`.
        clip: norm that the gradient of all parameters is cut to. The trainer's gradient_clip_val would refuse
            the fused optimiser.
        init_from: a .ckpt or .safetensors model to start from; its masks are baked, its optimiser is not
            taken.
    """

    def __init__(
        self,
        network: LanguageModelConfig,
        lr: float = 4e-3,
        ssm_lr_factor: float = 0.25,
        betas: tuple[float, float] = (0.9, 0.98),
        weight_decay: float = 0.1,
        warmup: float = 0.05,
        lr_min: float = 0.0,
        clip: float = 1.0,
        init_from: str | None = None,
    ):
        super().__init__()
        if lr <= 0 or ssm_lr_factor <= 0:
            raise ValueError(f"lr, ssm_lr_factor are {lr}, {ssm_lr_factor}, expected positive numbers")
        if not 0 <= warmup < 1 or not 0 <= lr_min <= 1:
            raise ValueError(f"warmup, lr_min are {warmup}, {lr_min}, expected fractions")
        if not clip > 0:
            raise ValueError(f"clip is {clip}, expected a positive norm")
        self.model = LanguageModel(network)
        self.lr, self.ssm_lr, self.lr_min = lr, lr * ssm_lr_factor, lr * lr_min
        self.betas, self.weight_decay, self.warmup, self.clip = betas, weight_decay, warmup, clip
        self.recipe = {
            "task": "language",
            "lr": lr,
            "ssm_lr_factor": ssm_lr_factor,
            "betas": list(betas),
            "weight_decay": weight_decay,
            "warmup": warmup,
            "lr_min": lr_min,
            "clip": clip,
            "init_from": None if init_from is None else os.path.basename(init_from),
        }
        if init_from is not None:
            self._start_from(init_from)

    def configure_model(self) -> None:
        """Shard the parameters block by block (FSDP), where the strategy is a ModelParallelStrategy."""
        if self.device_mesh is None:
            return
        from torch.distributed.fsdp import fully_shard

        mesh = self.device_mesh["data_parallel"]
        for block in self.model.stack.blocks:
            fully_shard(block, mesh=mesh)
        fully_shard(self.model, mesh=mesh)

    def setup(self, stage: str) -> None:
        """Refuse data of tokens that the network has no row for."""
        known, found = self.model.config.vocabulary, getattr(self._tokenizer, "vocabulary", 0)
        if found > known:
            raise ValueError(
                f"network.vocabulary is {known}, expected at least {found}, the tokenizer's tokens"
            )

    @property
    def _tokenizer(self) -> Any:
        """The data's; None where they have none."""
        return getattr(self.trainer.datamodule, "tokenizer", None)

    def _start_from(self, path: str) -> None:
        source, _ = load_checkpoint(path)
        bake(source)
        try:
            self.model.load_state_dict(source.state_dict())
        except RuntimeError as error:
            raise ValueError(f"init_from: {path} does not fit the network: {error}") from None

    def forward(self, tokens: Tensor, reset: Tensor | None = None) -> Tensor:
        """Tokens (B, T) -> logits (B, T, V) of the token after each."""
        return self.model(tokens, None, reset)[0]

    def training_step(self, batch: Row, batch_idx: int) -> Tensor:
        """The loss; one that is no number ends the run at once."""
        loss = self._loss(batch)
        if not torch.isfinite(loss):
            raise RuntimeError(f"loss is {loss.item()} at step {self.global_step}; try a lower lr")
        self.log("train_loss", loss.detach(), prog_bar=True, batch_size=len(batch[0]))
        return loss

    def validation_step(self, batch: Row, batch_idx: int) -> None:
        """Bits per token, in float32 even where training is not: what will run is float32."""
        batch = Row(*batch)
        with torch.autocast(batch.tokens.device.type, enabled=False):
            loss = self._loss(batch)
        # Times the number of processes: Lightning averages counts over them in whole numbers.
        weight = int((batch.targets != IGNORED).sum()) * self.trainer.world_size
        options = {"on_epoch": True, "prog_bar": True, "batch_size": weight, "sync_dist": True}
        self.log("val_bits", loss / math.log(2), **options)

    def _loss(self, batch: Row) -> Tensor:
        """Cross entropy in nats per token, a scalar, in float32."""
        tokens, targets, reset = batch
        logits = self(tokens, reset if reset.any() else None)
        return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), ignore_index=IGNORED)

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Cut the gradient to its norm."""
        if gradient_clip_val is not None:
            raise ValueError(
                f"gradient_clip_val is {gradient_clip_val}, expected None: see the module's clip"
            )
        torch.nn.utils.clip_grad_norm_(self.parameters(), self.clip)

    def configure_optimizers(self) -> dict[str, Any]:
        """AdamW in groups and the warm-up and cosine schedule over the trainer's steps."""
        groups = parameter_groups(self.model, self.lr, self.ssm_lr, self.weight_decay)
        optimizer = torch.optim.AdamW(groups, lr=self.lr, betas=self.betas, fused=True)
        total = self.trainer.estimated_stepping_batches
        if total == float("inf"):
            raise ValueError("trainer has neither max_steps nor max_epochs: the schedule needs an end")
        schedule = scheduler(optimizer, round(self.warmup * total), total, self.lr_min)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    @property
    def meta(self) -> dict:
        """What travels with the trained model beside its parameters: how text becomes its tokens."""
        return {"text": {"tokenizer": getattr(self._tokenizer, "definition", None)}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what load_checkpoint makes the model from, in plain values."""
        # By name, not of type(self.model): sharding puts a class of its own in the place of the model's.
        kind, config = LanguageModel.__name__, self.model.config.to_dict()
        checkpoint[KEY] = {"kind": kind, "config": config, "meta": self.meta}
