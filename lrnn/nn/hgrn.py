"""HGRN: a gated linear recurrence on the scan (Qin, Yang, Zhong 2023, arXiv 2311.04823, figure 1).

    f[t] = gamma + (1 - gamma) sigmoid(W_f x[t])      forget gate, never below the lower bound gamma
    i[t] = silu(W_i x[t])                             input
    h[t] = f[t] exp(j theta) h[t-1] + (1 - f[t]) i[t]
    y[t] = W_o (norm(h[t]) silu(W_g x[t]))            output gate

The input gate is 1 - f. "complex" is the authors' recurrence: theta (N,) is learned and does not depend on
the input, i[t] has 2N real outputs, and norm, gate and W_o see the 2N real and imaginary parts; their code
(github.com/Doraemonzzz/hgru-pytorch, hgru/hgru1d.py) has a layer norm and biases. "real" is
flash-linear-attention's (fla/layers/hgrn.py, fla/ops/hgrn/naive.py): theta = 0 and i, h real, with a root
mean square norm and no biases. It works with log f there, here 1 - f is (1 - gamma) sigmoid(-W_f x), which
is exact where f rounds to 1. Parts are interleaved here and stand one half after the other in the authors'
code before norm and gate: a permutation of rows of W_g and columns of W_o.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lrnn.nn.block import linear
from lrnn.nn.config import HGRNOptions
from lrnn.nn.norm import RMSNorm
from lrnn.nn.s5 import at_least_float32, check_frames
from lrnn.ops import scan

PHASE_BASE = 10000.0
"""Phases start as those of rotary embeddings, base^(-2n/N), as in the authors' code."""


class HGRN(nn.Module):
    """The token mixer alone: no norm of its input, no residual.

    Args:
        d_model: width H of input and output.
        d_state: states N; None is H.
        relu: ReLU in place of the SiLU of the input and of the output gate.
        options: the rest, see HGRNOptions.

    Parameters: the matrices of i_proj, g_proj (M, H), f_proj (N, H) and o_proj (H, M), with M = N, or 2N
    where the recurrence is complex; norm (M,); theta (N,) where it is complex.
    """

    def __init__(
        self,
        d_model: int,
        d_state: int | None = None,
        relu: bool = False,
        options: HGRNOptions | None = None,
    ):
        super().__init__()
        options = options or HGRNOptions()
        d_state = d_model if d_state is None else d_state
        for name, value in (("d_model", d_model), ("d_state", d_state)):
            if value < 1:
                raise ValueError(f"{name} is {value}, expected at least 1")
        self.d_model, self.d_state = d_model, d_state
        self.options = options
        width = 2 * d_state if self.is_complex else d_state
        self.i_proj = linear(d_model, width, options.bias)
        self.f_proj = linear(d_model, d_state, options.bias)
        self.g_proj = linear(d_model, width, options.bias)
        self.o_proj = linear(width, d_model, options.bias)
        self.write, self.bound = nn.Sigmoid(), nn.Identity()  # of the input gate, free and bounded
        self.share, self.rotation = nn.Identity(), nn.Identity()  # of constants: 1 - gamma, (cos, sin) theta
        self.input_activation = nn.ReLU() if relu else nn.SiLU()
        self.gate_activation = nn.ReLU() if relu else nn.SiLU()
        make_norm = RMSNorm if options.norm == "rms" else nn.LayerNorm
        self.norm = make_norm(width, eps=options.norm_eps)
        if self.is_complex:
            self.theta = nn.Parameter(PHASE_BASE ** (-2 / d_state * torch.arange(d_state)))  # (N,)

    @property
    def is_complex(self) -> bool:
        """Whether the states are complex."""
        return self.options.recurrence == "complex"

    def forward(
        self,
        x: Tensor,
        state: Tensor | None = None,
        reset: Tensor | None = None,
        lower_bound: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Run over a stretch of time.

        Args:
            x: (B, T, H), real.
            state: (B, N), as returned for the stretch before, complex or real as the recurrence; None is
                zeros.
            reset: (B, T) bool, True where a new sequence starts.
            lower_bound: (N,), gamma, each in [0, 1); None is zeros.

        Returns:
            y (B, T, H) and the state after the last frame (B, N), in float32 or wider.
        """
        h, last = self.states(x, state, reset, lower_bound)
        if self.is_complex:
            h = torch.view_as_real(h).flatten(-2)
        y = self.norm(h.to(x.dtype)) * self.gate_activation(self.g_proj(x))
        return self.o_proj(y), last

    def states(
        self,
        x: Tensor,
        state: Tensor | None = None,
        reset: Tensor | None = None,
        lower_bound: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The states h (B, T, N) and the last of them (B, N); arguments as in `forward`."""
        self._check(x, state, lower_bound)
        forget, write = self.gates(x, lower_bound)
        i = at_least_float32(self.input_activation(self.i_proj(x)))
        if self.is_complex:
            turn = self.rotation(self.turn())
            forget = torch.complex(forget * turn[:, 0], forget * turn[:, 1])
            i = torch.view_as_complex(i.unflatten(-1, (-1, 2)))
        return scan(forget, write * i, state, reset)

    def gates(self, x: Tensor, lower_bound: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Forget gate f and input gate 1 - f, each (B, T, N), in float32 or wider."""
        write = self.write(-at_least_float32(self.f_proj(x)))
        if lower_bound is None:
            return 1 - write, write
        lower_bound = at_least_float32(lower_bound)
        free = 1 - lower_bound
        share = self.share(free)
        write = self.bound(share * write)
        # 1 - write, in a form that never rounds below the bound.
        return lower_bound + (free - share) + (share - write), write

    def turn(self) -> Tensor:
        """exp(j theta) of a complex recurrence: cos and sin, (N, 2), in float32 or wider."""
        theta = at_least_float32(self.theta)
        return torch.stack((theta.cos(), theta.sin()), -1)

    def _check(self, x: Tensor, state: Tensor | None, lower_bound: Tensor | None) -> None:
        check_frames(x, self.d_model)
        if lower_bound is not None and lower_bound.shape != (self.d_state,):
            raise ValueError(
                f"lower_bound has shape {tuple(lower_bound.shape)}, expected (states,) = ({self.d_state},)"
            )
        if state is None:
            return
        if state.shape != (x.shape[0], self.d_state):
            expected = (x.shape[0], self.d_state)
            raise ValueError(f"state has shape {tuple(state.shape)}, expected (batch, states) = {expected}")
        if self.is_complex and not state.is_complex():
            raise TypeError(f"state has dtype {state.dtype}, expected a complex type")
        if not self.is_complex and not state.is_floating_point():
            raise TypeError(f"state has dtype {state.dtype}, expected a real floating-point type")

    def extra_repr(self) -> str:
        """Sizes and what departs from the defaults."""
        return f"{self.d_model}, {self.d_state}, options={self.options}"
