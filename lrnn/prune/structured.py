"""structured: whole channels and states are removed until a model costs what it may: the dense baseline.

What unstructured sparsity is held against at equal multiply-accumulates. Channels that hang together are
ranked by the magnitude of all their weights, as in torch-pruning's MagnitudePruner (Fang et al. 2023), states
and hidden units by what feeds and what reads them. The same share of every group goes.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lrnn.nn import HGRN, S5
from lrnn.nn.hgrn_stack import GLU
from lrnn.prune.cost import Cost, cost
from lrnn.prune.dependency import ACROSS, POINTWISE, Example, Group, Member, check_plain, removed, trace
from lrnn.prune.sizes import example_of, record_sizes
from lrnn.prune.units import units_of

_HALVINGS = 12
"""Tries: the share removed is found to 1/4096."""


@dataclass(frozen=True)
class Structured:
    """What `structured` did.

    Attributes:
        share: of every group of channels and units that went.
        before, after: costs.
    """

    share: float
    before: Cost
    after: Cost

    def __str__(self) -> str:
        was, now = self.before, self.after
        return (
            f"{100 * self.share:.1f} % of all widths removed: {was.macs:,} -> {now.macs:,} "
            f"multiply-accumulates, {was.parameters:,} -> {now.parameters:,} parameters"
        )


def structured(model: nn.Module, macs: int, example: Example | None = None) -> Structured:
    """Remove channels, states and hidden units of a model, in place, the weakest, until it costs `macs`.

        lrnn.prune.structured(model, macs=50_000)    # then train on

    What the model makes changes: train it on. Its inputs and outputs keep their sizes, and so does what
    passes through layers that are not understood.

    Args:
        model: any module, without masks; see `lrnn.shrink`.
        macs: multiply-accumulates of one run on the example, every weight counted, at most. Compare a sparse
            model by its `cost(...).macs_weights`.
        example: as for `lrnn.shrink`; None is one frame for one of lrnn's models.

    Raises:
        ImportError: torch-pruning is not installed.
        ValueError: parametrizations are left, no example, or even one channel of each costs more.
    """
    check_plain(model)
    example = example_of(model, 1, 1) if example is None else example
    before = cost(model, example)
    if before.macs <= macs:
        return Structured(0.0, before, before)
    low, high = 0.0, 1.0
    if cost(_pruned(model, example, high), example).macs > macs:
        raise ValueError(f"macs is {macs}, expected at least what one channel of every group costs")
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        fits = cost(_pruned(model, example, middle), example).macs <= macs
        low, high = (low, middle) if fits else (middle, high)
    prune_share(model, example, high)
    return Structured(high, before, cost(model, example))


def _pruned(model: nn.Module, example: Example, share: float) -> nn.Module:
    trial = copy.deepcopy(model)
    prune_share(trial, example, share)
    return trial


def prune_share(model: nn.Module, example: Example, share: float) -> None:
    """Remove the weakest `share` of every group of channels and of all units, in place; one always stays."""
    for units in list(units_of(model)):
        n = len(units.strength)
        units.keep_some(units.strength.topk(n - _removed(n, share)).indices.sort().values)
    record_sizes(model)
    # Ranked before any goes, removed one by one: behind a concatenation channels then have new numbers.
    weakest = {
        group.name: magnitude(group).argsort(stable=True)[: _removed(group.width, share)].tolist()
        for group in trace(model, example).groups
        if not group.is_output and not group.barrier
    }
    for name, channels in weakest.items():
        (group,) = [g for g in trace(model, example).groups if g.name == name]
        removed(model, group, channels)
        record_sizes(model)


def _removed(width: int, share: float) -> int:
    return min(int(share * width), width - 1)


@torch.no_grad()
def magnitude(group: Group) -> Tensor:
    """Sum of the squares of all weights that make, scale or read each channel of a group, (width,)."""
    total = torch.zeros(group.width, dtype=torch.float64)
    for member in group.members:
        for own in _squares(member):
            own = own.double().cpu()
            for channel, mine in member.channels.items():
                total[channel] += own[mine].sum()
    return total


def _squares(member: Member) -> list[Tensor]:
    """Of a layer, the sums of squares by channel, one (channels,) tensor for each of its matrices."""
    layer = member.layer
    if isinstance(layer, (*POINTWISE, *ACROSS)):
        return [] if layer.weight is None else [layer.weight.square()]
    if isinstance(layer, S5):
        return [layer.B.square().sum((0, 2)), layer.C.square().sum((1, 2)), layer.D.square()]
    if isinstance(layer, (HGRN, GLU)):
        makes = layer.o_proj if isinstance(layer, HGRN) else layer.down_proj
        reads = {HGRN: ("i_proj", "f_proj", "g_proj"), GLU: ("gate_proj", "up_proj")}[type(layer)]
        if member.makes:
            return [makes.weight.square().sum(1)]
        return [getattr(layer, name).weight.square().sum(0) for name in reads]
    by_output = member.makes and not isinstance(layer, nn.Embedding)
    return [layer.weight.square().movedim(0 if by_output else 1, 0).flatten(1).sum(1)]
