"""Rectifiers as modules, so that hooks can watch and observers measure what passes them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lrnn.nn.config import Relu


class PairRelu(nn.Module):
    """The paper's ReLU of complex numbers: parts (..., 2) are kept where re > 0, or re = 0 and im > 0."""

    def forward(self, parts: Tensor) -> Tensor:
        """Keep or drop both parts together."""
        re, im = parts[..., :1], parts[..., 1:]
        return torch.where((re > 0) | ((re == 0) & (im > 0)), parts, 0.0)


def state_relu(rule: Relu) -> nn.Module:
    """What stands between the state, as parts (..., 2), and C."""
    return {"none": nn.Identity, "parts": nn.ReLU, "pair": PairRelu}[rule]()


def rectifiers(module: nn.Module) -> list[nn.Module]:
    """Every rectifier below `module`, in the order it was built: what makes its activations sparse."""
    return [m for m in module.modules() if isinstance(m, nn.ReLU | PairRelu)]
