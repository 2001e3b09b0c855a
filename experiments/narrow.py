"""Where a structured baseline starts: a trained dense network, narrowed to the cost of a sparse one."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from study import Training

from lrnn.nn import SequenceModelConfig
from lrnn.profile import count
from lrnn.program import load
from lrnn.prune import bake, structured
from lrnn.train.checkpoint import load_checkpoint

SIZES = ("d_model", "d_state", "blocks", "n_layers", "relu", "glu", "norm", "prenorm")
"""Fields of a SequenceModel that `lrnn fit` is told; all else is the recipe's."""


def narrow(dense: str | Path, macs: int, start: Path) -> None:
    """Remove whole channels and states of a trained network (.ckpt or .safetensors) and write the rest.

    Args:
        dense: the network.
        macs: multiply-accumulates per frame that are left, at most.
        start: file to write, for `init_from`.
    """
    model, meta = load_checkpoint(dense)
    bake(model)
    print(structured(model, macs), file=sys.stderr)
    model.save(start, {name: meta[name] for name in ("frontend", "keywords") if name in meta})


def start_of(run: Training, dense: Training, sparse: Training, root: str) -> Path:
    """What a structured run of a study starts from: its dense run, narrowed to the cost of its sparse one."""
    path = run.folder(root).parent / "start.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.is_file():
        narrow(dense.folder(root) / "model.safetensors", macs_of(sparse.folder(root) / "model.lrnn"), path)
    return path


def macs_of(model: str | Path) -> int:
    """Multiply-accumulates per frame of a compiled model (.lrnn), of weights that are not zero."""
    return sum(cost.macs_weights for cost in count(load(model)))


def network_options(config: SequenceModelConfig) -> dict[str, str]:
    """The network's sizes and choices as `lrnn fit` takes them, at k = 1."""
    values = config.to_dict()
    return {"--model.k": "1.0"} | {
        f"--model.network.{name}": json.dumps(values[name]).strip('"') for name in SIZES
    }
