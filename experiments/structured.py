"""The structured baseline: a dense denoiser narrowed to the multiply-accumulates of a sparse one, trained on.

    python experiments/structured.py DENSE.safetensors --like SPARSE.lrnn --data DIR -o runs/structured

DENSE is a trained dense network (a .ckpt or .safetensors of `lrnn fit`), SPARSE the compiled 90 % model to
equal. Whole channels and states are removed by `lrnn.prune.structured`, then `lrnn fit` goes on training with
a fresh optimiser. A run that was stopped goes on where it was, one that is done is only measured. Writes
start.safetensors, the run's folder, and result.json with both models' figures on the validation clips; the
folder's model.lrnn can stand beside others in experiments/compare.py.
"""

import argparse
import json
import sys
from pathlib import Path

from compare import measure
from narrow import macs_of, narrow, network_options
from study import call

from lrnn.data.ndns import NdnsFolder, find_validation
from lrnn.files import written_whole
from lrnn.train.checkpoint import load_checkpoint

RECIPE = "experiments/denoise-mini-dense.yaml"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dense", metavar="DENSE", help="a trained dense denoiser, .ckpt or .safetensors")
    budget = parser.add_mutually_exclusive_group(required=True)
    budget.add_argument("--like", metavar="SPARSE.lrnn", help="the sparse model to equal")
    budget.add_argument("--macs", type=int, help="multiply-accumulates per frame, in place of --like")
    parser.add_argument("--data", required=True, metavar="DIR", help="sources to mix and a validation set")
    parser.add_argument("-o", "--out", required=True, metavar="DIR", help="where everything goes")
    parser.add_argument("--steps", type=int, default=4000, help="optimiser steps of training on")
    parser.add_argument("--lr", type=float, default=3e-3, help="peak learning rate")
    args = parser.parse_args()
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    start = out / "start.safetensors"
    if not start.is_file():
        narrow(args.dense, args.macs or macs_of(args.like), start)
    folder = out / "fit" / "version_0"
    if not (folder / "model.lrnn").is_file():
        train(args, start, out)
    report(args, folder / "model.lrnn", out / "result.json")


def train(args, start: Path, out: Path) -> None:
    """`lrnn fit` from the narrow network, in a process of its own; a stopped run goes on."""
    config = load_checkpoint(start)[0].config
    options = {
        "--data.root": args.data,
        "--model.lr": args.lr,
        "--model.init_args.init_from": start,
        "--trainer.max_steps": args.steps,
        "--trainer.logger.init_args.save_dir": out,
        "--trainer.logger.init_args.name": "fit",
        "--ckpt_path": "last",
        **network_options(config),
    }
    command = [sys.executable, "-m", "lrnn.cli", "fit", "-c", RECIPE]
    command += [str(word) for pair in options.items() for word in pair]
    call(command, out / "fit.log")


def report(args, model: Path, path: Path) -> None:
    """Measure both models on the validation clips."""
    folder = NdnsFolder(find_validation(args.data))
    clips = [folder[i] for i in range(len(folder))]
    chosen = {"structured": str(model), **({"sparse": args.like} if args.like else {})}
    rows = {name: measure(file, clips) for name, file in chosen.items()}
    with written_whole(path) as temporary:
        temporary.write_text(json.dumps(rows, indent=1) + "\n")
    for name, row in rows.items():
        print(
            f"{name:>10}: {row['si_snri']:+.2f} dB SI-SNRi, {row['macs_weights']:,} nonzero and "
            f"{row['macs_effective']:,} effective multiply-accumulates a frame, {row['file_bytes']:,} bytes"
        )


if __name__ == "__main__":
    sys.exit(main())
