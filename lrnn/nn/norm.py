"""Batch norm over batch and time, with the paper's statistics; root mean square norm in full precision."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lrnn.nn.s5 import at_least_float32


class BatchNorm(nn.Module):
    """Normalises the last axis over all others: x (..., H) -> (..., H).

    Departs from nn.BatchNorm1d as the paper's code (flax) does: the running variance is the biased one, and
    time is the second-to-last axis. `frozen` uses the running statistics even in training and never updates
    them.

    Args:
        d: width H.
        momentum: weight of the newest batch in the running statistics.
        eps: added to the variance.
        frozen: see above.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, d: int, momentum: float = 0.05, eps: float = 1e-5, frozen: bool = False):
        super().__init__()
        self.d, self.momentum, self.eps, self.frozen = d, momentum, eps, frozen
        self.weight = nn.Parameter(torch.ones(d))
        self.bias = nn.Parameter(torch.zeros(d))
        self.register_buffer("running_mean", torch.zeros(d))
        self.register_buffer("running_var", torch.ones(d))

    def scale_shift(self) -> tuple[Tensor, Tensor]:
        """The affine map (scale, shift), each (H,), that evaluation applies."""
        scale = self.weight * torch.rsqrt(self.running_var + self.eps)
        return scale, self.bias - self.running_mean * scale

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x (..., H)."""
        if not self.training or self.frozen:
            scale, shift = self.scale_shift()
            return x * scale + shift
        rows = x.reshape(-1, self.d)
        y, mean, inverse_std = torch.native_batch_norm(
            rows, self.weight, self.bias, None, None, True, self.momentum, self.eps
        )
        with torch.no_grad():
            var = (inverse_std.square().reciprocal() - self.eps).clamp(min=0)
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
            self.running_var.lerp_(var.to(self.running_var.dtype), self.momentum)
        return y.view(x.shape)

    def extra_repr(self) -> str:
        """Sizes."""
        return f"{self.d}, momentum={self.momentum}, eps={self.eps}, frozen={self.frozen}"


class RMSNorm(nn.RMSNorm):
    """nn.RMSNorm that computes in float32 or wider and returns its input's dtype, as under autocast."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last axis of x."""
        weight = None if self.weight is None else at_least_float32(self.weight)
        return F.rms_norm(at_least_float32(x), self.normalized_shape, weight, self.eps).to(x.dtype)
