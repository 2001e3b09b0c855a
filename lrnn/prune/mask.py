"""Masks as parametrizations: the dense weight lives on as a shadow, the module sees it with zeros.

A masked weight has the state-dict keys `parametrizations.<name>.original` (dense) and
`parametrizations.<name>.0.mask` (bool). `attach_masks` makes a plain module ready to load them, `bake` writes
the zeros into the weights and restores plain names.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

_KEY = re.compile(r"(?:(?P<module>.+)\.)?parametrizations\.(?P<name>[^.]+)\.\d+\.mask")


class _StraightThrough(torch.autograd.Function):
    """where(mask, weight, 0) with the gradient of the identity."""

    generate_vmap_rule = True

    @staticmethod
    def forward(weight: Tensor, mask: Tensor) -> Tensor:
        return torch.where(
            mask, weight, 0.0
        )  # not weight * mask, which spreads the inf of a shadow and makes -0.0

    @staticmethod
    def setup_context(ctx, inputs: tuple, output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


class Mask(nn.Module):
    """Straight-through mask of one weight.

    Forward: zero where the mask is False, the weight itself bit for bit elsewhere. Backward: the gradient
    reaches every entry of the dense weight, masked or not, so that a pruned weight goes on learning and can
    come back.

    Args:
        shape: of the mask; broadcasts to the weight.
        device: where the mask lives.
    """

    mask: Tensor

    def __init__(self, shape: torch.Size | tuple[int, ...], device: torch.device | str | None = None):
        super().__init__()
        self.register_buffer("mask", torch.ones(tuple(shape), dtype=torch.bool, device=device))

    def forward(self, weight: Tensor) -> Tensor:
        """Mask `weight`."""
        return _StraightThrough.apply(weight, self.mask)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Assigning to a masked weight assigns to its dense shadow."""
        return weight

    def extra_repr(self) -> str:
        """Shape and density."""
        return f"{tuple(self.mask.shape)}, density={self.mask.float().mean().item():.4f}"


def attach(module: nn.Module, name: str, shape: torch.Size | tuple[int, ...]) -> Mask:
    """Mask `module.<name>`; all ones at first. A mask that is there already is returned as it is."""
    mask = find(module, name)
    if mask is not None:
        return mask
    unshare_class(module)
    mask = Mask(shape, getattr(module, name).device)
    parametrize.register_parametrization(module, name, mask)
    if isinstance(module, nn.RNNBase):
        type(module).__deepcopy__ = _deepcopy_rnn  # the class is this instance's own: parametrize made it
    return mask


def find(module: nn.Module, name: str) -> Mask | None:
    """The mask of `module.<name>`, or None."""
    if not parametrize.is_parametrized(module, name):
        return None
    return next((p for p in module.parametrizations[name] if isinstance(p, Mask)), None)


def attach_masks(module: nn.Module, state_dict: Mapping[str, Tensor]) -> None:
    """Put masks where `state_dict` has them, so that `module.load_state_dict(state_dict)` works.

    Raises:
        ValueError that names the key, where the module has no such weight.
    """
    for key, value in state_dict.items():
        match = _KEY.fullmatch(key)
        if match is None:
            continue
        try:
            owner = module.get_submodule(match["module"] or "")
            fits = torch.broadcast_shapes(value.shape, getattr(owner, match["name"]).shape)
        except (AttributeError, RuntimeError):
            raise ValueError(
                f"state_dict has the mask {key} of shape {tuple(value.shape)}, "
                f"but {type(module).__name__} has no weight that it fits"
            ) from None
        if fits != getattr(owner, match["name"]).shape:
            raise ValueError(f"{key} has shape {tuple(value.shape)}, wider than its weight")
        attach(owner, match["name"], value.shape)


def bake(module: nn.Module) -> None:
    """Write the zeros of all masks into the weights and remove the masks; other parametrizations stay."""
    for owner in list(module.modules()):
        if not parametrize.is_parametrized(owner):
            continue
        for name in list(owner.parametrizations):
            if find(owner, name) is not None:
                bake_one(owner, name)


def bake_one(owner: nn.Module, name: str) -> None:
    """`bake` for the mask of `owner.<name>` alone."""
    stack = owner.parametrizations[name]
    if not isinstance(stack[0], Mask):
        raise ValueError(f"the mask of {name!r} follows {type(stack[0]).__name__}, expected it to come first")
    with torch.no_grad():
        stack.original.copy_(stack[0](stack.original))
    if len(stack) == 1:
        unshare_class(owner)
        parametrize.remove_parametrizations(owner, name, leave_parametrized=False)
    else:
        del stack[0]


def unshare_class(module: nn.Module) -> None:
    """Give a parametrized module a class of its own.

    parametrize keeps the properties of masked weights on a class that it makes for each module, but deepcopy
    lets the copy share it: taking a mask off the one would break the other.
    """
    if parametrize.is_parametrized(module):
        cls = type(module)
        module.__class__ = type(cls.__name__, cls.__bases__, dict(vars(cls)))


def _deepcopy_rnn(self: nn.RNNBase, memo: dict) -> nn.RNNBase:
    """Copy without the weights that the last forward pass left: with their graph they cannot be copied."""
    replica = self.__new__(type(self))
    memo[id(self)] = replica
    state = {k: v for k, v in self.__dict__.items() if k not in ("_flat_weights", "_flat_weight_refs")}
    replica.__dict__.update(copy.deepcopy(state, memo))
    replica._init_flat_weights()
    return replica
