"""Models by the name of their class, as files and checkpoints have it."""

from __future__ import annotations

import os
from typing import Any, TypeVar

from lrnn.nn.file import read_model
from lrnn.nn.language import LanguageModel, LanguageModelConfig
from lrnn.nn.model import SequenceModel, SequenceModelConfig

Model = SequenceModel | LanguageModel
Some = TypeVar("Some", SequenceModel, LanguageModel)

_CONFIGS: dict[type, Any] = {SequenceModel: SequenceModelConfig, LanguageModel: LanguageModelConfig}
_KINDS = {model.__name__: model for model in _CONFIGS}


def make_model(kind: str, config: dict) -> Model:
    """A model with fresh parameters.

    Args:
        kind: name of its class.
        config: as its config's to_dict gives it.

    Raises:
        TypeError or ValueError where they are not those of a model.
    """
    if kind not in _KINDS:
        raise ValueError(f"found a model of kind {kind!r}, expected {' or '.join(map(repr, _KINDS))}")
    model = _KINDS[kind]
    return model(_CONFIGS[model].from_dict(config))


def load_model(path: str | os.PathLike) -> tuple[Model, dict]:
    """The model and the `meta` of a file that a model's `save` wrote; errors name the file."""
    kind, config, tensors, meta = read_model(path)
    try:
        model = make_model(kind, config)
        model.load_state_dict(tensors)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{path}: configuration and parameters do not fit: {error}") from None
    return model, meta


def load_as(expected: type[Some], path: str | os.PathLike) -> Some:
    """The model of a file that must hold one of this class."""
    model, _ = load_model(path)
    if type(model) is not expected:
        raise ValueError(f"{path}: found a {type(model).__name__}, expected a {expected.__name__}")
    return model
