"""S5: a diagonal complex state-space model on the scan (Smith et al. 2023; Pierro et al. 2025, section 2).

    h[t] = lambda_bar h[t-1] + B_bar x[t]          y[t] = 2 Re(C relu(h[t])) + D x[t]

Complex numbers live between the two matrix products only: B_bar and C are applied as real matrices of
interleaved (re, im) rows and columns, so that every product is one real GEMM.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lrnn.nn import init
from lrnn.nn.activation import state_relu
from lrnn.nn.config import Relu, S5Options
from lrnn.ops import scan

MAX_DECAY = -1e-4
"""Largest real part of an eigenvalue with options.clip_eigs."""


class S5(nn.Module):
    """The state-space model alone: no norm, no activation of its output, no residual.

    Args:
        d_model: width H of input and output.
        d_state: real state size S. With conjugate symmetry P = S/2 complex states are kept, else P = S.
        blocks: HiPPO blocks on the diagonal of the state matrix; S/blocks is each block's size.
        relu: ReLU between the state and C: "none"; "parts", on real and imaginary part; "pair", the paper's
            rule, which keeps the whole number where re > 0 (or re = 0 and im > 0) and jumps where the real
            part changes sign. With options.bidirectional "pair" leaves the backward states alone, as the
            paper's code does.
        options: the rest, see S5Options.

    Parameters: Lambda_re, Lambda_im, log_step (P,), B (P, H, 2), C (H, P, 2), D (H,); with
    options.bidirectional C is (H, 2P, 2).
    """

    def __init__(
        self,
        d_model: int,
        d_state: int,
        blocks: int = 1,
        relu: Relu = "none",
        options: S5Options | None = None,
    ):
        super().__init__()
        options = options or S5Options()
        if relu not in ("none", "parts", "pair"):
            raise ValueError(f"relu is {relu!r}, expected 'none', 'parts' or 'pair'")
        self.d_model, self.d_state, self.blocks = d_model, d_state, blocks
        self.relu, self.options = relu, options
        self.state_relu = state_relu(relu)
        Lambda, V, Vinv = init.block_hippo(d_state, blocks, options.conj_sym)
        self.Lambda_re = nn.Parameter(Lambda.real.float())  # (P,)
        self.Lambda_im = nn.Parameter(Lambda.imag.float())  # (P,)
        self.log_step = nn.Parameter(init.init_log_step(len(Lambda), options.dt_min, options.dt_max))  # (P,)
        self.B = nn.Parameter(init.init_b(d_model, Vinv))  # (P, H, 2)
        directions = 2 if options.bidirectional else 1
        C = [init.init_c(options.c_init, d_model, V) for _ in range(directions)]
        self.C = nn.Parameter(torch.cat(C, dim=1))  # (H, P, 2)
        self.D = nn.Parameter(torch.randn(d_model))  # (H,)

    @property
    def n_states(self) -> int:
        """Complex states P."""
        return len(self.Lambda_re)

    def discretize(self) -> tuple[Tensor, Tensor]:
        """lambda_bar (P,) and gain (P,), complex: B_bar = gain[:, None] * B.

        Zero-order hold: lambda_bar = exp(Lambda dt), gain = (lambda_bar - 1) / Lambda. Bilinear:
        lambda_bar = (1 + Lambda dt / 2) / (1 - Lambda dt / 2), gain = dt / (1 - Lambda dt / 2). Always in
        float32 or wider.
        """
        return discretize(self.Lambda_re, self.Lambda_im, self.log_step, self.options)

    def input_matrix(self, gain: Tensor) -> Tensor:
        """B_bar as a real matrix (2P, H) of interleaved (re, im) rows."""
        B_bar = gain[:, None] * torch.view_as_complex(at_least_float32(self.B))
        return torch.view_as_real(B_bar).transpose(1, 2).flatten(0, 1)

    def output_matrix(self) -> Tensor:
        """C as a real matrix (H, 2P): Re(C h) = sum of C_re h_re - C_im h_im, twice that with conj_sym."""
        C = at_least_float32(self.C)
        scale = 2.0 if self.options.conj_sym else 1.0
        return (C * C.new_tensor([scale, -scale])).flatten(1)

    def forward(
        self, x: Tensor, state: Tensor | None = None, reset: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Run over a stretch of time.

        Args:
            x: (B, T, H), real.
            state: (B, P) complex, as returned for the stretch before; None is zeros.
            reset: (B, T) bool, True where a new sequence starts.

        Returns:
            y (B, T, H) and the state after the last frame (B, P).
        """
        parts, h_last = self.states(x, state, reset)
        y = F.linear(parts.flatten(-2).to(x.dtype), self.output_matrix().to(x.dtype))
        return y + self.D * x, h_last

    def states(
        self, x: Tensor, state: Tensor | None = None, reset: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """What C reads: the states after their ReLU, as (re, im) parts.

        Arguments as in `forward`. Returns parts (B, T, P, 2), with options.bidirectional (B, T, 2P, 2), the
        backward states after the forward ones; and the last state (B, P), which no ReLU touched.
        """
        self._check(x, state)
        lambda_bar, gain = self.discretize()
        Bx = F.linear(x, self.input_matrix(gain).to(x.dtype))  # (B, T, 2P)
        Bx = torch.view_as_complex(at_least_float32(Bx).unflatten(-1, (-1, 2)))  # (B, T, P)
        h, h_last = scan(lambda_bar, Bx, state, reset)
        parts = self.state_relu(torch.view_as_real(h))
        if self.options.bidirectional:
            back = torch.view_as_real(scan(lambda_bar, Bx, None, reset, reverse=True)[0])
            # The paper's code rectifies the forward states only; with its rule we do as it does.
            parts = torch.cat([parts, back if self.relu == "pair" else self.state_relu(back)], dim=-2)
        return parts, h_last

    def _check(self, x: Tensor, state: Tensor | None) -> None:
        check_frames(x, self.d_model)
        if state is None:
            return
        if self.options.bidirectional:
            raise ValueError("state was given to a bidirectional S5, whose backward half cannot carry one")
        if state.shape != (x.shape[0], self.n_states):
            expected = (x.shape[0], self.n_states)
            raise ValueError(f"state has shape {tuple(state.shape)}, expected (batch, states) = {expected}")
        if not state.is_complex():
            raise TypeError(f"state has dtype {state.dtype}, expected a complex type")

    def extra_repr(self) -> str:
        """Sizes and what departs from the defaults."""
        sizes = f"{self.d_model}, {self.d_state}, blocks={self.blocks}"
        return f"{sizes}, relu={self.relu!r}, options={self.options}"


def discretize(re: Tensor, im: Tensor, log_step: Tensor, options: S5Options) -> tuple[Tensor, Tensor]:
    """`S5.discretize` of any eigenvalues and step sizes, each (P,)."""
    re, im, log_step = (at_least_float32(p) for p in (re, im, log_step))
    if options.clip_eigs:
        re = re.clamp(max=MAX_DECAY)
    Lambda = torch.complex(re, im)
    dt = options.step_rescale * torch.exp(log_step)
    if options.discretization == "zoh":
        lambda_bar = torch.exp(Lambda * dt)
        return lambda_bar, (lambda_bar - 1) / Lambda
    half = 1 / (1 - Lambda * dt / 2)
    return half * (1 + Lambda * dt / 2), half * dt


def check_frames(x: Tensor, width: int) -> None:
    """Raise ValueError or TypeError where x is not (batch, time, width) of a real floating-point type."""
    if x.ndim != 3 or x.shape[-1] != width:
        raise ValueError(f"x has shape {tuple(x.shape)}, expected (batch, time, {width})")
    if not x.is_floating_point():
        raise TypeError(f"x has dtype {x.dtype}, expected a real floating-point type")


def at_least_float32(p: Tensor) -> Tensor:
    """float16 and bfloat16 as float32, wider types as they are."""
    return p if p.dtype in (torch.float32, torch.float64) else p.float()
