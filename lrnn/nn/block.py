"""One S5 block: norm, S5, activation, gate, residual (the paper's sequence layer)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lrnn.nn.config import S5BlockConfig
from lrnn.nn.init import lecun_normal
from lrnn.nn.norm import BatchNorm
from lrnn.nn.s5 import S5, check_frames
from lrnn.nn.sizes import one_each, one_size


class TimeDropout(nn.Module):
    """Dropout whose mask is drawn once per sequence and feature and shared over time: x (B, T, H)."""

    def __init__(self, p: float):
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Drop features of whole sequences, scaled by 1/(1-p); the identity in evaluation."""
        if not self.training or self.p == 0:
            return x
        return x * F.dropout(x.new_ones(x.shape[0], 1, x.shape[2]), self.p)

    def extra_repr(self) -> str:
        """Probability."""
        return f"p={self.p}"


def linear(d_in: int, d_out: int, bias: bool = True) -> nn.Linear:
    """nn.Linear with LeCun-normal weights and zero bias, as flax initialises a Dense."""
    layer = nn.Linear(d_in, d_out, bias)
    with torch.no_grad():
        layer.weight.copy_(lecun_normal((d_out, d_in), fan_in=d_in))
        if bias:
            layer.bias.zero_()
    return layer


def make_norm(config: S5BlockConfig) -> nn.Module:
    """The block's norm. Layer norm has flax's eps of 1e-6."""
    if config.norm == "layer":
        return nn.LayerNorm(config.d_model, eps=1e-6)
    return BatchNorm(config.d_model, config.norm_momentum, frozen=config.norm == "frozen_batch")


class S5Block(nn.Module):
    """x + gate(S5(norm(x))), see S5BlockConfig for what can be chosen.

    Args:
        config: sizes and choices.
    """

    def __init__(self, config: S5BlockConfig):
        super().__init__()
        self.config = config
        self.norm = make_norm(config)
        d_state = one_size("d_state", config.d_state)
        self.ssm = S5(config.d_model, d_state, config.blocks, config.relu, config.ssm)
        rectified = config.relu != "none"
        self.activation = nn.ReLU() if rectified else nn.GELU(approximate="tanh")
        self.relu = nn.ReLU() if rectified else nn.Identity()  # of the residual sum
        self.out1 = linear(config.d_model, config.d_model) if config.glu == "full" else None
        self.out2 = linear(config.d_model, config.d_model) if config.glu != "none" else None
        self.sigmoid = nn.Sigmoid()
        self.dropout = TimeDropout(config.dropout)

    def forward(
        self, x: Tensor, state: Tensor | None = None, reset: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """x (B, T, H), state (B, P) or None, reset (B, T) or None -> y (B, T, H), state."""
        check_frames(x, self.config.d_model)
        y, state = self.ssm(self.norm(x) if self.config.prenorm else x, state, reset)
        y = x + self._gate(y)
        if not self.config.prenorm:
            y = self.norm(y)
        return self.relu(y), state

    def _gate(self, y: Tensor) -> Tensor:
        x1 = self.dropout(self.activation(y))
        if self.out2 is None:
            return x1
        gate = self.sigmoid(self.out2(x1))
        if self.out1 is not None:
            return self.dropout(self.out1(x1) * gate)
        return self.dropout((x1 if self.config.glu == "half1" else y) * gate)


class S5Stack(nn.Module):
    """Blocks and a last norm, and before them a ReLU where the blocks have it, as in SequenceModel.

    Args:
        config: of every block.
        n_layers: blocks L.

    State: a tuple with one (B, P) complex tensor per block.
    """

    def __init__(self, config: S5BlockConfig, n_layers: int):
        super().__init__()
        if n_layers < 1:
            raise ValueError(f"n_layers is {n_layers}, expected at least 1")
        one_each("d_state", config.d_state, n_layers)
        self.config, self.n_layers = config, n_layers
        self.relu = nn.ReLU() if config.relu != "none" else nn.Identity()
        self.blocks = nn.ModuleList(S5Block(config.layer(i)) for i in range(n_layers))
        self.norm = make_norm(config)

    def forward(
        self, x: Tensor, state: tuple[Tensor | None, ...] | None = None, reset: Tensor | None = None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """x (B, T, H), the state as returned or None, reset (B, T) or None -> y (B, T, H), state."""
        check_frames(x, self.config.d_model)
        if state is not None and len(state) != self.n_layers:
            raise ValueError(f"state has {len(state)} entries, expected {self.n_layers}, one per block")
        x, after = self.relu(x), []
        for block, carried in zip(self.blocks, state or (None,) * self.n_layers, strict=True):
            x, carried = block(x, carried, reset)
            after.append(carried)
        return self.norm(x), tuple(after)
