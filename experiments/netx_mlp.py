"""A denoiser of dense layers and ReLU, pruned while it trains: what stock lava-dl netx can carry as a whole.

    python experiments/netx_mlp.py train --data DIR -o runs/netx-mlp.lrnn
    python experiments/netx_mlp.py report runs/netx-mlp.lrnn --data DIR -o experiments/results/netx

`train` makes a program in float: a mask, frame by frame, from the features of a frame alone. `report`
compiles it as netx computes, writes a .net file, runs that in stock netx on real frames where LRNN_LAVA
names the Python of a Lava environment or `make lava` built one, and says what each step costs in SI-SNR.
"""

import argparse
import tempfile
from pathlib import Path

import lightning as L
import numpy as np
import torch
from torch import Tensor, nn

import lrnn
from lrnn.cli.console import progress
from lrnn.data.bootstrap import intervals
from lrnn.data.denoiser import Denoiser
from lrnn.data.evaluate import scores
from lrnn.data.ndns import NdnsFolder, find_validation
from lrnn.data.stft import Stft
from lrnn.export.lava.environment import find_lava
from lrnn.export.netx import (
    Stack,
    compile_netx,
    layer_rows,
    program_integers,
    verify_nets,
    whole_stack,
    write_net,
)
from lrnn.export.netx.stack import SHIFT
from lrnn.files import written_whole
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
        loss, _ = training_loss("multi_resolution", estimate, clean, self.stft)
        return loss

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


def report(args) -> None:
    """SI-SNR in float, at w8a16 and as netx computes; the .net file; stock netx on real frames."""
    floats = lrnn.load(args.model)
    ranges = lrnn.calibrate(floats, training_frames(Denoiser(floats), args.data))
    made = compile_netx(floats, ranges)
    stack = whole_stack(made)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "mlp.net")
        write_net(stack, path)
        size = path.stat().st_size
        clips = NdnsFolder(find_validation(args.data))
        clips = [clips[i] for i in range(len(clips))]
        frames = Denoiser(made).features(clips[0].noisy.numpy(), 16000)[: args.frames]
        x, y = program_integers(made, stack, frames)
        verified = None
        python = find_lava()
        if python is not None:
            (simulated,) = verify_nets([(path, x)], python)
            verified = {
                "frames": len(x),
                "integers": 2 * simulated.size,
                "equal": bool((simulated == y).all()),
            }
    programs = {"float32": floats, "w8a16": lrnn.compile_fixed(floats, ranges, "w8a16"), "netx": made}
    measured = {name: measure(program, clips) for name, program in progress(programs.items(), 3, "programs")}
    text = markdown(args, stack, size, measured, verified, sums_seen(made, stack, clips))
    with written_whole(Path(args.out).with_suffix(".md")) as path:
        path.write_text(text)
    print(text)


def training_frames(denoiser: Denoiser, data: str) -> list[Tensor]:
    """What the network reads of mixtures made as for training that training never sees."""
    module = DenoiseData(data, batch_size=8, clip_seconds=4.0)
    module.setup("fit")
    return [denoiser.stft.read(denoiser.stft.analyse(noisy)) for noisy, _ in module.calibration_batches(8)]


def measure(program: lrnn.Program, clips: list) -> dict:
    """SI-SNR of each clip, in dB, before and after."""
    scored = list(scores(Denoiser(program), clips))
    return {
        "before": [s.noisy["si_snr"] for s in scored],
        "after": [s.denoised["si_snr"] for s in scored],
    }


