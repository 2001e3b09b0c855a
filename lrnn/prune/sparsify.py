"""sparsify: a pruned model's dense layers become layers that hold and multiply their nonzero weights only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from lrnn.nn import SparseLinear
from lrnn.prune import mask
from lrnn.prune.dependency import parameter_uses
from lrnn.prune.weights import matches


@dataclass(frozen=True)
class Sparsified:
    """What `sparsify` did, by name of the layer.

    Attributes:
        replaced: the new layers.
        left: why a layer stayed as it was.
    """

    replaced: dict[str, SparseLinear] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [
            f"{name}: {layer.out_features} x {layer.in_features}, {100 * layer.density:.1f} % of it kept"
            for name, layer in self.replaced.items()
        ]
        return "\n".join(lines + [f"{name}: left dense, {reason}" for name, reason in self.left.items()])


def sparsify(
    module: nn.Module,
    density: float | None = None,
    names: Sequence[str] = ("*",),
    least_sparsity: float = 0.5,
) -> Sparsified:
    """Replace the nn.Linear layers of a module by SparseLinear, in place.

    A layer masked by `lrnn.Prune` keeps what its mask keeps, any other what is not zero; the masks go. Make
    optimisers afterwards: the parameters are new ones. Shared layers stay shared.

    Args:
        module: holds the layers; not an nn.Linear itself (see `SparseLinear.from_dense`).
        density: share of weights to keep in every layer, the largest; None takes the zeros as they are.
        names: globs of names of layers, or of modules they are in; the others are not looked at.
        least_sparsity: layers with a smaller share of zeros stay dense: too few to gain from.

    Raises:
        TypeError: module is an nn.Linear.
        ValueError: a glob matches no nn.Linear, or an option is out of range.
    """
    if isinstance(module, nn.Linear):
        raise TypeError("module: found an nn.Linear, expected a module that holds some")
    for name, value in (("least_sparsity", least_sparsity), ("density", density)):
        if value is not None and not 0 <= value <= 1:
            raise ValueError(f"{name} is {value}, expected 0 to 1")
    layers = {name: m for name, m in module.named_modules(remove_duplicate=False) if isinstance(m, nn.Linear)}
    for pattern in names:
        if not any(matches(name, pattern) for name in layers):
            raise ValueError(f"names has the pattern {pattern!r}, which matches no nn.Linear of the module")
    chosen = {n: layer for n, layer in layers.items() if any(matches(n, p) for p in names)}
    uses, report = parameter_uses(module), Sparsified()
    made: dict[nn.Linear, SparseLinear] = {}
    for name, layer in chosen.items():
        kept = None if density is not None else _kept(layer)
        reason = _obstacle(layer, uses) or (_too_dense(kept, least_sparsity) if kept is not None else "")
        if reason:
            report.left[name] = reason
            continue
        if layer not in made:
            made[layer] = SparseLinear.from_dense(layer, density, kept)
        report.replaced[name] = made[layer]
    for name, layer in layers.items():  # by all its names, chosen or not
        if layer in made:
            module.set_submodule(name, made[layer])
    return report


def _kept(layer: nn.Linear) -> Tensor:
    found = mask.find(layer, "weight")
    if found is not None:
        return found.mask.expand(layer.weight.shape)
    return layer.weight.detach() != 0


def _too_dense(kept: Tensor, least_sparsity: float) -> str:
    sparsity = 1 - kept.sum().item() / max(1, kept.numel())
    if sparsity >= least_sparsity:
        return ""
    return f"{100 * sparsity:.1f} % zeros, expected at least {100 * least_sparsity:g} %"


def _obstacle(layer: nn.Linear, uses: dict[int, int]) -> str:
    """Why this layer cannot be replaced, or ""."""
    if isinstance(layer, nn.modules.linear.NonDynamicallyQuantizableLinear):
        return "its weight is read by nn.MultiheadAttention itself"
    base = parametrize.type_before_parametrizations(layer)
    if base is not nn.Linear:
        return f"a {base.__name__}, expected a plain nn.Linear"
    if layer.weight.dtype not in (torch.float32, torch.float64):
        return f"weights are {layer.weight.dtype}, expected float32 or float64"
    stacks = getattr(layer, "parametrizations", {})
    for name, stack in stacks.items():
        for one in stack:
            if not (name == "weight" and isinstance(one, mask.Mask)):
                return f"{name} is parametrized by {type(one).__name__}"
    owned = [p for holder in layer.modules() for p in holder._parameters.values() if p is not None]
    if any(uses[id(p)] > 1 for p in owned):
        return "a parameter is shared with another module"
    return ""
