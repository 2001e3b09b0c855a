"""What pruning leaves over: weights at states that take no part. Taking them away changes no output."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils import parametrize

from lrnn.nn import S5
from lrnn.prune.health import dead_units


@torch.no_grad()
def sweep(module: nn.Module) -> dict[str, int]:
    """Set to zero the weights of every S5 that touch a state without input or without reader.

    A state without input stays zero, so nothing need read it; what C does not read needs no input. Outputs
    are the same to the bit from a zero state; of the states handed on, those that nobody reads are zero then.

    Args:
        module: any module with S5 layers; bake masks first.

    Returns:
        How many entries became zero, by name of the parameter; those without any are left out.
    """
    swept = {}
    for prefix, layer in module.named_modules():
        if not isinstance(layer, S5):
            continue
        if parametrize.is_parametrized(layer):
            raise ValueError(f"{prefix or 'the module'} is parametrized; bake its masks before sweeping it")
        found = dead_units(layer)
        fed = torch.ones(found["B"].n_outputs, dtype=torch.bool, device=layer.B.device)
        fed[list(found["B"].outputs)] = False
        read = torch.ones(found["C"].n_inputs, dtype=torch.bool, device=layer.C.device)
        read[list(found["C"].inputs)] = False
        # A bidirectional C reads the forward states and then the backward ones.
        before = {name: getattr(layer, name).count_nonzero().item() for name in ("B", "C")}
        layer.C[:, ~fed.repeat(len(read) // len(fed))] = 0.0
        layer.B[~read.view(-1, len(fed)).any(0)] = 0.0
        for name, count in before.items():
            gone = count - getattr(layer, name).count_nonzero().item()
            if gone:
                swept[f"{prefix}.{name}" if prefix else name] = gone
    return swept
