"""Model files: parameters as safetensors; configuration and what travels with a model in the header."""

from __future__ import annotations

import json
import os

from torch import Tensor

from lrnn.files import read_header, written_whole

FORMAT, VERSION = "lrnn-model", 1
_FIRST_KIND = "SequenceModel"  # of files from before there were others


def write_model(
    path: str | os.PathLike, kind: str, config: dict, tensors: dict[str, Tensor], meta: dict
) -> None:
    """Write plain parameters, whole or not at all; ValueError where some carry parametrizations.

    Args:
        path: of the file.
        kind: name of the model's class.
        config: JSON values that the class makes a model of.
        tensors: parameters by name.
        meta: JSON values that travel with the model.
    """
    from safetensors.torch import save_file

    masked = [name for name in tensors if ".parametrizations." in f".{name}"]
    if masked:
        raise ValueError(f"model has parametrizations ({masked[0]}); bake them before saving")
    header = {"format": FORMAT, "version": VERSION, "kind": kind, "config": config, "meta": meta}
    plain = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    with written_whole(path) as temporary:
        save_file(plain, temporary, metadata={"lrnn": json.dumps(header)})


def read_model(path: str | os.PathLike) -> tuple[str, dict, dict[str, Tensor], dict]:
    """Kind, configuration, parameters and meta of a file that write_model wrote; errors name the file."""
    from safetensors.torch import load_file

    header = read_header(path, FORMAT)
    if header.get("version") != VERSION:
        raise ValueError(f"{path}: found version {header.get('version')!r} of {FORMAT}, expected {VERSION}")
    if not isinstance(header.get("config"), dict):
        raise ValueError(f"{path}: its header has no config, expected that of a model")
    kind = header.get("kind", _FIRST_KIND)
    return kind, header["config"], load_file(path), header.get("meta", {})
