"""Fake quantisation: what is trained stays a float, what the network computes with lies on a grid.

Weights are rounded by parametrizations, stacked on masks: mask first, then round, so that zeros stay zeros.
A grid is made anew from the weight at every pass, and `lrnn.quant.quantize_weight` owns it: what a compiled
program stores are the same integers. Rounding has the gradient of the identity, clipping that of a clamp.

An S5 runs B_bar = gain B and lambda_bar, not its parameters, and a batch norm in front of it is folded into
B_bar and D when it is compiled. So what is rounded is gain B diag(scale) and D scale, and the parameter that
the layer sees is what these come from: the layer knows nothing of it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lrnn.nn import S5, BatchNorm
from lrnn.nn.s5 import MAX_DECAY, discretize
from lrnn.quant.exponent import (
    decay_to_grid,
    largest_integer,
    rotation_to_grid,
    row_peaks,
    spread,
    to_grid,
)
from lrnn.quant.scheme import Rounding, WeightScale

_E4M3_MAX = 448.0


class _Replaced(torch.autograd.Function):
    """Another tensor in the place of x, with the gradient of x where it is inside."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, other: Tensor, inside: Tensor | None) -> Tensor:
        return other.clone()

    @staticmethod
    def setup_context(ctx, inputs: tuple, output: Tensor) -> None:
        ctx.save_for_backward(inputs[2])

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        (inside,) = ctx.saved_tensors
        return gradient if inside is None else torch.where(inside, gradient, 0.0), None, None


class _Rounded(torch.autograd.Function):
    """Integers times 2 ** -exponent, with the gradient of x where nothing saturates."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, exponent: int, bits: int, rounding: Rounding) -> tuple[Tensor, Tensor]:
        most = largest_integer(bits)
        scaled = x * 2.0**exponent
        if rounding == "nearest_even":
            integers = scaled.round()
        else:
            integers = (scaled + 0.5 if rounding == "nearest_up" else scaled).floor()
        return integers.clamp(-most, most) * 2.0**-exponent, integers.abs() <= most

    @staticmethod
    def setup_context(ctx, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(output[1])

    @staticmethod
    def backward(ctx, gradient: Tensor, _: Tensor) -> tuple[Tensor, None, None, None]:
        return torch.where(ctx.saved_tensors[0], gradient, 0.0), None, None, None


def fake_round(x: Tensor, exponent: int, bits: int, rounding: Rounding = "nearest_even") -> Tensor:
    """x on the grid 2 ** -exponent, saturated at `bits` bits; the gradient is 0 where it saturates, else 1.

    Args:
        x: any shape, floating point.
        exponent: -126 to 126.
        bits: width with the sign.
        rounding: see lrnn.quant.Scheme.
    """
    return _Rounded.apply(x, exponent, bits, rounding)[0]


def fake_clamp(x: Tensor, bound: float) -> Tensor:
    """x within +-bound, not rounded; the gradient is 0 outside."""
    return x.clamp(-bound, bound)


class Grid(nn.Module):
    """Rounds a matrix of rows to the nearest numbers of a format; no entry is clipped, zeros stay zeros.

    Args:
        bits: width of an integer with the sign; None rounds to FP8 (e4m3), scaled so that the largest entry
            is at most its 448.
        scale: a power of two for each row, or one for all.
    """

    def __init__(self, bits: int | None, scale: WeightScale):
        super().__init__()
        self.bits, self.scale = bits, scale

    def forward(self, matrix: Tensor) -> Tensor:
        """The matrix (rows, cols) or (rows,) on its grid; the gradient is that of the identity."""
        with torch.no_grad():
            rounded = _to_e4m3(matrix, self.scale) if self.bits is None else self._to_integers(matrix)
        return _Replaced.apply(matrix, rounded.to(matrix.dtype), None)

    def _to_integers(self, matrix: Tensor) -> Tensor:
        integers, exponents = to_grid(matrix, self.bits, self.scale)
        return torch.ldexp(integers, -spread(exponents, matrix))

    def extra_repr(self) -> str:
        """Format and scale."""
        return f"{'e4m3' if self.bits is None else f'{self.bits} bits'}, scale={self.scale!r}"


def _to_e4m3(matrix: Tensor, scale: WeightScale) -> Tensor:
    matrix = matrix.double()
    mantissa, exponent = torch.frexp(row_peaks(matrix, scale))  # 448 = 0.875 * 2 ** 9
    shift = spread(9 - exponent - (mantissa > _E4M3_MAX / 512).int(), matrix)
    scaled = torch.ldexp(matrix, shift).float().to(torch.float8_e4m3fn)
    return torch.ldexp(scaled.double(), -shift)


class Columns:
    """The scale of a batch norm, by which the columns of what reads it are multiplied when they are folded.

    Not a module: the norm has a place of its own in the network.

    Args:
        norm: frozen from now on: its running statistics are part of the matrix.
    """

    def __init__(self, norm: BatchNorm):
        self.norm, self.was_frozen = norm, norm.frozen
        norm.frozen = True

    def __call__(self) -> Tensor:
        """(H,)."""
        return self.norm.scale_shift()[0]

    def release(self) -> None:
        """The norm is as it was."""
        self.norm.frozen = self.was_frozen


class Deviations(Columns):
    """By what the weight of a batch norm is multiplied where the norm stays a diagonal map of its own."""

    def __call__(self) -> Tensor:
        """(H,): 1 / sqrt(variance + eps)."""
        return torch.rsqrt(self.norm.running_var + self.norm.eps)


class QuantizedWeight(nn.Module):
    """Parametrization of a matrix, of an S5's C or of a diagonal map such as D.

    Args:
        grid: what it is rounded to.
        columns: scale of what it reads, or None.
    """

    def __init__(self, grid: Grid, columns: Columns | None = None):
        super().__init__()
        self.grid, self.columns = grid, columns

    def forward(self, weight: Tensor) -> Tensor:
        """The weight that gives the rounded matrix."""
        scale = None if self.columns is None else self.columns()
        rows = weight.flatten(1) if weight.ndim > 1 else weight
        if scale is None:
            return self.grid(rows).view(weight.shape)
        return _unscaled(self.grid(rows * scale), scale, rows).view(weight.shape)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Assigning to the weight assigns to what is trained."""
        return weight


