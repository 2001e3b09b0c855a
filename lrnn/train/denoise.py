"""The denoiser as a LightningModule: waveform in, STFT, mask, waveform out, trained on -SI-SNR."""

from __future__ import annotations

import os
from typing import Any, Literal, get_args

import lightning as L
import torch
from torch import Tensor

from lrnn.data.metrics import si_snr
from lrnn.data.stft import Stft
from lrnn.nn import SequenceModel, SequenceModelConfig
from lrnn.prune import bake
from lrnn.train.activity import spread, watched
from lrnn.train.checkpoint import KEY, load_checkpoint
from lrnn.train.level import match_level
from lrnn.train.loss import Estimate, Loss, training_loss
from lrnn.train.optim import Decay, optimizer_and_schedule

PAPER_NETWORK = SequenceModelConfig(d_in=257, d_out=257, d_model=192, d_state=256, blocks=16, n_layers=3)
"""The paper's denoiser at k = 1, with ReLU in the places the paper puts it."""
_LEVEL_BATCHES = 8  # 128 clips: the mean gain is known to 0.1 dB


class DenoiseModule(L.LightningModule):
    """Trains a SequenceModel to estimate a mask on the noisy short-time spectrum.

    estimate = iSTFT(X (1 + model(features of X))) with X the STFT of the noisy waveform. Logs `train_loss`,
    `train_si_snr`, `val_si_snr` and `val_si_snri` (the improvement over the noisy input). A batch is (noisy,
    clean), each (B, N) float32.

    Args:
        k: width factor of the paper; the network has k times as many blocks of the same size.
        network: the network at k = 1; its d_in and d_out must be 257, the bins of the 512-sample STFT.
        window: of the STFT: "hann" is the square root of Hann in analysis and synthesis, "boxcar" the
            paper's.
        features: what the network reads: "level" is roots of magnitudes relative to the running level,
            "magnitude" the paper's |X| - 0.0007; see lrnn.data.features.
        loss: "si_snr", "multi_resolution" or "paper"; see lrnn.train.loss.
        activity: weight of lrnn.train.activity.spread in the loss, dB per unit: activations become sparser.
        lr: peak learning rate of everything but the S5 parameters.
        ssm_lr_factor: the S5 parameters' rate as a fraction of `lr`.
        weight_decay: AdamW's, never on S5 parameters.
        decay: what is decayed: "matrices", or "all" for biases and norms too, as in the paper's code.
        warmup: linear warm-up as a fraction of each cycle.
        cycles: cosine cycles, each down to `lr_min` and started at full rate.
        lr_min: rate at the end of each cycle.
        init_from: a .ckpt or .safetensors model to start from; its masks are baked, its optimiser is not
            taken.
    """

    def __init__(
        self,
        k: float = 1.0,
        network: SequenceModelConfig = PAPER_NETWORK,
        window: Literal["hann", "boxcar"] = "hann",
        features: Literal["level", "magnitude"] = "level",
        loss: Loss = "si_snr",
        activity: float = 0.0,
        lr: float = 6e-3,
        ssm_lr_factor: float = 0.25,
        weight_decay: float = 0.04,
        decay: Decay = "matrices",
        warmup: float = 0.03,
        cycles: int = 1,
        lr_min: float = 0.0,
        init_from: str | None = None,
    ):
        super().__init__()
        self.stft = Stft(window=window, features=features)
        config = network.scaled(k)
        if (config.d_in, config.d_out) != (self.stft.n_bins, self.stft.n_bins):
            raise ValueError(
                f"network has d_in, d_out = {config.d_in}, {config.d_out}, expected {self.stft.n_bins} bins"
            )
        if lr <= 0 or ssm_lr_factor <= 0:
            raise ValueError(f"lr, ssm_lr_factor are {lr}, {ssm_lr_factor}, expected positive numbers")
        if cycles < 1 or not 0 <= warmup < 1:
            raise ValueError(f"cycles, warmup are {cycles}, {warmup}, expected cycles >= 1, 0 <= warmup < 1")
        if activity < 0:
            raise ValueError(f"activity is {activity}, expected a weight >= 0")
        if loss not in get_args(Loss):
            raise ValueError(f"loss is {loss!r}, expected one of {get_args(Loss)}")
        self.model = SequenceModel(config)
        self.loss, self.activity = loss, activity
        self.lr, self.ssm_lr, self.lr_min = lr, lr * ssm_lr_factor, lr_min
        self.weight_decay, self.decay = weight_decay, decay
        self.warmup, self.cycles = warmup, cycles
        self.recipe = {
            "task": "denoise",
            "k": k,
            "loss": loss,
            "activity": activity,
            "lr": lr,
            "ssm_lr_factor": ssm_lr_factor,
            "weight_decay": weight_decay,
            "decay": decay,
            "warmup": warmup,
            "cycles": cycles,
            "lr_min": lr_min,
            "init_from": None if init_from is None else os.path.basename(init_from),
        }
        if init_from is not None:
            self._start_from(init_from)

    def _start_from(self, path: str) -> None:
        source, meta = load_checkpoint(path)
        if "frontend" in meta and Stft.from_meta(meta["frontend"]) != self.stft:
            found = Stft.from_meta(meta["frontend"])
            raise ValueError(f"init_from: {path} was trained behind {found}, expected {self.stft}")
        bake(source)
        try:
            self.model.load_state_dict(source.state_dict())
        except RuntimeError as error:
            raise ValueError(f"init_from: {path} does not fit the network: {error}") from None

    def forward(self, noisy: Tensor) -> Tensor:
        """Noisy waveforms (B, N) -> estimates (B, N), float32."""
        return self.estimate(noisy).audio

    def estimate(self, noisy: Tensor) -> Estimate:
        """Noisy waveforms (B, N) -> estimates (B, N), float32, with the mask (B, T, F) that made them."""
        X = self.stft.analyse(noisy)  # (B, T, F) complex
        mask = self.model(self.stft.read(X))[0].float()
        return Estimate(self.stft.resynthesise(X, mask, noisy.shape[-1]), X, mask)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """The loss; one that is no number ends the run at once."""
        noisy, clean = batch
        with watched(self.model) as outputs:
            estimate = self.estimate(noisy)
        value, quality = training_loss(self.loss, estimate, clean, self.stft)
        if self.activity:
            value = value + self.activity * spread(outputs)
        if not torch.isfinite(value):
            raise RuntimeError(f"loss is {value.item()} at step {self.global_step}; try a lower lr")
        self.log("train_loss", value.detach(), batch_size=len(noisy))
        self.log("train_si_snr", quality, prog_bar=True, batch_size=len(noisy))
        return value

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """SI-SNR and its improvement, in float32 even where training is not: what will run is float32."""
        noisy, clean = batch
        with torch.autocast(noisy.device.type, enabled=False):
            estimate = self(noisy)
        after, before = si_snr(estimate, clean), si_snr(noisy, clean)
        # Times the number of processes: Lightning averages the counts of clips over them in whole numbers.
        weight = len(noisy) * self.trainer.world_size
        options = {"on_epoch": True, "prog_bar": True, "batch_size": weight, "sync_dist": True}
        self.log("val_si_snr", after.mean(), **options)
        self.log("val_si_snri", (after - before).mean(), **options)

    def configure_optimizers(self) -> dict[str, Any]:
        """AdamW in groups and the warm-up and cosine schedule over the trainer's steps."""
        return optimizer_and_schedule(
            self.model,
            self.trainer.estimated_stepping_batches,
            self.lr,
            self.ssm_lr,
            self.weight_decay,
            self.decay,
            self.warmup,
            self.lr_min,
            self.cycles,
        )

    def finish(self, model: SequenceModel, datamodule: L.LightningDataModule) -> None:
        """Match the level of a trained copy's output to its input; see lrnn.train.level."""
        match_level(model, self.stft, datamodule.calibration_batches(_LEVEL_BATCHES))

    @property
    def meta(self) -> dict:
        """What travels with the trained model beside its parameters."""
        return {"frontend": self.stft.to_meta()}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what load_checkpoint makes the network and its front end from, in plain values."""
        kind, config = type(self.model).__name__, self.model.config.to_dict()
        checkpoint[KEY] = {"kind": kind, "config": config, "meta": self.meta}
