"""Problems for the tests of the scan, drawn by hypothesis or listed, and what it takes to compare results."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import torch
from hypothesis import strategies as st
from lrnn.kernels.scan import reference
from torch import Tensor

F32, F64, C64, C128 = torch.float32, torch.float64, torch.complex64, torch.complex128
HALF = (torch.bfloat16, torch.float16)
KINDS = [  # (dtype of a, dtype of b)
    (F32, F32),
    (F64, F64),
    (C64, C64),
    (C128, C128),
    (F32, C64),
    (F64, C128),
    (F32, F64),
    (torch.bfloat16, torch.bfloat16),
    (torch.float16, torch.float16),
    (F32, torch.bfloat16),
]


@dataclass(frozen=True)
class Problem:
    """One call of the scan and cotangents of its outputs."""

    a: Tensor
    b: Tensor
    h0: Tensor | None
    reset: Tensor | None
    reverse: bool
    grad_h: Tensor
    grad_last: Tensor

    def forward(self, scan):
        return scan(self.a, self.b, self.h0, self.reset, self.reverse)

    def backward(self, scan_backward, h):
        return scan_backward(self.grad_h, self.grad_last, self.a, h, self.h0, self.reset, self.reverse)

    def part(self, start: int, stop: int, h0: Tensor | None) -> Problem:
        """The same problem on the time steps [start, stop), from another state."""
        return replace(
            self,
            a=self.a if self.a.dim() == 1 else self.a[:, start:stop],
            b=self.b[:, start:stop],
            h0=h0,
            reset=None if self.reset is None else self.reset[:, start:stop],
        )


def make(
    seed: int,
    shape: tuple[int, int, int],
    kind: tuple[torch.dtype, torch.dtype] = (C64, C64),
    constant: bool = False,
    with_h0: bool = True,
    with_reset: bool = True,
    reverse: bool = False,
) -> Problem:
    g = torch.Generator().manual_seed(seed)
    batch, length, width = shape
    a_dtype, b_dtype = kind

    def normal(size, dtype):
        wide = C128 if dtype.is_complex else F64
        return torch.randn(size, generator=g, dtype=wide).to(dtype)

    a = normal(width if constant else shape, a_dtype)
    a = a / a.abs().clamp(min=1)  # no growth
    state = reference.accumulator(b_dtype)
    return Problem(
        a=a,
        b=normal(shape, b_dtype),
        h0=normal((batch, width), state) if with_h0 else None,
        reset=torch.rand((batch, length), generator=g) < 0.3 if with_reset else None,
        reverse=reverse,
        grad_h=normal(shape, b_dtype),
        grad_last=normal((batch, width), state),
    )


@st.composite
def problems(draw, kinds=KINDS, min_length: int = 0, max_length: int = 9) -> Problem:
    """Small problems of every kind with every option; widths around and between whole vectors."""
    shape = (
        draw(st.integers(0, 3)),
        draw(st.integers(min_length, max_length)),
        draw(st.one_of(st.integers(0, 9), st.integers(10, 70))),
    )
    return make(
        draw(st.integers(0, 2**31)),
        shape,
        draw(st.sampled_from(kinds)),
        *(draw(st.booleans()) for _ in range(4)),
    )


OPTIONS = list(itertools.product((False, True), repeat=4))  # constant, with_h0, with_reset, reverse
TOLERANCE = {torch.bfloat16: 2e-2, torch.float16: 3e-3, F32: 2e-5, C64: 2e-5, F64: 1e-11, C128: 1e-11}


def assert_same(found: Tensor, want: Tensor) -> None:
    """Equal but for rounding, in everything a caller sees."""
    assert (found.dtype, found.shape) == (want.dtype, want.shape)
    assert found.is_contiguous()
    scale = 1 + want.abs().max().item() if want.numel() else 1
    tolerance = TOLERANCE[want.dtype]
    torch.testing.assert_close(found, want, rtol=tolerance, atol=tolerance * scale)
