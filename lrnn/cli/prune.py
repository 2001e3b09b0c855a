"""`lrnn prune CKPT -o OUT`: magnitude pruning of a trained model in one shot, without training it again."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import get_args

from lrnn.cli.console import table
from lrnn.prune import Distribution, Pruner, Score, bake


def add(commands) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "prune",
        help="set the smallest weights of a trained model to zero",
        description="One-shot magnitude pruning. Nothing is trained, so expect a loss of quality; "
        "to train a network while it is pruned, put lrnn.Prune into the recipe of `lrnn fit`.",
    )
    parser.add_argument("checkpoint", metavar="CKPT", help="a model: .ckpt of `lrnn fit`, or .safetensors")
    parser.add_argument("-o", "--out", metavar="OUT", required=True, help="the pruned model, .safetensors")
    parser.add_argument("--sparsity", type=float, default=0.9, help="share of zeros (default: %(default)s)")
    parser.add_argument(
        "--distribution", choices=get_args(Distribution), default="erk", help="default: %(default)s"
    )
    parser.add_argument(
        "--exclude", metavar="GLOB", action="append", default=[], help="a parameter or module to leave dense"
    )
    parser.add_argument(
        "--override",
        metavar="GLOB=S",
        action="append",
        default=[],
        help="sparsity of a parameter or module; the others share what is left of --sparsity",
    )
    parser.add_argument(
        "--score",
        choices=get_args(Score),
        default="discretized",
        help="rank entries of an S5's B by |B_bar| or by |B| (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.set_defaults(run=run)


def run(args) -> int:
    """Load, prune, save, report."""
    from lrnn.train.checkpoint import load_checkpoint

    if Path(args.out).suffix != ".safetensors":
        raise ValueError(f"-o is {args.out}, expected a name that ends in .safetensors")
    overrides = dict(map(_override, args.override))
    model, meta = load_checkpoint(args.checkpoint)
    bake(model)  # what training has pruned stays pruned: zeros go first
    pruner = Pruner(
        model,
        args.sparsity,
        args.distribution,
        exclude=args.exclude,
        overrides=overrides,
        score=args.score,
    ).attach()
    pruner.step(0)
    pruner.finalize()
    model.save(args.out, _after_pruning(meta, args, overrides))
    total, sparsities, dead = pruner.total_sparsity(), pruner.sparsities(), pruner.dead_units()
    if args.json:
        counts = {name: len(units) for name, units in dead.items()}
        print(json.dumps({"out": args.out, "sparsity": total, "parameters": sparsities, "dead": counts}))
        return 0
    rows = [[name, f"{sparsity:.4f}", str(dead[name])] for name, sparsity in sparsities.items()]
    print(table([*rows, ["all of these", f"{total:.4f}", ""]], ["parameter", "sparsity", "dead units"]))
    print(f"wrote {args.out}", file=sys.stderr)
    return 0


def _override(argument: str) -> tuple[str, float]:
    pattern, _, sparsity = argument.rpartition("=")
    try:
        return pattern, float(sparsity)
    except ValueError:
        raise ValueError(f"--override is {argument}, expected GLOB=S such as decoder=0.5") from None


def _after_pruning(meta: dict, args, overrides: dict[str, float]) -> dict:
    """What travels with the model, its card without the metrics that pruning has made untrue."""
    if "card" not in meta:
        return meta
    card = {name: value for name, value in meta["card"].items() if name != "metrics"}
    one_shot = {"sparsity": args.sparsity, "distribution": args.distribution, "mode": "one-shot"}
    one_shot["score"] = args.score
    if overrides:
        one_shot["overrides"] = overrides
    return {**meta, "card": {**card, "pruning": one_shot, "sparsity": args.sparsity}}
