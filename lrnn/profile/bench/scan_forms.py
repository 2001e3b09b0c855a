"""The scan in pure PyTorch, in every form worth measuring: what `lrnn bench scan` compares against.

Each takes a (B, T, N), or (N,) where constant, and b (B, T, N), and returns h (B, T, N). Cumulative sums in
log space are left out: they are NaN for |a| < 0.97 at T = 1000.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lrnn.kernels.scan import reference


def loop(a: Tensor, b: Tensor) -> Tensor:
    """A Python loop over unbound steps (indexing under autograd would cost O(T^2))."""
    return reference.scan(a, b)[0]


def loop_in_place(a: Tensor, b: Tensor) -> Tensor:
    """A Python loop that writes each step into its place, time first in memory. Has no gradient."""
    steps = b.transpose(0, 1).contiguous()  # (T, B, N)
    factors = a if a.dim() == 1 else a.transpose(0, 1).contiguous()
    h = torch.empty_like(steps)
    h[0] = steps[0]
    for t in range(1, len(h)):
        torch.addcmul(steps[t], factors if a.dim() == 1 else factors[t], h[t - 1], out=h[t])
    return h.transpose(0, 1)


def odd_even(a: Tensor, b: Tensor) -> Tensor:
    """The work-efficient parallel scan (Blelloch): solve the pairs, then fill in the even steps."""
    length = b.shape[1]
    if length == 1:
        return b
    constant = a.dim() == 1
    odd_a = a if constant else a[:, 1::2]
    pair_a = a * a if constant else odd_a * a[:, : length - 1 : 2]
    odd = odd_even(pair_a, b[:, 1::2] + odd_a * b[:, : length - 1 : 2])
    before = odd[:, : (length - 1) // 2]
    even = torch.cat([b[:, :1], b[:, 2::2] + (a if constant else a[:, 2::2]) * before], dim=1)
    paired = torch.stack([even[:, : odd.shape[1]], odd], dim=2).flatten(1, 2)
    return torch.cat([paired, even[:, odd.shape[1] :]], dim=1)


def chunked(a: Tensor, b: Tensor, chunk: int = 64) -> Tensor:
    """Constant `a` only: a triangular matrix product per channel and chunk, a loop over the chunks' ends."""
    batch, length, width = b.shape
    chunks = -(-length // chunk)
    padded = torch.nn.functional.pad(b, (0, 0, 0, chunks * chunk - length))
    powers = a ** torch.arange(chunk + 1, device=a.device).unsqueeze(-1)  # (chunk + 1, N)
    lag = torch.arange(chunk).unsqueeze(-1) - torch.arange(chunk)
    kernel = torch.where((lag >= 0).unsqueeze(-1), powers[lag.clamp(min=0)], 0)  # (chunk, chunk, N)
    columns = (
        padded.view(batch, chunks, chunk, width).permute(3, 2, 0, 1).reshape(width, chunk, batch * chunks)
    )
    inside = (kernel.permute(2, 0, 1) @ columns).view(width, chunk, batch, chunks).permute(2, 3, 1, 0)
    carry, carries = torch.zeros_like(b[:, 0]), []
    for end in inside[:, :, -1].unbind(1):
        carries.append(carry)
        carry = powers[chunk] * carry + end
    h = inside + powers[1:] * torch.stack(carries, dim=1).unsqueeze(2)
    return h.reshape(batch, chunks * chunk, width)[:, :length]


def associative_scan(a: Tensor, b: Tensor) -> Tensor:
    """PyTorch's own prototype, eager."""
    from torch._higher_order_ops.associative_scan import associative_scan as scan

    def combine(left, right):
        return left[0] * right[0], right[0] * left[1] + right[1]

    return scan(combine, (a.expand_as(b), b), dim=1, combine_mode="generic")[1]


FORMS = {
    "loop": loop,
    "loop, in place": loop_in_place,
    "odd-even": odd_even,
    "chunked": chunked,
    "associative_scan": associative_scan,
}
CONSTANT_ONLY = ("chunked",)
FORWARD_ONLY = ("loop, in place",)
