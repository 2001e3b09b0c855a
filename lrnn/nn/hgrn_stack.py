"""HGRN blocks, and a stack of them whose forget gates are bounded ever higher towards its end."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lrnn.nn.block import linear
from lrnn.nn.config import HGRNBlockConfig
from lrnn.nn.hgrn import HGRN
from lrnn.nn.norm import RMSNorm
from lrnn.nn.s5 import at_least_float32, check_frames
from lrnn.nn.sizes import one_each, one_size


class GLU(nn.Module):
    """The channel mixer down(silu(gate(x)) * up(x)): x (..., H) -> (..., H).

    Args:
        d_model: width H.
        d_hidden: outputs of gate and up.
        relu: ReLU in place of SiLU.
        bias: whether the three matrices have biases.
    """

    def __init__(self, d_model: int, d_hidden: int, relu: bool = False, bias: bool = False):
        super().__init__()
        self.gate_proj = linear(d_model, d_hidden, bias)
        self.up_proj = linear(d_model, d_hidden, bias)
        self.down_proj = linear(d_hidden, d_model, bias)
        self.activation = nn.ReLU() if relu else nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        """Mix channels frame by frame."""
        return self.down_proj(self.activation(self.gate_proj(x)) * self.up_proj(x))


class HGRNBlock(nn.Module):
    """x' = x + HGRN(norm(x)), then x' + GLU(norm(x')); see HGRNBlockConfig for what can be chosen.

    Args:
        config: sizes and choices.
    """

    def __init__(self, config: HGRNBlockConfig):
        super().__init__()
        self.config = config
        gates, norms = config.relu != "none", config.relu == "all"
        self.mixer_norm = RMSNorm(config.d_model, eps=config.hgrn.norm_eps)
        self.mixer_relu = nn.ReLU() if norms else nn.Identity()
        self.mixer = HGRN(config.d_model, config.d_state, gates, config.hgrn)
        self.glu_norm = RMSNorm(config.d_model, eps=config.hgrn.norm_eps)
        self.glu_relu = nn.ReLU() if norms else nn.Identity()
        d_hidden = one_size("d_hidden", config.d_hidden)
        self.glu = GLU(config.d_model, d_hidden, gates, config.hgrn.bias)
        self.mixer_sum, self.glu_sum = nn.Identity(), nn.Identity()  # of the residual stream, for hooks

    def forward(
        self,
        x: Tensor,
        state: Tensor | None = None,
        reset: Tensor | None = None,
        lower_bound: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """x (B, T, H), the rest as for HGRN -> y (B, T, H), state (B, N)."""
        check_frames(x, self.config.d_model)
        y, state = self.mixer(self.mixer_relu(self.mixer_norm(x)), state, reset, lower_bound)
        x = self.mixer_sum(x + y)
        return self.glu_sum(x + self.glu(self.glu_relu(self.glu_norm(x)))), state


class HGRNStack(nn.Module):
    """Blocks with the lower bounds of their forget gates, and a last norm.

    The bounds are a cumulative softmax over the depth, as in the paper: with p = softmax(Gamma) over the
    layers, gamma_k = p_1 + ... + p_k - p_1 (so written in fla/models/hgrn/modeling_hgrn.py). The first
    layer's is zero, they never fall from layer to layer, and stay below one.

    Args:
        config: of every block.
        n_layers: blocks L.

    Parameters: lower_bounds (L, N), which is Gamma, and those of blocks and norm. State: a tuple with one
    (B, N) tensor per block.
    """

    def __init__(self, config: HGRNBlockConfig, n_layers: int):
        super().__init__()
        if n_layers < 1:
            raise ValueError(f"n_layers is {n_layers}, expected at least 1")
        one_each("d_hidden", config.d_hidden, n_layers)
        self.config, self.n_layers = config, n_layers
        self.lower_bounds = nn.Parameter(torch.zeros(n_layers, config.d_state))
        self.blocks = nn.ModuleList(HGRNBlock(config.layer(i)) for i in range(n_layers))
        self.norm = RMSNorm(config.d_model, eps=config.hgrn.norm_eps)

    def bounds(self) -> Tensor:
        """gamma (L, N), in float32 or wider."""
        p = F.softmax(at_least_float32(self.lower_bounds), dim=0)
        # The sum of the others, not a difference: the first is zero to the bit.
        sums = torch.cat([torch.zeros_like(p[:1]), p[1:].cumsum(0)])
        return sums.clamp(max=1 - torch.finfo(p.dtype).eps / 2)  # which rounding may carry above one

    def forward(
        self, x: Tensor, state: tuple[Tensor | None, ...] | None = None, reset: Tensor | None = None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Run over a stretch of time.

        Args:
            x: (B, T, H).
            state: as returned for the stretch before; None is zeros.
            reset: (B, T) bool, True where a new sequence starts.

        Returns:
            y (B, T, H) and the state after the last frame.
        """
        check_frames(x, self.config.d_model)
        if state is not None and len(state) != self.n_layers:
            raise ValueError(f"state has {len(state)} entries, expected {self.n_layers}, one per block")
        before = (None,) * self.n_layers if state is None else state
        after = []
        for block, carried, bound in zip(self.blocks, before, self.bounds().unbind(), strict=True):
            x, carried = block(x, carried, reset, bound)
            after.append(carried)
        return self.norm(x), tuple(after)


_FLA_NAMES = {
    "attn_norm": "mixer_norm",
    "attn.i_proj": "mixer.i_proj",
    "attn.f_proj": "mixer.f_proj",
    "attn.g_proj": "mixer.g_proj",
    "attn.o_proj": "mixer.o_proj",
    "attn.g_norm": "mixer.norm",
    "mlp_norm": "glu_norm",
    "mlp.gate_proj": "glu.gate_proj",
    "mlp.up_proj": "glu.up_proj",
    "mlp.down_proj": "glu.down_proj",
}


def from_fla(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state_dict of an HGRNStack from that of flash-linear-attention's HGRNForCausalLM or HGRNModel.

    `model.layers.3.attn.i_proj.weight` becomes `blocks.3.mixer.i_proj.weight`; attn is mixer, g_norm its
    norm, attn_norm mixer_norm, mlp glu, mlp_norm glu_norm; lower_bounds and the last norm keep their names.
    The embeddings and lm_head are left out: a stack has neither.

    Raises:
        ValueError: a tensor has no counterpart (short convolutions, attention layers); names it.
    """
    renamed = {}
    for name, tensor in tensors.items():
        short = name.removeprefix("model.")
        if short in ("embeddings.weight", "lm_head.weight"):
            continue
        match = re.fullmatch(r"layers\.(\d+)\.(.+)\.(weight)", short)
        if match and match[2] in _FLA_NAMES:
            short = f"blocks.{match[1]}.{_FLA_NAMES[match[2]]}.{match[3]}"
        elif short not in ("lower_bounds", "norm.weight"):
            raise ValueError(f"{name} has no counterpart in an lrnn.HGRNStack")
        renamed[short] = tensor
    return renamed
