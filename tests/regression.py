"""A module with dropout, norms and prunable weights, and data that goes on where its trainer stands."""

from __future__ import annotations

import lightning as L
import torch
from torch.utils.data import DataLoader, Sampler, TensorDataset

import lrnn

CONFIG = lrnn.SequenceModelConfig(d_in=6, d_out=4, d_model=12, d_state=16, blocks=2, n_layers=1, dropout=0.1)


class Data(L.LightningDataModule):
    """Eight batches per epoch, in order, from where the trainer stands."""

    def _loader(self, seed, batches, sampler=None):
        generator = torch.Generator().manual_seed(seed)
        x, y = (torch.randn(4 * batches, 9, width, generator=generator) for width in (6, 4))
        return DataLoader(TensorDataset(x, y), 4, sampler=sampler, generator=torch.Generator())

    def train_dataloader(self):
        progress = self.trainer.fit_loop.epoch_loop.batch_progress.total
        return self._loader(0, 8, Rest(32, lambda: progress.processed % 8 * 4))

    def val_dataloader(self):
        return self._loader(1, 2)

    def calibration_batches(self, count):
        return iter(self._loader(2, count))


class Rest(Sampler):
    def __init__(self, count, position):
        self.count, self.position = count, position

    def __len__(self):
        return self.count

    def __iter__(self):
        return iter(range(self.position(), self.count))


class Regression(L.LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.model = lrnn.SequenceModel(CONFIG)
        self.seen = []

    def forward(self, x):
        return self.model(x)[0]

    def training_step(self, batch):
        return (self(batch[0]) - batch[1]).square().mean()

    def validation_step(self, batch, batch_idx):
        if batch_idx == 0:
            self.seen.append({k: v.clone() for k, v in self.state_dict().items()})
        self.log("val_loss", (self(batch[0]) - batch[1]).square().mean())

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), 1e-2)
