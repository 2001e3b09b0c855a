"""SparseLinear: a linear layer that holds, multiplies and trains its nonzero weights only."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lrnn.ops import SparsePattern, SparseWeight, sparse_linear

if TYPE_CHECKING:
    from lrnn.profile.explain import Explanation

_FLOATS = (torch.float32, torch.float64)
_SAVED = ("starts", "columns")  # of a pattern: all else follows from them


class SparseLinear(nn.Module):
    """y = x W^T + bias, as nn.Linear, for a W with zeros: x (..., in_features) -> y (..., out_features).

        layer = lrnn.SparseLinear.from_dense(torch.nn.Linear(512, 512), density=0.1)

    Where W has weights is fixed. An optimiser sees and moves those alone: zeros stay zeros, whatever its
    momentum or weight decay. float32 and float64; under autocast it computes in float32.

    A state dict holds `values`, `bias` and the pattern as compressed rows, `starts` and `columns`. Loading
    one of the same size takes over its pattern, whatever the module's was: a module without weights will do.
    The parameters stay the same objects; an optimiser with a state for them needs that loaded as well.

    Args:
        in_features: width of x.
        out_features: width of y.
        pattern: of shape (out_features, in_features); None has no weights at all, to load a state dict into.
        bias: whether there is one.
        device: of everything.
        dtype: float32 or float64; None is torch's default.

    Attributes:
        values: (nonzeros,) parameter, row after row, columns rising within a row.
        bias: (out_features,) parameter, or None.
        pattern: where the values stand; not to be written to.

    Raises:
        ValueError: the pattern has another shape. TypeError: another dtype.
    """

    values: nn.Parameter
    bias: nn.Parameter | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        pattern: SparsePattern | None = None,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        dtype = torch.get_default_dtype() if dtype is None else dtype
        if dtype not in _FLOATS:
            raise TypeError(f"dtype: found {dtype}, expected torch.float32 or torch.float64")
        if pattern is None:
            pattern = SparsePattern.from_mask(torch.zeros(out_features, in_features, dtype=torch.bool))
        if pattern.shape != (out_features, in_features):
            raise ValueError(
                f"pattern: shape is {pattern.shape}, expected (out_features, in_features) = "
                f"{(out_features, in_features)}"
            )
        # No buffers: data-parallel training would broadcast them, and NCCL and gloo know no int16.
        self.pattern = SparsePattern(*(t.to(device) for t in pattern))
        self.values = nn.Parameter(torch.empty(pattern.nonzeros, device=device, dtype=dtype))
        shift = nn.Parameter(torch.empty(out_features, device=device, dtype=dtype)) if bias else None
        self.register_parameter("bias", shift)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw as nn.Linear does, each row's bound from its own number of weights (Evci et al. 2022)."""
        counts = self.pattern.starts().diff().clamp(min=1)
        bound = counts.to(self.values.dtype).rsqrt()  # (out_features,)
        if len(self.values):
            self.values.uniform_(-1, 1).mul_(bound[self.pattern.rows()])
        if self.bias is not None:
            self.bias.uniform_(-1, 1).mul_(bound)

    @classmethod
    def from_dense(
        cls, linear: nn.Linear, density: float | None = None, mask: Tensor | None = None
    ) -> SparseLinear:
        """A layer with some of a dense layer's weights; that layer stays as it is.

        Args:
            linear: float32 or float64; masked by `lrnn.Prune` or plain.
            density: share of the weights to keep, the largest, 0 to 1.
            mask: (out_features, in_features) bool: the weights to keep, be they zero. With neither, those
                that are not zero are kept.

        Raises:
            TypeError: no nn.Linear, or another dtype.
            ValueError: density out of range, a mask of another shape, both of them, or NaN weights.
        """
        if not isinstance(linear, nn.Linear):
            raise TypeError(f"linear: found {type(linear).__name__}, expected a torch.nn.Linear")
        with torch.enable_grad():  # a masked weight is made anew, and would need none
            weight = linear.weight
        is_trained, weight = weight.requires_grad, weight.detach()
        if weight.dtype not in _FLOATS:
            raise TypeError(f"linear: weight is {weight.dtype}, expected torch.float32 or torch.float64")
        if not bool(weight.isfinite().all()):
            raise ValueError("linear: weight has NaN or infinite values")
        if density is not None:
            if mask is not None:
                raise ValueError("density and mask: found both, expected one of them or neither")
            mask = _largest(weight, density)
        kept = SparseWeight.from_dense(weight, mask)
        has_bias = linear.bias is not None
        rows, columns = weight.shape
        layer = cls(columns, rows, kept.pattern, has_bias, weight.device, weight.dtype)
        with torch.no_grad():
            layer.values.copy_(kept.values)
            if layer.bias is not None:
                layer.bias.copy_(linear.bias)
        layer.values.requires_grad_(is_trained)
        if layer.bias is not None:
            layer.bias.requires_grad_(linear.bias.requires_grad)
        return layer.train(linear.training)

    @torch.no_grad()
    def to_dense(self) -> nn.Linear:
        """The layer as an nn.Linear with the zeros written out; shares nothing with this one."""
        options = {"device": self.values.device, "dtype": self.values.dtype}
        linear = nn.Linear(self.in_features, self.out_features, self.bias is not None, **options)
        linear.weight.copy_(self.weight)
        linear.weight.requires_grad_(self.values.requires_grad)
        if self.bias is not None:
            linear.bias.copy_(self.bias)
            linear.bias.requires_grad_(self.bias.requires_grad)
        return linear.train(self.training)

    @property
    def weight(self) -> Tensor:
        """W (out_features, in_features) with its zeros, made anew; gradients reach `values` through it."""
        return self._sparse.to_dense()

    @property
    def density(self) -> float:
        """Share of W that has weights."""
        return self.pattern.density

    @property
    def _sparse(self) -> SparseWeight:
        return SparseWeight(self.values, self.pattern)

    def forward(self, x: Tensor) -> Tensor:
        """Multiply x (..., in_features)."""
        return sparse_linear(x, self._sparse, self.bias)

    def explain(self, steps: int = 256) -> Explanation:
        """What this layer costs on this machine beside a dense one, for one step and for `steps`; measured.

        Raises:
            ValueError: steps below 1.
        """
        from lrnn.profile.explain import explain

        return explain(self, steps)

    def extra_repr(self) -> str:
        """Sizes and density."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.bias is not None}, nonzeros={self.pattern.nonzeros}, density={self.density:.4f}"
        )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> SparseLinear:
        super()._apply(fn, recurse)
        self.pattern = SparsePattern(*(fn(t) for t in self.pattern))
        return self

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "starts"] = self.pattern.starts()
        destination[prefix + "columns"] = self.pattern.columns

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        keys = [prefix + name for name in _SAVED]
        absent = [key for key in keys if key not in state_dict]
        if absent and strict:
            missing_keys.extend(absent)
        if not absent:
            try:
                self._adopt(*(state_dict[key] for key in (*keys, prefix + "values")))
            except (KeyError, ValueError) as error:
                error_msgs.append(f"{prefix.removesuffix('.') or type(self).__name__}: {error.args[0]}")
                return
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
        unexpected_keys[:] = [key for key in unexpected_keys if key not in keys]

    def _adopt(self, starts: Tensor, columns: Tensor, values: Tensor) -> None:
        """Take over a pattern, with room for its values."""
        shape = self.out_features, self.in_features
        device = self.values.device
        pattern = SparsePattern.from_indices(starts.to(device), columns.to(device), shape)
        if values.shape != (pattern.nonzeros,):
            raise ValueError(f"values: shape is {tuple(values.shape)}, expected ({pattern.nonzeros},)")
        self.pattern = pattern
        if len(self.values) != pattern.nonzeros:
            self.values.data = self.values.data.new_zeros(pattern.nonzeros)
            self.values.grad = None


def _largest(weight: Tensor, density: float) -> Tensor:
    """The mask of the given share of weights, those of largest magnitude."""
    if not 0 <= density <= 1:
        raise ValueError(f"density is {density}, expected 0 to 1")
    mask = torch.zeros(weight.numel(), dtype=torch.bool, device=weight.device)
    mask[weight.abs().flatten().topk(round(density * weight.numel())).indices] = True
    return mask.view(weight.shape)
