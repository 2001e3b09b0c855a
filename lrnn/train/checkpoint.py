"""Reading model files of either kind: Lightning checkpoints (.ckpt) and a model's own .safetensors."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from lrnn.nn.load import Model, load_model, make_model
from lrnn.prune import attach_masks
from lrnn.quant import Scheme, convert, prepare

KEY = "lrnn"
"""Entry of a Lightning checkpoint: the model's `kind` (its class), `config` (its to_dict) and `meta`."""

QUANTIZATION = "quantization"
"""Entry of a checkpoint and of the `meta` of what is made from it: the scheme, and ranges by value."""

PREFIX = "model."
"""What a LightningModule that keeps its model as `self.model` puts before its parameters' names."""


def load_checkpoint(path: str | os.PathLike) -> tuple[Model, dict]:
    """Read a model and its `meta`, in which "frontend" describes the transform around a denoiser.

    Masks of a checkpoint that was being pruned are attached again as parametrizations; `lrnn.prune.bake`
    makes them plain zeros. Weights that were trained quantised lie on their grids, and `meta` has the scheme
    and ranges as "quantization". A .safetensors file has none. Nothing is unpickled but tensors and plain
    values.

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
    checkpoint = read_checkpoint(path)
    if KEY not in checkpoint:
        raise ValueError(f"{path}: found a checkpoint without {KEY!r}, expected one that `lrnn fit` wrote")
    try:
        return _restored(checkpoint)
    except KeyError as error:
        raise ValueError(f"{path}: found no entry {error}, expected one as `lrnn fit` writes it") from None
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{path}: configuration and parameters do not fit: {error}") from None


def _restored(checkpoint: dict[str, Any]) -> tuple[Model, dict]:
    entry = checkpoint[KEY]
    model = make_model(entry.get("kind", "SequenceModel"), entry["config"])
    state = {
        name.removeprefix(PREFIX): tensor
        for name, tensor in checkpoint["state_dict"].items()
        if name.startswith(PREFIX)
    }
    attach_masks(model, state)
    quantization = checkpoint.get(QUANTIZATION)
    if quantization is None:
        model.load_state_dict(state)
        return model, entry["meta"]
    exclude = [pattern.removeprefix(PREFIX) for pattern in quantization.pop("exclude")]
    prepare(model, Scheme.from_json(quantization["scheme"]), exclude)
    model.load_state_dict(state)
    convert(model)
    return model, {**entry["meta"], QUANTIZATION: quantization}


def read_checkpoint(path: str | os.PathLike) -> dict[str, Any]:
    """All that a Lightning checkpoint holds, on the CPU: tensors and plain values, never an object's code.

    Raises:
        FileNotFoundError, or ValueError that names the file and what was found in it.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file, expected a checkpoint")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a file that is no checkpoint makes the reader trip over
        reason = _pickled(path) or (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{path}: not a checkpoint of tensors and plain values ({reason})") from None
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise ValueError(f"{path}: found no 'state_dict', expected a Lightning checkpoint")
    return checkpoint


def _pickled(path: Path) -> str | None:
    """What a whole checkpoint holds that only running code could load."""
    found = pickled_classes(path)
    return f"it holds a pickled {', '.join(found)}; nothing of it was loaded" if found else None


def pickled_classes(path: str | os.PathLike) -> list[str]:
    """Names of classes and functions in a file of torch.save that are neither tensors nor plain values."""
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # no such file at all
        return []
