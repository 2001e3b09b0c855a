"""Taking channels and units out of lrnn's layers, in place; and the pruners that torch-pruning calls.

The pruners have the form of torch-pruning's `BasePruningFunc` without being subclasses of it, so that they
need no import: `prune_out_channels(layer, indices)` and its like. Where the two pruning functions of a class
are one, its inputs and outputs are the same channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from lrnn.nn import HGRN, S5, BatchNorm
from lrnn.nn.hgrn_stack import GLU
from lrnn.nn.norm import RMSNorm


def keep(owner: nn.Module, name: str, kept: Tensor, dim: int) -> None:
    """Keep some entries of `owner.<name>`, a parameter or buffer, along an axis; None stays None."""
    old = getattr(owner, name)
    if old is None:
        return
    new = old.detach().index_select(dim, kept.to(old.device))
    if isinstance(old, nn.Parameter):
        new = nn.Parameter(new, requires_grad=old.requires_grad)
        if old.grad is not None:
            new.grad = old.grad.index_select(dim, kept.to(old.device))
    setattr(owner, name, new)


def keep_outputs(linear: nn.Linear, kept: Tensor) -> None:
    """Keep some rows of a linear layer."""
    keep(linear, "weight", kept, 0)
    keep(linear, "bias", kept, 0)
    linear.out_features = len(kept)


def keep_inputs(linear: nn.Linear, kept: Tensor) -> None:
    """Keep some columns of a linear layer."""
    keep(linear, "weight", kept, 1)
    linear.in_features = len(kept)


def keep_s5_states(layer: S5, kept: Tensor) -> None:
    """Keep some of the P complex states."""
    for name in ("Lambda_re", "Lambda_im", "log_step", "B"):
        keep(layer, name, kept, 0)
    P = layer.C.shape[1] // (2 if layer.options.bidirectional else 1)
    keep(layer, "C", torch.cat([kept + P * k for k in range(layer.C.shape[1] // P)]), 1)
    layer.d_state = len(kept) * (2 if layer.options.conj_sym else 1)
    layer.blocks = 1


def keep_hgrn_states(layer: HGRN, kept: Tensor) -> None:
    """Keep some of the N states; the norm's weight goes with them, its eps stays."""
    parts = torch.stack([2 * kept, 2 * kept + 1], dim=1).flatten() if layer.is_complex else kept
    keep_outputs(layer.i_proj, parts)
    keep_outputs(layer.f_proj, kept)
    keep_outputs(layer.g_proj, parts)
    keep_inputs(layer.o_proj, parts)
    keep(layer.norm, "weight", parts, 0)
    if isinstance(layer.norm, nn.LayerNorm):
        keep(layer.norm, "bias", parts, 0)
    layer.norm.normalized_shape = (len(parts),)
    if layer.is_complex:
        keep(layer, "theta", kept, 0)
    layer.d_state = len(kept)


def scale_eps(layer: HGRN, share: float) -> None:
    """Scale the eps of the layer's norm, where its options say it too."""
    layer.norm.eps *= share
    layer.options = replace(layer.options, norm_eps=layer.norm.eps)


def keep_glu_units(layer: GLU, kept: Tensor) -> None:
    """Keep some of the hidden units."""
    keep_outputs(layer.gate_proj, kept)
    keep_outputs(layer.up_proj, kept)
    keep_inputs(layer.down_proj, kept)


class _Pruner:
    """What torch-pruning asks of any pruner."""

    pruning_dim = -1

    def get_in_channel_groups(self, layer: nn.Module) -> int:
        """No layer here has groups of channels."""
        return 1

    get_out_channel_groups = get_in_channel_groups


class S5Pruner(_Pruner):
    """The same channels in and out: D joins them one by one."""

    def prune_out_channels(self, layer: S5, idxs: Sequence[int]) -> S5:
        """Columns of B, rows of C, entries of D."""
        kept = rest(layer.d_model, idxs)
        keep(layer, "B", kept, 1)
        keep(layer, "C", kept, 0)
        keep(layer, "D", kept, 0)
        layer.d_model = len(kept)
        return layer

    prune_in_channels = prune_out_channels

    def get_out_channels(self, layer: S5) -> int:
        """Width H."""
        return layer.d_model

    get_in_channels = get_out_channels


