"""The denoiser as a LightningModule: waveform in, STFT, mask, waveform out, trained on -SI-SNR."""

from __future__ import annotations

import os
from typing import Any, Literal

import lightning as L
import torch
from torch import Tensor

from lrnn.data.metrics import si_snr
from lrnn.data.stft import Stft, features
from lrnn.nn import SequenceModel, SequenceModelConfig
from lrnn.prune import bake
from lrnn.train.checkpoint import KEY, load_checkpoint
from lrnn.train.level import match_level
from lrnn.train.optim import Decay, parameter_groups, scheduler

PAPER_NETWORK = SequenceModelConfig(d_in=257, d_out=257, d_model=192, d_state=256, blocks=16, n_layers=3)
"""The paper's denoiser at k = 1, with ReLU in the places the paper puts it."""
_LEVEL_BATCHES = 8  # 128 clips: the mean gain is known to 0.1 dB


class DenoiseModule(L.LightningModule):
    """Trains a SequenceModel to estimate a mask on the noisy short-time spectrum.

    estimate = iSTFT(X (1 + model(|X| - 0.0007))) with X the STFT of the noisy waveform; the loss is the
    negative SI-SNR of the estimate in dB, mean over clips. Logs `train_si_snr`, `val_si_snr` and
    `val_si_snri` (the improvement over the noisy input). A batch is (noisy, clean), each (B, N) float32.

    Args:
        k: width factor of the paper; the network has k times as many blocks of the same size.
        network: the network at k = 1; its d_in and d_out must be 257, the bins of the 512-sample STFT.
        window: of the STFT: "hann" is the square root of Hann in analysis and synthesis, "boxcar" the
            paper's.
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
        self.stft = Stft(window=window)
        config = network.scaled(k)
        if (config.d_in, config.d_out) != (self.stft.n_bins, self.stft.n_bins):
            raise ValueError(
                f"network has d_in, d_out = {config.d_in}, {config.d_out}, expected {self.stft.n_bins} bins"
            )
        if lr <= 0 or ssm_lr_factor <= 0:
            raise ValueError(f"lr, ssm_lr_factor are {lr}, {ssm_lr_factor}, expected positive numbers")
        if cycles < 1 or not 0 <= warmup < 1:
            raise ValueError(f"cycles, warmup are {cycles}, {warmup}, expected cycles >= 1, 0 <= warmup < 1")
        self.model = SequenceModel(config)
        self.lr, self.ssm_lr, self.lr_min = lr, lr * ssm_lr_factor, lr_min
        self.weight_decay, self.decay = weight_decay, decay
        self.warmup, self.cycles = warmup, cycles
        self.recipe = {
            "task": "denoise",
            "k": k,
            "lr": lr,
            "ssm_lr_factor": ssm_lr_factor,
            "weight_decay": weight_decay,
            "decay": decay,
            "warmup": warmup,
            "cycles": cycles,
            "lr_min": lr_min,
            "init_from": None if init_from is None else os.path.basename(init_from),
        }
        self._rng_state: Tensor | None = None
        if init_from is not None:
            self._start_from(init_from)

    def _start_from(self, path: str) -> None:
        source, _ = load_checkpoint(path)
        bake(source)
        try:
            self.model.load_state_dict(source.state_dict())
        except RuntimeError as error:
            raise ValueError(f"init_from: {path} does not fit the network: {error}") from None

    def forward(self, noisy: Tensor) -> Tensor:
        """Noisy waveforms (B, N) -> estimates (B, N), float32."""
        X = self.stft.analyse(noisy)  # (B, T, F) complex
        mask, _ = self.model(features(X))
        return self.stft.resynthesise(X, mask.float(), noisy.shape[-1])

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """-SI-SNR in dB; a loss that is no number ends the run at once."""
        noisy, clean = batch
        loss = -si_snr(self(noisy), clean).mean()
        if not torch.isfinite(loss):
            raise RuntimeError(f"loss is {loss.item()} at step {self.global_step}; try a lower lr")
        self.log("train_si_snr", -loss.detach(), prog_bar=True, batch_size=len(noisy))
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """SI-SNR and its improvement, in float32 even where training is not: what will run is float32."""
        noisy, clean = batch
        with torch.autocast(noisy.device.type, enabled=False):
            estimate = self(noisy)
        after, before = si_snr(estimate, clean), si_snr(noisy, clean)
        options = {"on_epoch": True, "prog_bar": True, "batch_size": len(noisy), "sync_dist": True}
        self.log("val_si_snr", after.mean(), **options)
        self.log("val_si_snri", (after - before).mean(), **options)

    def configure_optimizers(self) -> dict[str, Any]:
        """AdamW in groups and the warm-up and cosine schedule over the trainer's steps."""
        groups = parameter_groups(self.model, self.lr, self.ssm_lr, self.weight_decay, self.decay)
        optimizer = torch.optim.AdamW(groups, lr=self.lr, fused=True)
        total = self.trainer.estimated_stepping_batches
        if total == float("inf"):
            raise ValueError("trainer has neither max_steps nor max_epochs: the schedule needs an end")
        warmup = round(self.warmup * total / self.cycles)
        schedule = scheduler(optimizer, warmup, total, self.lr_min, self.cycles)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def finish(self, model: SequenceModel, datamodule: L.LightningDataModule) -> None:
        """Match the level of a trained copy's output to its input; see lrnn.train.level."""
        match_level(model, self.stft, datamodule.calibration_batches(_LEVEL_BATCHES))

    @property
    def meta(self) -> dict:
        """What travels with the trained model beside its parameters."""
        return {"frontend": self.stft.to_meta()}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the configuration and the state of the random numbers that dropout draws, as plain values."""
        checkpoint[KEY] = {"config": self.model.config.to_dict(), "meta": self.meta}
        checkpoint[KEY]["rng"] = _generator_state(self.device)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Remember the random state until training starts."""
        self._rng_state = checkpoint.get(KEY, {}).get("rng")

    def on_train_start(self) -> None:
        """Continue the random numbers of the run that wrote the checkpoint."""
        if self._rng_state is not None:
            _set_generator_state(self.device, self._rng_state)
            self._rng_state = None


def _generator_state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _set_generator_state(device: torch.device, state: Tensor) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state.cpu(), device)
    else:
        torch.set_rng_state(state.cpu())
