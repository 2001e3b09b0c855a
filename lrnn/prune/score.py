"""What a weight is worth, and which weights are kept."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from lrnn.nn import S5

Score = Literal["discretized", "magnitude"]


def score(module: nn.Module, name: str, weight: Tensor, by: Score = "discretized") -> Tensor:
    """Importance of the entries of `module.<name>`, whose dense values are `weight`.

    |w| per element, of the weight's shape; but for B of an S5 one score of shape (P, H, 1) for a complex
    pair: inference runs B_bar = gain * B, which mixes the two parts, so an entry of B_bar is zero only where
    both parts of B are.

    Args:
        module: the owner.
        name: its attribute.
        weight: dense values.
        by: of a pair, "discretized" takes |B_bar| and "magnitude" |B|. A state's gain is about its time step,
            so |B_bar| prunes the slow states first, whole ones too.
    """
    if not _is_complex_input(module, name):
        return weight.abs()
    gain = module.discretize()[1]  # (P,)
    B = torch.view_as_complex(weight.to(gain.real.dtype))
    return (B if by == "magnitude" else gain[:, None] * B).abs().unsqueeze(-1)


def mask_shape(module: nn.Module, name: str, weight: Tensor) -> torch.Size:
    """Shape of the mask of `module.<name>`: that of its score; broadcasts to the weight."""
    return torch.Size((*weight.shape[:-1], 1)) if _is_complex_input(module, name) else weight.shape


def _is_complex_input(module: nn.Module, name: str) -> bool:
    return isinstance(module, S5) and name == "B"


def n_kept(numel: int, sparsity: float) -> int:
    """How many of `numel` entries survive: at least one, so that rounding cuts no tensor out of a network."""
    return max(1, round(numel * (1.0 - sparsity)))


def keep_largest(scores: Tensor, kept: int) -> Tensor:
    """Bool mask of the `kept` largest scores; among equals the lower flat index wins."""
    flat = scores.flatten()
    if flat.dtype in (torch.float16, torch.bfloat16):
        flat = flat.float()  # exact, and faster to rank
    threshold = flat.topk(kept, sorted=False).values.min()
    above, equal = flat > threshold, flat == threshold
    room = kept - above.sum()
    return (above | (equal & (equal.cumsum(0) <= room))).view(scores.shape)
