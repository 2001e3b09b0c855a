"""SequenceModel: encoder, S5 blocks, decoder; one output per frame, or one per sequence."""

from __future__ import annotations

import os

import torch
from torch import Tensor, nn

from lrnn.nn.block import S5Block, linear
from lrnn.nn.config import SequenceModelConfig
from lrnn.nn.file import write_model
from lrnn.nn.s5 import check_frames


class SequenceModel(nn.Module):
    """The paper's stack.

    Args:
        config: see SequenceModelConfig.

    State: a tuple with one (B, P) complex tensor per block; with mean pooling a last entry (B, H + 1) holds
    the sum of the frames so far and their number.
    """

    def __init__(self, config: SequenceModelConfig):
        super().__init__()
        self.config = config
        self.encoder = linear(config.d_in, config.d_model)
        self.relu = nn.ReLU() if config.relu != "none" else nn.Identity()
        self.blocks = nn.ModuleList(S5Block(config.layer(i)) for i in range(config.n_layers))
        self.decoder = linear(config.d_model, config.d_out)

    @property
    def pools(self) -> bool:
        """Whether a mean over time is carried from stretch to stretch."""
        return self.config.head == "classification" and self.config.pooling == "mean"

    def forward(
        self, x: Tensor, state: tuple[Tensor | None, ...] | None = None, reset: Tensor | None = None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Run over a stretch of time.

        Args:
            x: (B, T, d_in).
            state: as returned for the stretch before; None is zeros.
            reset: (B, T) bool, True where a new sequence starts.

        Returns:
            Regression: y (B, T, d_out). Classification: log-probabilities (B, d_out) of the sequence that
            ends the stretch. Second, the state after the last frame.
        """
        state = self._check(x, state)
        if self.config.input_exponent is not None:
            unit = 2.0**self.config.input_exponent
            x = torch.round(x * unit) / unit
        x = self.relu(self.encoder(x))
        after = []
        for block, before in zip(self.blocks, state, strict=False):
            x, carried = block(x, before, reset)
            after.append(carried)
        if self.config.head == "regression":
            return self.decoder(x), tuple(after)
        if self.pools:
            total, number = self._pool(x, state[-1], reset)
            after.append(torch.cat([total, number], dim=-1))
            x = total / number
        else:
            x = x[:, -1]
        return torch.log_softmax(self.decoder(x), dim=-1), tuple(after)

    def _pool(self, x: Tensor, before: Tensor | None, reset: Tensor | None) -> tuple[Tensor, Tensor]:
        """Sum of the frames of the last sequence (B, H) and their number (B, 1)."""
        if reset is None:
            total, number = x.sum(1), x.new_full((x.shape[0], 1), x.shape[1])
        else:
            later = reset.flip(1).cumsum(1).flip(1) - reset.long()  # resets strictly after each frame
            last = (later == 0)[..., None]
            total, number = (x * last).sum(1), last.sum(1).to(x.dtype)
        if before is None:
            return total, number
        if reset is not None:
            before = before * ~reset.any(1, keepdim=True)
        return before[:, :-1] + total, before[:, -1:] + number

    def _check(self, x: Tensor, state: tuple | None) -> tuple:
        check_frames(x, self.config.d_in)
        entries = self.config.n_layers + self.pools
        if state is None:
            return (None,) * entries
        if len(state) != entries:
            raise ValueError(f"state has {len(state)} entries, expected {entries}, one per block")
        return tuple(state)

    def save(self, path: str | os.PathLike, meta: dict | None = None) -> None:
        """Write config, parameters and `meta` (JSON values) as one safetensors file; bake masks first."""
        write_model(path, "SequenceModel", self.config.to_dict(), self.state_dict(), meta or {})

    @classmethod
    def load(cls, path: str | os.PathLike) -> SequenceModel:
        """Read a file written by `save`; ValueError where it holds another kind of model."""
        from lrnn.nn.load import load_as

        return load_as(cls, path)
