"""Units inside a layer: the states of an S5 or HGRN, the hidden units of a gated linear unit.

A unit is dead where nothing feeds it or nothing reads it; without it the layer computes the same. Its
strength, the product of what feeds and what reads it, ranks units for structured pruning.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lrnn.nn import HGRN, S5, HGRNStack
from lrnn.nn.hgrn_stack import GLU
from lrnn.prune.channels import keep, keep_glu_units, keep_hgrn_states, keep_s5_states, scale_eps


@dataclass(frozen=True)
class Units:
    """The units of one layer.

    Attributes:
        name: of the layer, and what they are.
        alive: (n,) bool; at least one is.
        strength: (n,) from 0 on.
        keep_exactly: leaves units out so that nothing changes where they are dead; None where that cannot be.
        keep_some: leaves any units out.
        obstacle: why there is no keep_exactly, or "".
    """

    name: str
    alive: Tensor
    strength: Tensor
    keep_exactly: Callable[[Tensor], None] | None
    keep_some: Callable[[Tensor], None]
    obstacle: str = ""


def units_of(model: nn.Module) -> Iterator[Units]:
    """The units of every S5, HGRN and GLU of a model; an HGRNStack has one set of states for its layers."""
    stacks = {name: m for name, m in model.named_modules() if isinstance(m, HGRNStack)}
    in_stacks = {block.mixer for stack in stacks.values() for block in stack.blocks}
    for name, stack in stacks.items():
        yield _stack_states(stack, f"{name} states".lstrip())
    for name, layer in model.named_modules():
        if isinstance(layer, S5):
            yield _s5_states(layer, f"{name} states".lstrip())
        elif isinstance(layer, HGRN) and layer not in in_stacks:
            yield _hgrn_states(layer, f"{name} states".lstrip())
        elif isinstance(layer, GLU):
            yield _glu_units(layer, f"{name} hidden units".lstrip())


def _s5_states(layer: S5, name: str) -> Units:
    P = layer.n_states
    with torch.no_grad():
        gain = layer.discretize()[1]
        fed = layer.input_matrix(gain).unflatten(0, (P, 2)).square().sum((1, 2))  # (P,)
        reads = layer.C.detach().square().sum((0, 2)).view(-1, P).sum(0)  # (P,), both directions
        alive = (layer.B != 0).any(-1).any(-1) & (layer.C != 0).any(0).any(-1).view(-1, P).any(0)
    keep_some = lambda kept: keep_s5_states(layer, kept)  # noqa: E731
    return Units(name, _one_at_least(alive), (fed * reads).sqrt(), keep_some, keep_some)


def _stack_states(stack: HGRNStack, name: str) -> Units:
    """States of all layers together: each column of the lower bounds serves every layer."""
    each = [_hgrn_states(block.mixer, name) for block in stack.blocks]
    alive = torch.stack([units.alive for units in each]).any(0)
    strength = torch.stack([units.strength for units in each]).sum(0)

    def keep_some(kept: Tensor) -> None:
        keep(stack, "lower_bounds", kept, 1)
        for block in stack.blocks:
            keep_hgrn_states(block.mixer, kept)

    return Units(name, alive, strength, None, keep_some, "the norms of a stack share one eps")


def _hgrn_states(layer: HGRN, name: str) -> Units:
    per_state = layer.i_proj.out_features // layer.d_state
    with torch.no_grad():
        rows = layer.i_proj.weight.view(layer.d_state, per_state, -1)
        silent = (rows == 0).flatten(1).all(1)
        if layer.i_proj.bias is not None:
            silent &= (layer.input_activation(layer.i_proj.bias) == 0).view(-1, per_state).all(1)
        fed = rows.square().sum((1, 2))
        gates = layer.g_proj.weight.square().sum(1).view(-1, per_state).sum(1)
        reads = layer.o_proj.weight.square().sum(0).view(-1, per_state).sum(1)
    strength = (fed * gates * reads) ** (1 / 3)
    alive = _one_at_least(~silent)
    if isinstance(layer.norm, nn.LayerNorm):
        keep_some = lambda kept: keep_hgrn_states(layer, kept)  # noqa: E731
        return Units(name, alive, strength, None, keep_some, "the mean of its layer norm counts every state")
    keep_moving = lambda kept: _keep_moving_states(layer, kept)  # noqa: E731
    return Units(name, alive, strength, keep_moving, keep_moving)


def _keep_moving_states(layer: HGRN, kept: Tensor) -> None:
    """Leave out states that are always zero, or count as such; the mean square counts them all the same.

    With s the sum of squares, s / n + eps = (m / n) (s / m + eps n / m): the norm over the m states that stay
    has n / m times the eps, and its weight takes the root.
    """
    share = layer.d_state / len(kept)
    keep_hgrn_states(layer, kept)
    with torch.no_grad():
        layer.norm.weight.mul_(share**0.5)
    scale_eps(layer, share)  # which lrnn.prune.adopt_sizes knows


def _glu_units(layer: GLU, name: str) -> Units:
    with torch.no_grad():
        gated, up = _active(layer.gate_proj, layer.activation), _active(layer.up_proj, nn.Identity())
        alive = gated & up & (layer.down_proj.weight != 0).any(0)
        squares = [layer.gate_proj.weight.square().sum(1), layer.up_proj.weight.square().sum(1)]
        strength = (squares[0] * squares[1] * layer.down_proj.weight.square().sum(0)) ** (1 / 3)
    keep_some = lambda kept: keep_glu_units(layer, kept)  # noqa: E731
    return Units(name, _one_at_least(alive), strength, keep_some, keep_some)


def _active(linear: nn.Linear, activation: nn.Module) -> Tensor:
    """Which outputs of activation(linear) are not always zero."""
    active = (linear.weight != 0).any(1)
    return active if linear.bias is None else active | (activation(linear.bias) != 0)


def _one_at_least(alive: Tensor) -> Tensor:
    alive = alive.clone()
    alive[0] |= not alive.any()
    return alive
