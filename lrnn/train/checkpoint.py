"""Model files of either kind: Lightning checkpoints (.ckpt) and SequenceModel.save's .safetensors."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import torch

from lrnn.nn import SequenceModel, SequenceModelConfig
from lrnn.nn.model import load_model
from lrnn.prune import attach_masks

KEY = "lrnn"
"""Entry of a Lightning checkpoint with `config` (SequenceModelConfig.to_dict) and `meta` (plain values)."""

PREFIX = "model."
"""What a LightningModule that keeps its SequenceModel as `self.model` puts before its parameters' names."""


def load_checkpoint(path: str | os.PathLike) -> tuple[SequenceModel, dict]:
    """Read a model and its `meta`, in which "frontend" describes the transform around a denoiser.

    Masks of a checkpoint that was being pruned are attached again as parametrizations; `lrnn.prune.bake`
    makes them plain zeros. A .safetensors file has none. Nothing is unpickled but tensors and plain values.

    Raises:
        FileNotFoundError, or ValueError that names the file and what was found in it.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file, expected a .ckpt or .safetensors model")
    if path.suffix == ".safetensors":
        return load_model(path)
    if path.suffix != ".ckpt":
        raise ValueError(f"{path}: found suffix {path.suffix!r}, expected .ckpt or .safetensors")
    checkpoint = _read(path)
    model = SequenceModel(SequenceModelConfig.from_dict(checkpoint[KEY]["config"]))
    state = {
        name.removeprefix(PREFIX): tensor
        for name, tensor in checkpoint["state_dict"].items()
        if name.startswith(PREFIX)
    }
    attach_masks(model, state)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"{path}: parameters do not fit its configuration: {error}") from None
    return model, checkpoint[KEY]["meta"]


def _read(path: Path) -> dict:
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path}: not a checkpoint of tensors and plain values ({reason})") from None
    if not isinstance(checkpoint, dict) or KEY not in checkpoint or "state_dict" not in checkpoint:
        raise ValueError(f"{path}: found a checkpoint without {KEY!r}, expected one that `lrnn fit` wrote")
    return checkpoint
