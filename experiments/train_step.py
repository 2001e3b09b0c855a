"""Times the denoiser's network on one clip of 3751 frames (30 s), as the paper's JAX code was timed.

    python experiments/train_step.py -o experiments/results/train-step.txt

What is compared: forward and backward of `mean(y * w)` on one clip (batch 1) without dropout, and the forward
pass alone in evaluation; no optimiser's step is in either. JAX's figures came with the golden vectors: JAX
0.10.2, jit, ReLU model, two cores of a machine not named, good to a factor of two.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

import lrnn
from lrnn.files import written_whole
from lrnn.memory import keep_freed_memory
from lrnn.profile.bench.report import machine
from lrnn.profile.bench.timing import Timing, interleaved, torch_threads

FRAMES = 3751
JAX = {  # seconds by k: evaluation, forward and backward
    0.5: (0.033, 0.212),
    1.0: (0.111, 0.584),
}


def measure(k: float, threads: int, budget: float) -> dict[str, Timing]:
    """Evaluation, and forward with backward, of the dense network at this k."""
    config = lrnn.SequenceModelConfig(d_in=257, d_out=257, dropout=0.0)
    torch.manual_seed(0)
    trained = lrnn.SequenceModel(config if k == 1 else config.scaled(k))
    still = lrnn.SequenceModel(config if k == 1 else config.scaled(k)).eval()
    x, w = torch.randn(1, FRAMES, 257), torch.randn(1, FRAMES, 257)

    def evaluate():
        with torch.inference_mode():
            return still(x)

    def train():
        trained.zero_grad()
        (trained(x)[0] * w).mean().backward()

    with torch_threads(threads):
        return interleaved({"evaluation": evaluate, "forward and backward": train}, budget=budget)


def table(rows: list[tuple[float, int, dict[str, Timing]]]) -> str:
    """Milliseconds and times faster than the JAX figure."""
    lines = [
        f"dense network on one clip of {FRAMES} frames; {machine()}; torch {torch.__version__}",
        "JAX 0.10.2 was timed on two cores of a machine not named, to a factor of two: 0.5 to 2 says nothing",
        f"{'k':>4}{'threads':>9}  {'':22}{'ms, median (min)':>20}{'JAX ms':>9}{'times faster':>14}",
    ]
    for k, threads, times in rows:
        for (name, found), jax in zip(times.items(), JAX[k], strict=True):
            ms = f"{found.median * 1e3:.1f} ({found.minimum * 1e3:.1f})"
            lines.append(
                f"{k:>4g}{threads:>9}  {name:22}{ms:>20}{jax * 1e3:>9.0f}{jax / found.median:>14.2f}"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--k", type=float, nargs="+", default=[0.5, 1.0], choices=sorted(JAX))
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--budget", type=float, default=8.0, help="seconds for each line pair (default 8)")
    parser.add_argument("-o", "--output", type=Path, help="also write the table to this file")
    args = parser.parse_args()
    keep_freed_memory()
    text = table([(k, n, measure(k, n, args.budget)) for k in args.k for n in args.threads])
    print(text)
    if args.output:
        with written_whole(args.output) as path:
            path.write_text(text + "\n")


if __name__ == "__main__":
    main()