class HGRNPruner(_Pruner):
    """Inputs are columns of three matrices, outputs rows of a fourth."""

    def prune_out_channels(self, layer: HGRN, idxs: Sequence[int]) -> HGRN:
        """Rows of o_proj."""
        keep_outputs(layer.o_proj, rest(layer.o_proj.out_features, idxs))
        return layer

    def prune_in_channels(self, layer: HGRN, idxs: Sequence[int]) -> HGRN:
        """Columns of i_proj, f_proj and g_proj."""
        kept = rest(layer.d_model, idxs)
        for linear in (layer.i_proj, layer.f_proj, layer.g_proj):
            keep_inputs(linear, kept)
        layer.d_model = len(kept)
        return layer

    def get_out_channels(self, layer: HGRN) -> int:
        """Rows of o_proj."""
        return layer.o_proj.out_features

    def get_in_channels(self, layer: HGRN) -> int:
        """Columns of i_proj."""
        return layer.d_model


class GLUPruner(_Pruner):
    """Inputs are columns of two matrices, outputs rows of a third."""

    def prune_out_channels(self, layer: GLU, idxs: Sequence[int]) -> GLU:
        """Rows of down_proj."""
        keep_outputs(layer.down_proj, rest(layer.down_proj.out_features, idxs))
        return layer

    def prune_in_channels(self, layer: GLU, idxs: Sequence[int]) -> GLU:
        """Columns of gate_proj and up_proj."""
        kept = rest(layer.gate_proj.in_features, idxs)
        keep_inputs(layer.gate_proj, kept)
        keep_inputs(layer.up_proj, kept)
        return layer

    def get_out_channels(self, layer: GLU) -> int:
        """Rows of down_proj."""
        return layer.down_proj.out_features

    def get_in_channels(self, layer: GLU) -> int:
        """Columns of gate_proj."""
        return layer.gate_proj.in_features


class BatchNormPruner(_Pruner):
    """Everything is per channel."""

    def prune_out_channels(self, layer: BatchNorm, idxs: Sequence[int]) -> BatchNorm:
        """Scale, shift and both statistics."""
        kept = rest(layer.d, idxs)
        for name in ("weight", "bias", "running_mean", "running_var"):
            keep(layer, name, kept, 0)
        layer.d = len(kept)
        return layer

    prune_in_channels = prune_out_channels

    def get_out_channels(self, layer: BatchNorm) -> int:
        """Width."""
        return layer.d

    get_in_channels = get_out_channels


class RMSNormPruner(_Pruner):
    """The weights of the channels that stay; the mean square is then over fewer."""

    def prune_out_channels(self, layer: nn.RMSNorm, idxs: Sequence[int]) -> nn.RMSNorm:
        """Weights."""
        kept = rest(layer.normalized_shape[-1], idxs)
        keep(layer, "weight", kept, 0)
        layer.normalized_shape = (len(kept),)
        return layer

    prune_in_channels = prune_out_channels

    def get_out_channels(self, layer: nn.RMSNorm) -> int:
        """Width."""
        return layer.normalized_shape[-1]

    get_in_channels = get_out_channels


def rest(width: int, removed: Sequence[int]) -> Tensor:
    """Indices of 0 ... width - 1 without those."""
    flags = torch.ones(width, dtype=torch.bool)
    flags[list(removed)] = False
    return flags.nonzero().flatten()


PRUNERS = {
    S5: S5Pruner(),
    HGRN: HGRNPruner(),
    GLU: GLUPruner(),
    BatchNorm: BatchNormPruner(),
    RMSNorm: RMSNormPruner(),
    nn.RMSNorm: RMSNormPruner(),
}
"""Pruners by class, for torch-pruning's `customized_pruners`."""