class QuantizedInput(nn.Module):
    """Parametrization of the B (P, H, 2) of an S5: what is rounded is gain B, real and imaginary rows apart.

    Args:
        grid: what it is rounded to.
        ssm: the owner of B.
        columns: scale of what it reads, or None.
    """

    def __init__(self, grid: Grid, ssm: S5, columns: Columns | None = None):
        super().__init__()
        self.grid, self.columns = grid, columns
        self._ssm = (ssm,)  # a tuple: as a child it would close a circle of modules

    def forward(self, B: Tensor) -> Tensor:
        """Q(gain B) / gain."""
        gain = self._ssm[0].discretize()[1][:, None]
        pairs = torch.view_as_complex(B.to(gain.real.dtype))
        matrix = torch.view_as_real(gain * pairs).transpose(1, 2)  # (P, 2, H)
        scale = None if self.columns is None else self.columns()
        rows = matrix.flatten(0, 1) if scale is None else (matrix * scale).flatten(0, 1)
        rounded = self.grid(rows).view(matrix.shape)
        if scale is not None:
            rounded = _unscaled(rounded, scale, matrix)
        return torch.view_as_real(torch.view_as_complex(rounded.transpose(1, 2).contiguous()) / gain)

    def right_inverse(self, B: Tensor) -> Tensor:
        """As for any weight."""
        return B


def _unscaled(rounded: Tensor, scale: Tensor, before: Tensor) -> Tensor:
    """rounded / scale; a column whose scale is zero reads nothing and stays what it was."""
    dead = scale == 0
    return torch.where(dead, before, rounded / torch.where(dead, 1.0, scale))


class QuantizedEigenvalue(nn.Module):
    """Parametrization of Lambda_re or Lambda_im of an S5: 1 - lambda_bar is rounded, |lambda_bar| < 1.

    float32 holds lambda_bar to 6e-8. Where 1 - lambda_bar is small, a grid of 16 bits is about as fine.

    Args:
        bits: of the real and of the imaginary part.
        ssm: the owner.
        part: "Lambda_re" or "Lambda_im".
    """

    def __init__(self, bits: int, ssm: S5, part: str):
        super().__init__()
        self.bits, self.part = bits, part
        self._ssm = (ssm,)

    def forward(self, value: Tensor) -> Tensor:
        """The part of the eigenvalue that gives the rounded lambda_bar."""
        ssm = self._ssm[0]
        re, im = (_trained(ssm, name) for name in ("Lambda_re", "Lambda_im"))
        with torch.no_grad():
            lambda_bar = discretize(re, im, ssm.log_step, ssm.options)[0]
            found = _eigenvalues(decay_to_grid(lambda_bar, self.bits), ssm)
            rounded = (found.real if self.part == "Lambda_re" else found.imag).to(value.dtype)
            clipped = ssm.options.clip_eigs and self.part == "Lambda_re"
            inside = value <= MAX_DECAY if clipped else None
        return _Replaced.apply(value, rounded, inside)

    def right_inverse(self, value: Tensor) -> Tensor:
        """As for any weight."""
        return value


class QuantizedRotation(nn.Module):
    """Rounds (cos, sin) (N, 2) as fixed point does: 1 - rotation, and to the inside of the circle.

    Args:
        bits: of the real and of the imaginary part.
    """

    def __init__(self, bits: int):
        super().__init__()
        self.bits = bits

    def forward(self, rotation: Tensor) -> Tensor:
        """The rounded rotation; the gradient is that of the identity."""
        with torch.no_grad():
            rounded = torch.view_as_real(rotation_to_grid(torch.view_as_complex(rotation), self.bits))
        return _Replaced.apply(rotation, rounded.to(rotation.dtype), None)


def _trained(module: nn.Module, name: str) -> Tensor:
    """A parameter below its parametrizations."""
    parametrizations = getattr(module, "parametrizations", {})
    return parametrizations[name].original if name in parametrizations else getattr(module, name)


def _eigenvalues(lambda_bar: Tensor, ssm: S5) -> Tensor:
    """Inverse of `discretize`, of the branch that lambda_bar came from: (P,) complex128."""
    dt = ssm.options.step_rescale * torch.exp(ssm.log_step.double())
    if ssm.options.discretization == "bilinear":
        return 2 / dt * (lambda_bar - 1) / (lambda_bar + 1)
    turns = torch.round(
        _trained(ssm, "Lambda_im").double() * dt / (2 * torch.pi) - lambda_bar.angle() / (2 * torch.pi)
    )
    return torch.complex(lambda_bar.abs().log() / dt, (lambda_bar.angle() + 2 * torch.pi * turns) / dt)