def sums_seen(program: lrnn.Program, stack: Stack, clips: list) -> list[dict]:
    """Of each layer, the bits of the greatest sum that the clips' frames make in a row, in any order of its
    terms, and of the greatest that any frames could; the bias, with the offset of the last layer, counts too.
    """
    x = [Denoiser(program).features(clip.noisy.numpy(), 16000) for clip in clips]
    x = np.rint(np.ldexp(np.concatenate(x), stack.input.exponent)).astype(np.int64)
    y, rows = np.clip(x, stack.input.low, stack.input.high), []
    for layer, bounds in stack.bounded():
        magnitudes = np.abs(layer.weight.astype(np.int64))
        bias = np.abs(layer.bias) << SHIFT
        seen = (np.abs(y) @ magnitudes.T).max(0) + bias
        could = magnitudes @ np.maximum(bounds.high, -bounds.low) + bias
        rows.append({"seen": int(seen.max()).bit_length() + 1, "could": int(could.max()).bit_length() + 1})
        y = layer.step(y)
    return rows


def markdown(args, stack: Stack, size: int, measured: dict, verified: dict | None, sums: list[dict]) -> str:
    """The results page."""
    lines = [
        "# A denoiser that stock netx carries as a whole",
        "",
        f"    python experiments/netx_mlp.py report M.lrnn --data DIR -o {args.out}",
        "",
        "Dense layers and ReLU, frame by frame, trained and pruned by `experiments/netx_mlp.py train`; "
        f"{len(measured['netx']['after'])} validation clips of ndns-mini. Intervals are 95 % over clips.",
        "",
        "| form | SI-SNR, dB | improvement, dB | against float32, dB |",
        "|---|---|---|---|",
    ]
    before, floats = np.array(measured["float32"]["before"]), np.array(measured["float32"]["after"])
    for name, row in measured.items():
        after = np.array(row["after"])
        _, low, high = intervals((after - floats)[:, None])[0]
        against = "" if name == "float32" else f"{(after - floats).mean():+.4f} ({low:+.4f} to {high:+.4f})"
        lines.append(f"| {name} | {after.mean():.2f} | {(after - before).mean():.2f} | {against} |")
    lines += [
        "",
        f"The `.net` file has {size:,} bytes, an input of {stack.input.bits} bits and {stack.lag} layers:",
        "",
        "| layer | shape | weights not zero | bits of sums, any input | bits of sums, these clips |",
        "|---|---|---|---|---|",
    ]
    for row, bits in zip(layer_rows(stack), sums, strict=True):
        shape = " x ".join(map(str, row["shape"]))
        lines.append(f"| {row['node']} | {shape} | {row['nonzeros']:,} | {bits['could']} | {bits['seen']} |")
    lines += [
        "",
        "Lava's simulator sums in 32 bits, which is proved to be enough for any input. A dendrite of the "
        "chip has 24: where the first figure is above it, only the second, measured, speaks for it. The last "
        f"layer has no ReLU: the offset of {stack.offset:,}, in units of 64, that lets every output pass "
        "netx's is most of its sum, and too wide for the chip.",
        "",
    ]
    if verified is not None:
        lines += [
            "Stock lava-dl 0.6.0 netx on lava-nc 0.10.0's CPU simulator, dense and sparse synapses: "
            f"{verified['integers']:,} outputs on {verified['frames']} frames of a noisy clip are "
            f"{'all' if verified['equal'] else 'NOT'} those of the program.",
            "",
        ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    fit = commands.add_parser("train", help="train and prune; writes a program in float")
    fit.add_argument("--data", metavar="DIR", help="as lrnn fit --data.root; without it synthetic sounds")
    fit.add_argument("--steps", type=int, default=STEPS)
    fit.add_argument("--seed", type=int, default=0)
    fit.add_argument("-o", "--out", required=True, metavar="M.lrnn")
    fit.set_defaults(run=train)
    tell = commands.add_parser("report", help="compile for netx, verify, measure; writes a page")
    tell.add_argument("model", metavar="M.lrnn", help="what train wrote")
    tell.add_argument("--data", required=True, metavar="DIR", help="training sources and a validation set")
    tell.add_argument("--frames", type=int, default=400, help="that run in stock netx (default 400)")
    tell.add_argument("-o", "--out", required=True, metavar="PREFIX", help="of the .md file")
    tell.set_defaults(run=report)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
