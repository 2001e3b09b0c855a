"""Initialisation of S5: HiPPO-LegS eigenvalues and the projections of B and C (S5, Smith et al. 2023)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# A normal distribution cut at two standard deviations has this standard deviation.
_TRUNCATED_STD = 0.87962566103423978


def legs_normal_part(n: int) -> Tensor:
    """Normal part of the HiPPO-LegS matrix, (n, n) float64: LegS + q q^T, q_i = sqrt(i + 1/2)."""
    i = torch.arange(n, dtype=torch.float64)
    p = torch.sqrt(1 + 2 * i)
    legs = -(torch.tril(torch.outer(p, p)) - torch.diag(i))
    q = torch.sqrt(i + 0.5)
    return legs + torch.outer(q, q)


def hippo_eigen(n: int) -> tuple[Tensor, Tensor]:
    """Eigenvalues (n,) by ascending imaginary part and eigenvectors (n, n) of the normal part, complex128.

    The phase of each eigenvector is arbitrary; only V diag(Lambda) V^H is determined.
    """
    s = legs_normal_part(n)
    re = torch.full((n,), s.diagonal().mean().item(), dtype=torch.float64)
    im, V = torch.linalg.eigh(-1j * s.to(torch.complex128))
    return torch.complex(re, im), V


def block_hippo(d_state: int, blocks: int, conj_sym: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Block-diagonal HiPPO: Lambda (P,), V (S, P), Vinv (P, S), complex128.

    With `conj_sym` the half of each block's spectrum with negative imaginary part is kept and P = S/2.
    """
    if d_state % blocks:
        raise ValueError(f"d_state is {d_state}, expected a multiple of blocks = {blocks}")
    n = d_state // blocks
    if conj_sym and n % 2:
        raise ValueError(f"d_state / blocks is {n}, expected an even number with conj_sym")
    Lambda, V = hippo_eigen(n)
    kept = n // 2 if conj_sym else n
    Lambda, V = Lambda[:kept], V[:, :kept]
    return Lambda.repeat(blocks), torch.block_diag(*[V] * blocks), torch.block_diag(*[V.mH] * blocks)


def lecun_normal(shape: tuple[int, ...], fan_in: int) -> Tensor:
    """Normal numbers cut at two sigma, scaled to standard deviation 1/sqrt(fan_in) after the cut."""
    std = 1 / math.sqrt(fan_in)
    raw = torch.empty(shape)
    torch.nn.init.trunc_normal_(raw, std=1.0, a=-2.0, b=2.0)
    return raw * (std / _TRUNCATED_STD)


def project_b(raw: Tensor, Vinv: Tensor) -> Tensor:
    """B in the eigenbasis, (P, H, 2), from a real sample (S, H)."""
    return torch.view_as_real((Vinv @ raw.to(Vinv.dtype)).contiguous())


def project_c(raw: Tensor, V: Tensor) -> Tensor:
    """C in the eigenbasis, (H, P, 2), from a sample (H, S, 2) of real and imaginary parts."""
    return torch.view_as_real((torch.view_as_complex(raw.contiguous()).to(V.dtype) @ V).contiguous())


def init_b(d_model: int, Vinv: Tensor) -> Tensor:
    """Initial B (P, H, 2): LeCun normal with fan-in S (the paper's; not H), projected."""
    s = Vinv.shape[1]
    return project_b(lecun_normal((s, d_model), fan_in=s), Vinv).float()


def init_c(kind: str, d_model: int, V: Tensor) -> Tensor:
    """Initial C (H, P, 2).

    `lecun_normal` has fan-in H S (jax reads the first axis as a receptive field), `trunc_standard_normal` is
    LeCun normal per row with fan-in S despite its name, `complex_normal` has parts of variance 1/2 and no
    projection.
    """
    s, p = V.shape
    if kind == "complex_normal":
        return torch.randn(d_model, p, 2) * math.sqrt(0.5)
    fan_in = d_model * s if kind == "lecun_normal" else s
    return project_c(lecun_normal((d_model, s, 2), fan_in), V).float()


def init_log_step(p: int, dt_min: float, dt_max: float) -> Tensor:
    """Log-uniform time steps in [dt_min, dt_max], (P,)."""
    return math.log(dt_min) + torch.rand(p) * (math.log(dt_max) - math.log(dt_min))
