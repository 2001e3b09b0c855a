"""A penalty that empties activations: zeros after a ReLU are multiply-accumulates saved."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from lrnn.nn.activation import rectifiers

EPS = 1e-6


@contextmanager
def watched(module: nn.Module) -> Iterator[list[Tensor]]:
    """Collect what leaves each rectifier of `module` while the block runs."""
    outputs: list[Tensor] = []
    hooks = [m.register_forward_hook(lambda _, __, y: outputs.append(y)) for m in rectifiers(module)]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()


def spread(outputs: list[Tensor]) -> Tensor:
    """How evenly each unit is active over batch and time, mean over units, then over rectifiers: a scalar.

    mean |h| / rms h of a unit (Hoyer 2004): 1 where it is constant, sqrt(share) where it is constant on a
    share of the frames and zero elsewhere, 0.56 for half a normal distribution. The scale of h does not
    change it, so it cannot be had by making h small.

    Args:
        outputs: (B, T, ...) each.
    """
    if not outputs:
        raise ValueError("outputs is empty, expected those of a rectifier: the network's relu is 'none'")
    ratios = []
    for h in outputs:
        h = h.flatten(0, 1).float()
        ratios.append((h.abs().mean(0) / (h.square().mean(0) + EPS**2).sqrt()).mean())
    return torch.stack(ratios).mean()
