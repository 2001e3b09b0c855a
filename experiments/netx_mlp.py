"""A denoiser of dense layers and ReLU, pruned while it trains: what stock lava-dl netx can carry as a whole.

    python experiments/netx_mlp.py train --data DIR -o runs/netx-mlp.lrnn
    python experiments/netx_mlp.py report runs/netx-mlp.lrnn --data DIR -o experiments/results/netx

`train` makes a program in float: a mask, frame by frame, from the features of a frame alone. `report`
compiles it as netx computes, writes the .net file, runs that in stock netx on real frames where LRNN_LAVA
names the Python of a Lava environment, and says what each step costs in SI-SNR.
"""

import argparse

import lightning as L
import numpy as np
import torch
from torch import Tensor, nn

import lrnn
from lrnn.data.stft import Stft
from lrnn.prune import bake
from lrnn.train import DenoiseData
from lrnn.train.loss import Estimate, training_loss

WIDTH = 256
STEPS, BATCH = 1200, 8
SPARSITY = 0.8
LR = 2e-3


class MlpDenoiser(L.LightningModule):
    """Estimates the mask of a frame from its features; a batch is (noisy, clean), each (B, N)."""

    def __init__(self):
        super().__init__()
        self.stft = Stft(window="hann", features="level")
        bins = self.stft.n_bins
        self.model = nn.Sequential(
            nn.Linear(bins, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, bins)
        )

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        noisy, clean = batch
        X = self.stft.analyse(noisy)
        mask = self.model(self.stft.read(X))
        estimate = Estimate(self.stft.resynthesise(X, mask, noisy.shape[-1]), X, mask)
        return training_loss("multi_resolution", estimate, clean, self.stft)

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=LR, weight_decay=0.01)
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.trainer.max_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": cosine, "interval": "step"}}


def train(args) -> None:
    L.seed_everything(args.seed)
    module, data = MlpDenoiser(), DenoiseData(args.data, BATCH, args.steps, seed=args.seed)
    trainer = L.Trainer(
        max_steps=args.steps,
        limit_val_batches=0,
        callbacks=[lrnn.Prune(SPARSITY, start=0.1, end=0.8)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        accelerator="cpu",
    )
    trainer.fit(module, data)
    bake(module)
    meta = {"frontend": module.stft.to_meta(), "card": {"task": "denoise", "steps": args.steps, **data.card}}
    program = lrnn.compile(module.model, meta)
    program.save(args.out)
    weights = [node.weight for node in program.nodes if node.op == "linear"]
    kept = sum(int(np.count_nonzero(w)) for w in weights)
    print(f"{args.out}: {kept:,} of {sum(w.size for w in weights):,} weights not zero")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    fit = commands.add_parser("train", help="train and prune; writes a program in float")
    fit.add_argument("--data", metavar="DIR", help="as lrnn fit --data.root; without it synthetic sounds")
    fit.add_argument("--steps", type=int, default=STEPS)
    fit.add_argument("--seed", type=int, default=0)
    fit.add_argument("-o", "--out", required=True, metavar="M.lrnn")
    fit.set_defaults(run=train)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
