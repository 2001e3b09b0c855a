"""Keyword spotting as a LightningModule: waveform in, frames, one score per label, averaged over the clip."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor

from lrnn.data.frontend import FrontEnd, LogMel
from lrnn.data.keywords import SAMPLE_RATE, SILENCE, UNKNOWN
from lrnn.data.spec_augment import SpecAugment
from lrnn.nn import SequenceModel, SequenceModelConfig
from lrnn.prune import bake
from lrnn.train.checkpoint import KEY, load_checkpoint
from lrnn.train.optim import Decay, optimizer_and_schedule

NETWORK = SequenceModelConfig(d_in=1, d_out=1, d_model=192, d_state=256, blocks=16, n_layers=3)
"""The denoiser's network; its widths in and out follow from front end and labels."""


class KeywordModule(L.LightningModule):
    """Trains a SequenceModel to tell words apart.

    scores(clip) = mean over frames of model(frames of the clip): since the decoder is linear, that is the
    mean-pooling head of `SequenceModelConfig` to rounding, with the mean left to whoever reads the scores: a
    stream averages over the last second. Logs `train_loss`, `val_loss` and `val_accuracy`, the share of
    words' validation clips whose word has the highest score among the words. A batch is (audio (B, N),
    labels (B,) int64).

    Args:
        labels: what is told apart: words, and "_unknown_" and "_silence_" where they are wanted.
        k: width factor; the network has k times as many blocks of the same size.
        network: the network at k = 1. Its d_in, d_out and head are those of front end and labels.
        frontend: what the network reads.
        spec_augment: masks over the frames in training.
        label_smoothing: share of the target that goes to all labels alike.
        mixup: parameter of the Beta distribution by which pairs of clips are mixed (Zhang et al. 2018); 0 is
            off.
        chain: clips that follow each other in one sequence in training. The state is carried over, so that
            the network learns to hear a word after whatever came before, as it must in a stream.
        lr: peak learning rate of everything but the S5 parameters.
        ssm_lr_factor: the S5 parameters' rate as a fraction of `lr`.
        weight_decay: AdamW's, never on S5 parameters.
        decay: what is decayed, "matrices" or "all".
        warmup: linear warm-up as a fraction of the fit.
        init_from: a .ckpt or .safetensors model to start from; its masks are baked.
    """

    def __init__(
        self,
        labels: Sequence[str],
        k: float = 1.0,
        network: SequenceModelConfig = NETWORK,
        frontend: FrontEnd = LogMel(),  # noqa: B008  frozen
        spec_augment: SpecAugment = SpecAugment(),  # noqa: B008  frozen
        label_smoothing: float = 0.0,
        mixup: float = 0.0,
        chain: int = 1,
        lr: float = 4e-3,
        ssm_lr_factor: float = 0.25,
        weight_decay: float = 0.04,
        decay: Decay = "matrices",
        warmup: float = 0.05,
        init_from: str | None = None,
    ):
        super().__init__()
        self.labels = check_labels(labels)
        if lr <= 0 or ssm_lr_factor <= 0:
            raise ValueError(f"lr, ssm_lr_factor are {lr}, {ssm_lr_factor}, expected positive numbers")
        if not 0 <= label_smoothing < 1 or mixup < 0 or not 0 <= warmup < 1:
            raise ValueError(
                f"label_smoothing, mixup, warmup are {label_smoothing}, {mixup}, {warmup}, expected "
                "0 <= label_smoothing < 1, mixup >= 0, 0 <= warmup < 1"
            )
        if chain < 1:
            raise ValueError(f"chain is {chain}, expected at least 1")
        if frontend.sample_rate != SAMPLE_RATE:
            raise ValueError(
                f"frontend has sample_rate {frontend.sample_rate}, expected {SAMPLE_RATE}, that of the clips"
            )
        if SAMPLE_RATE % frontend.step:
            raise ValueError(
                f"frontend has steps of {frontend.step} samples, expected a part of {SAMPLE_RATE}"
            )
        self.frontend, self.spec_augment = frontend, spec_augment
        self.stack = getattr(frontend, "stack", 1)
        self.model = SequenceModel(
            replace(network.scaled(k), d_in=frontend.width, d_out=len(self.labels), head="regression")
        )
        self.label_smoothing, self.mixup, self.chain = label_smoothing, mixup, chain
        self.lr, self.ssm_lr = lr, lr * ssm_lr_factor
        self.weight_decay, self.decay, self.warmup = weight_decay, decay, warmup
        self.words = [i for i, label in enumerate(self.labels) if label not in (UNKNOWN, SILENCE)]
        self.recipe = {
            "task": "keywords",
            "k": k,
            "spec_augment": vars(spec_augment),
            "label_smoothing": label_smoothing,
            "mixup": mixup,
            "chain": chain,
            "lr": lr,
            "ssm_lr_factor": ssm_lr_factor,
            "weight_decay": weight_decay,
            "decay": decay,
            "warmup": warmup,
            "init_from": None if init_from is None else os.path.basename(init_from),
        }
        if init_from is not None:
            self._start_from(init_from)

    def _start_from(self, path: str) -> None:
        source, meta = load_checkpoint(path)
        mine = self.meta["keywords"]
        if meta.get("keywords", mine) != mine:
            raise ValueError(f"init_from: {path} was trained for {meta['keywords']}, expected {mine}")
        bake(source)
        try:
            self.model.load_state_dict(source.state_dict())
        except RuntimeError as error:
            raise ValueError(f"init_from: {path} does not fit the network: {error}") from None

    def forward(self, audio: Tensor) -> Tensor:
        """Clips (B, N) -> scores before the softmax (B, labels), float32, each clip by itself."""
        return self.model(self.frontend(audio))[0].float().mean(1)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Cross-entropy; a loss that is no number ends the run at once."""
        audio, labels = batch
        targets = F.one_hot(labels, len(self.labels)).float()
        if self.mixup:
            audio, targets = self._mixed(audio, targets)
        value = F.cross_entropy(self._chained(audio), targets, label_smoothing=self.label_smoothing)
        if not torch.isfinite(value):
            raise RuntimeError(f"loss is {value.item()} at step {self.global_step}; try a lower lr")
        self.log("train_loss", value.detach(), prog_bar=True, batch_size=len(audio))
        return value

    def _mixed(self, audio: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Each clip with a smaller share of another."""
        share = torch.distributions.Beta(self.mixup, self.mixup).sample((len(audio), 1)).to(audio.device)
        share = torch.maximum(share, 1 - share)
        other = torch.randperm(len(audio), device=audio.device)
        return share * audio + (1 - share) * audio[other], share * targets + (1 - share) * targets[other]

    def _chained(self, audio: Tensor) -> Tensor:
        """Scores (B, labels) of clips that follow each other, `chain` at a time, as far as the batch goes."""
        chain = self.chain if len(audio) % self.chain == 0 else 1
        frames = self.frontend(audio.reshape(-1, chain * audio.shape[-1]))  # (B / chain, chain T, width)
        each = frames.reshape(len(audio), -1, frames.shape[-1])  # (B, T, width)
        frames = self.spec_augment(each, self.stack).reshape(frames.shape)
        return self.model(frames)[0].float().reshape(len(audio), -1, len(self.labels)).mean(1)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Loss and accuracy, in float32 even where training is not."""
        audio, labels = batch
        with torch.autocast(audio.device.type, enabled=False):
            scores = self(audio)
        words = torch.tensor(self.words, device=scores.device)
        right = words[scores[:, words].argmax(1)] == labels
        said = torch.isin(labels, words)
        # Times the number of processes: Lightning averages the counts of clips over them in whole numbers.
        each = self.trainer.world_size
        options = {"on_epoch": True, "prog_bar": True, "sync_dist": True}
        self.log("val_loss", F.cross_entropy(scores, labels), batch_size=len(audio) * each, **options)
        if count := int(said.sum()):
            self.log("val_accuracy", right[said].float().mean(), batch_size=count * each, **options)

    def configure_optimizers(self) -> dict[str, Any]:
        """AdamW in groups and the warm-up and cosine schedule over the trainer's steps."""
        total = self.trainer.estimated_stepping_batches
        return optimizer_and_schedule(
            self.model, total, self.lr, self.ssm_lr, self.weight_decay, self.decay, self.warmup
        )

    @property
    def meta(self) -> dict:
        """What travels with the trained model beside its parameters."""
        return {"keywords": {"labels": list(self.labels), "frontend": self.frontend.to_meta()}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what load_checkpoint makes the network and its front end from, in plain values."""
        checkpoint[KEY] = {"config": self.model.config.to_dict(), "meta": self.meta}


def check_labels(labels: Sequence[str]) -> tuple[str, ...]:
    """The labels as a tuple, or ValueError: fewer than two, one twice, or no words among them."""
    labels = tuple(labels)
    if len(labels) < 2 or len(set(labels)) != len(labels) or not set(labels) - {UNKNOWN, SILENCE}:
        raise ValueError(f"labels is {labels}, expected at least two that differ, words among them")
    return labels
