"""LanguageModel: embedding, HGRN or S5 blocks, a last norm, logits of the next token."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lrnn.nn.block import S5Stack, linear
from lrnn.nn.config import HGRNBlockConfig, S5BlockConfig
from lrnn.nn.file import write_model
from lrnn.nn.hgrn_stack import HGRNStack

_BLOCKS: dict[Any, Any] = {"hgrn": HGRNBlockConfig, "s5": S5BlockConfig}


@dataclass(frozen=True, kw_only=True)
class LanguageModelConfig:
    """A vocabulary, and a stack of equal blocks.

    Args:
        vocabulary: tokens V; 256 for bytes.
        n_layers: blocks.
        block: an HGRNBlockConfig or an S5BlockConfig; which one it is chooses the kind of the blocks.
        tied: the embedding is the output matrix too, else that is one of its own.
    """

    vocabulary: int = 256
    n_layers: int = 4
    block: HGRNBlockConfig | S5BlockConfig = field(default_factory=HGRNBlockConfig)
    tied: bool = False

    def __post_init__(self):
        for name in ("vocabulary", "n_layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected at least 1")
        if not isinstance(self.block, HGRNBlockConfig | S5BlockConfig):
            found = type(self.block).__name__
            raise TypeError(f"block is a {found}, expected an HGRNBlockConfig or an S5BlockConfig")

    @property
    def d_model(self) -> int:
        """Width H of the residual stream."""
        return self.block.d_model

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; `block` has its kind, "hgrn" or "s5", beside its fields."""
        kind = next(kind for kind, config in _BLOCKS.items() if isinstance(self.block, config))
        return {**asdict(self), "block": {"kind": kind, **asdict(self.block)}}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> LanguageModelConfig:
        """The inverse of to_dict; ValueError names a key that is not a field."""
        unknown = set(values) - {f.name for f in fields(cls)}
        if unknown:
            raise ValueError(f"{cls.__name__} has no field {sorted(unknown)[0]!r}")
        if "block" not in values:
            return cls(**values)
        block = dict(values["block"])
        kind = block.pop("kind", None)
        if kind not in _BLOCKS:
            raise ValueError(f"block has kind {kind!r}, expected {' or '.join(map(repr, _BLOCKS))}")
        return cls(**{**values, "block": _BLOCKS[kind].from_dict(block)})


class LanguageModel(nn.Module):
    """Predicts the next token of a sequence.

    Args:
        config: see LanguageModelConfig.

    Parameters: embedding (V, H); those of the stack, the last norm included; head (V, H) unless it is tied.
    State: a tuple with one tensor per block.
    """

    def __init__(self, config: LanguageModelConfig):
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocabulary, config.d_model)
        nn.init.normal_(self.embedding.weight, std=config.d_model**-0.5)
        self.stack: HGRNStack | S5Stack
        if isinstance(config.block, HGRNBlockConfig):
            self.stack = HGRNStack(config.block, config.n_layers)
        else:
            self.stack = S5Stack(config.block, config.n_layers)
        self.head = None if config.tied else linear(config.d_model, config.vocabulary, bias=False)

    @property
    def output_matrix(self) -> Tensor:
        """What makes logits of the last norm's output, (V, H)."""
        return self.embedding.weight if self.head is None else self.head.weight

    def forward(
        self, tokens: Tensor, state: tuple | None = None, reset: Tensor | None = None
    ) -> tuple[Tensor, tuple]:
        """Run over a stretch of time.

        Args:
            tokens: (B, T), integers in [0, V).
            state: as returned for the stretch before; None is zeros.
            reset: (B, T) bool, True where a new sequence starts.

        Returns:
            logits (B, T, V) of the token after each, and the state after the last.
        """
        if tokens.ndim != 2:
            raise ValueError(f"tokens has shape {tuple(tokens.shape)}, expected (batch, time)")
        if tokens.dtype not in (torch.int64, torch.int32):
            raise TypeError(f"tokens has dtype {tokens.dtype}, expected torch.int64 or torch.int32")
        y, state = self.stack(self.embedding(tokens), state, reset)
        logits = F.linear(y, self.embedding.weight) if self.head is None else self.head(y)
        return logits, state

    def save(self, path: str | os.PathLike, meta: dict | None = None) -> None:
        """Write config, parameters and `meta` (JSON values) as one safetensors file; bake masks first."""
        write_model(path, "LanguageModel", self.config.to_dict(), self.state_dict(), meta or {})

    @classmethod
    def load(cls, path: str | os.PathLike) -> LanguageModel:
        """Read a file written by `save`; ValueError where it holds another kind of model."""
        from lrnn.nn.load import load_as

        return load_as(cls, path)
