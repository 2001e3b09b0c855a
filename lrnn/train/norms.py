"""Running statistics of batch norms, measured anew."""

from __future__ import annotations

import torch
from torch import nn

from lrnn.nn import BatchNorm


def recalibrate(module: nn.Module, inputs) -> None:
    """Set the running statistics of every batch norm in `module` to their averages over `inputs`.

    Norms run in training mode, everything else in evaluation mode: dropout draws nothing and the statistics
    are those of the network that will run. Modes and momenta are restored.

    Args:
        module: called with each input; its norms are `lrnn.nn.BatchNorm` (frozen ones are left alone) or
            torch's.
        inputs: an iterable of inputs.
    """
    norms = [m for m in module.modules() if _has_running_statistics(m)]
    modes = {m: m.training for m in module.modules()}
    momenta = [m.momentum for m in norms]
    module.eval()
    for norm in norms:
        norm.train()
    try:
        with torch.no_grad():
            for count, x in enumerate(inputs, start=1):
                for norm in norms:
                    norm.momentum = 1.0 / count  # first replaces what was there, then averages
                module(x)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for m, mode in modes.items():
            m.training = mode


def _has_running_statistics(module: nn.Module) -> bool:
    if isinstance(module, BatchNorm):
        return not module.frozen
    return isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats
