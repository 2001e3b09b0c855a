"""Model files: parameters as safetensors, configuration as JSON in the header."""

from __future__ import annotations

import json
import os

from safetensors.torch import load_file, save_file

from lrnn.files import read_header, written_whole
from lrnn.nn.config import SequenceModelConfig
from lrnn.nn.model import SequenceModel

FORMAT, VERSION = "lrnn-model", 1


def save_model(model: SequenceModel, path: str | os.PathLike, meta: dict) -> None:
    """Write a model whose weights carry no parametrizations (bake masks first)."""
    masked = [name for name in model.state_dict() if ".parametrizations." in f".{name}"]
    if masked:
        raise ValueError(f"model has parametrizations ({masked[0]}); bake them before saving")
    header = {"format": FORMAT, "version": VERSION, "config": model.config.to_dict(), "meta": meta}
    tensors = {name: tensor.detach().contiguous() for name, tensor in model.state_dict().items()}
    with written_whole(path) as temporary:
        save_file(tensors, temporary, metadata={"lrnn": json.dumps(header)})


def load_model(path: str | os.PathLike) -> tuple[SequenceModel, dict]:
    """The model and the `meta` of a file written by save_model."""
    header = read_header(path, FORMAT)
    if header.get("version") != VERSION:
        raise ValueError(f"{path}: found version {header.get('version')!r} of {FORMAT}, expected {VERSION}")
    model = SequenceModel(SequenceModelConfig.from_dict(header["config"]))
    try:
        model.load_state_dict(load_file(path))
    except RuntimeError as error:
        raise ValueError(f"{path}: parameters do not fit its configuration: {error}") from None
    return model, header.get("meta", {})
