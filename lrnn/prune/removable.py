"""Which channels of a group can go, and what the constants among them add to the biases of their readers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lrnn.nn import HGRN, S5
from lrnn.nn.hgrn_stack import GLU
from lrnn.prune.dependency import ACROSS, POINTWISE, Group, Member, removed
from lrnn.prune.sizes import record_sizes

_NO_MATRIX = (*POINTWISE, *ACROSS)


@dataclass
class Removable:
    """Channels of a group that can go, and the constants among them.

    Attributes:
        group: theirs.
        channels: of the group, in order; one always stays.
        shifts: what is added to biases, by the name of the layer.
    """

    group: Group
    channels: list[int]
    shifts: dict[str, Tensor]

    @classmethod
    @torch.no_grad()
    def of(cls, group: Group, inputs: dict[str, Tensor]) -> Removable:
        """What can go of a group whose layers read these inputs on an example."""
        unread = torch.ones(group.width, dtype=torch.bool)
        for member in _readers(group):
            unread &= ~_used(member, group.width, _columns(member.layer))
        unfed = torch.ones(group.width, dtype=torch.bool)
        makers = [m for m in group.members if m.makes and not isinstance(m.layer, _NO_MATRIX)]
        for member in makers:
            unfed &= ~_used(member, group.width, _rows(member.layer))
        if all(isinstance(m.layer, S5) for m in makers):
            unfed[:] = False  # what D passes on comes from outside
        folded = _folded(group, (unfed & ~unread).nonzero().flatten().tolist(), inputs)
        channels = sorted({*unread.nonzero().flatten().tolist(), *folded.channels})
        if channels and len(channels) == group.width:  # a width of nothing is none
            channels = channels[1:]
            folded = _folded(group, [c for c in folded.channels if c in channels], inputs)
        return cls(group, channels, folded.shifts)

    @torch.no_grad()
    def apply(self, model: nn.Module) -> None:
        """Take the channels out of a model, or of a copy of it."""
        for path, shift in self.shifts.items():
            bias = model.get_submodule(path).bias
            bias.copy_(bias.double() + shift)
        removed(model, self.group, self.channels)
        record_sizes(model)


def _readers(group: Group) -> list[Member]:
    return [m for m in group.members if m.reads and not isinstance(m.layer, _NO_MATRIX)]


def _columns(layer: nn.Module) -> Tensor:
    """(channels,) bool: whether any weight of the layer reads a channel of its input."""
    if isinstance(layer, S5):
        return (layer.B != 0).any(-1).any(0)
    if isinstance(layer, HGRN):
        return _any(layer.i_proj, 0) | _any(layer.f_proj, 0) | _any(layer.g_proj, 0)
    if isinstance(layer, GLU):
        return _any(layer.gate_proj, 0) | _any(layer.up_proj, 0)
    return (layer.weight != 0).transpose(0, 1).flatten(1).any(1)


def _rows(layer: nn.Module) -> Tensor:
    """(channels,) bool: whether any weight of the layer makes its output more than a bias."""
    if isinstance(layer, S5):
        return (layer.C != 0).any(-1).any(-1)
    if isinstance(layer, HGRN):
        return _any(layer.o_proj, 1)
    if isinstance(layer, GLU):
        return _any(layer.down_proj, 1)
    if isinstance(layer, nn.Embedding):
        return (layer.weight != 0).any(0)
    return (layer.weight != 0).flatten(1).any(1)


def _any(linear: nn.Linear, dim: int) -> Tensor:
    return (linear.weight != 0).any(dim)


def _used(member: Member, width: int, own: Tensor) -> Tensor:
    """Flags of a layer's own channels as flags of the group's.

    Behind a reshape that torch-pruning misreads it numbers channels that the layer does not have: in use.
    """
    flags = torch.zeros(width, dtype=torch.bool)
    for channel, mine in member.channels.items():
        flags[channel] = max(mine) >= len(own) or bool(own[mine].any())
    return flags


def _folded(group: Group, channels: list[int], inputs: dict[str, Tensor]) -> Removable:
    """Of channels that are constant those whose every reader can take the constant into its bias."""
    readers = _readers(group)
    fits = [c for c in channels if all(_foldable(m, c, inputs) for m in readers)]
    shifts: dict[str, Tensor] = {}
    for member in readers:
        mine = [k for c in fits for k in member.channels.get(c, ())]
        constant = _channels_of(member, inputs, mine)[0].double()
        for path, weight in _linears(member):
            if mine and constant.any():
                columns = weight[:, mine].double()
                columns = columns.flatten(2).sum(-1) if weight.ndim > 2 else columns
                shifts[path] = columns @ constant
    return Removable(group, fits, shifts)


def _linears(member: Member) -> list[tuple[str, Tensor]]:
    """The matrices through which a layer reads, by the names of their modules."""
    layer = member.layer
    names = {HGRN: ("i_proj", "f_proj", "g_proj"), GLU: ("gate_proj", "up_proj")}.get(type(layer))
    if names is None:
        return [] if isinstance(layer, S5) else [(member.path, layer.weight)]
    return [(f"{member.path}.{n}".lstrip("."), getattr(layer, n).weight) for n in names]


def _foldable(member: Member, channel: int, inputs: dict[str, Tensor]) -> bool:
    mine = member.channels.get(channel, [])
    if not mine or not _columns(member.layer)[mine].any():
        return True
    values = _channels_of(member, inputs, mine)  # (places, channels)
    if not torch.allclose(values, values[:1], rtol=1e-6, atol=1e-30):
        return False
    if not values[0].any():
        return True
    layer = member.layer
    if isinstance(layer, S5):
        return False  # its states start from zero: what a constant makes of them is none
    if isinstance(layer, (HGRN, GLU)):
        return (layer.i_proj if isinstance(layer, HGRN) else layer.gate_proj).bias is not None
    padded = any(getattr(layer, "padding", ())) and getattr(layer, "padding_mode", "") == "zeros"
    return layer.bias is not None and not padded


def _channels_of(member: Member, inputs: dict[str, Tensor], mine: list[int]) -> Tensor:
    """What a layer read in some of its channels, (places, channels)."""
    x = inputs[member.path]
    if isinstance(member.layer, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        x = x.movedim(1, -1)
    return x.reshape(-1, x.shape[-1])[:, mine]
