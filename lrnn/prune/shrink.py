"""shrink: what pruning has cut off is taken out, and the model computes what it did before.

A channel goes where every weight that reads it is zero; or where every weight that makes it is, for then it
is a constant, which is folded into the biases of its readers. Channels that are joined, by a residual sum or
a gate, go together: torch-pruning's dependency graph says which. Units inside layers, the states of an S5,
go by lrnn.prune.units.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import torch
from torch import nn

from lrnn.prune.cost import Cost, cost
from lrnn.prune.dependency import (
    ACROSS,
    Example,
    Group,
    check_plain,
    evaluating,
    outputs,
    tensors,
    trace,
)
from lrnn.prune.removable import Removable
from lrnn.prune.sizes import example_of, record_sizes
from lrnn.prune.units import units_of

_TOLERANCE = {torch.float64: 1e-10, torch.float16: 4e-3, torch.bfloat16: 3e-2}
"""Largest change of an output, relative to its largest value, that is rounding; 1e-5 for other types."""


@dataclass
class Shrunk:
    """What `shrink` did.

    Attributes:
        removed: how many units there were and how many are left, by name of the layer.
        left: why units without a use stayed, by name of the layer.
        before, after: costs; multiply-accumulates are those of one frame of lrnn's models, else of a run on
            the example.
    """

    before: Cost
    after: Cost
    removed: dict[str, tuple[int, int]] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [f"{name}: {was} -> {now}" for name, (was, now) in self.removed.items()] or [
            "nothing to remove"
        ]
        lines += [f"{name}: left, {reason}" for name, reason in self.left.items()]
        for name in ("parameters", "bytes", "macs", "macs_weights"):
            was, now = getattr(self.before, name), getattr(self.after, name)
            lines.append(f"{name}: {was:,} -> {now:,} ({100 * now / max(1, was):.1f} %)")
        return "\n".join(lines)


def shrink(model: nn.Module, example: Example | None = None) -> Shrunk:
    """Take out of a pruned model, in place, the states and widths that nothing reads or nothing feeds.

        lrnn.prune.bake(model)
        print(lrnn.shrink(model))

    Outputs in evaluation mode are the same, to rounding, and so are the states that are carried on, but for
    those that are gone; every step is checked on the example. Layers of one model may have different sizes
    afterwards: `model.config` of lrnn's models says which, and save and load hold. For a model of your own
    see `lrnn.prune.adopt_sizes`. Make optimisers afterwards.

    Args:
        model: any module, its masks baked. Linear layers, convolutions, embeddings, batch norms and lrnn's
            layers are understood; what others read or make stays as it is.
        example: what it runs on, a tensor or the tuple of its positional arguments; None makes a frame for
            lrnn's models.

    Raises:
        ImportError: torch-pruning is not installed.
        ValueError: parametrizations are left, or there is no example, an empty one, or one of equal numbers.
    """
    check_plain(model)
    counted = example_of(model, 1, 1) if example is None else example
    example = example_of(model) if example is None else example
    _check_varied(example)
    before = cost(model, counted)
    widths: dict[str, tuple[int, int]] = {}
    left: dict[str, str] = {}
    changed = True
    while changed:  # what is gone read and fed others
        left.clear()
        changed = _drop_units(model, widths, left)
        changed |= _drop_channels(model, example, widths, left)
    return Shrunk(before, cost(model, counted), widths, left)


def _check_varied(example: Example) -> None:
    for x in tensors(example):
        if not x.numel():
            raise ValueError(f"example: found a tensor of shape {tuple(x.shape)}, expected one with numbers")
        if x.is_floating_point() and bool((x == x.flatten()[0]).all()):
            raise ValueError("example: found a tensor of equal numbers, expected varied ones (torch.randn)")


def _note(widths: dict[str, tuple[int, int]], name: str, was: int, now: int) -> None:
    widths[name] = (widths.get(name, (was, now))[0], now)


def _drop_units(model: nn.Module, widths: dict, left: dict) -> bool:
    changed = False
    for units in list(units_of(model)):
        if units.alive.all():
            continue
        if units.keep_exactly is None:
            left[units.name] = units.obstacle
            continue
        kept = units.alive.nonzero().flatten()
        units.keep_exactly(kept)
        record_sizes(model)
        _note(widths, units.name, len(units.alive), len(kept))
        changed = True
    return changed


def _drop_channels(model: nn.Module, example: Example, widths: dict, left: dict) -> bool:
    """Remove what one trace of the model allows; whether anything was."""
    traced = trace(model, example)
    touched: set[tuple[str, str]] = set()  # sides of layers whose channels have new numbers since
    for group in traced.groups:
        sides = {(m.path, "out") for m in group.members if m.makes}
        sides |= {(m.path, "in") for m in group.members if m.reads}
        if sides & touched:
            continue
        found = Removable.of(group, traced.inputs)
        if not found.channels or group.is_output:
            continue
        name = f"{group.name} channels"
        reason = group.barrier or _mixing(group)
        if not reason:
            trial = copy.deepcopy(model)
            found.apply(trial)
            reason = _difference(model, trial, example)
        if reason:
            left[name] = reason
            continue
        found.apply(model)
        _note(widths, name, group.width, group.width - len(found.channels))
        touched |= sides
    return bool(touched)


def _mixing(group: Group) -> str:
    for member in group.members:
        if isinstance(member.layer, ACROSS):
            return f"{member.path}, a {type(member.layer).__name__}, makes every channel depend on all"
    return ""


@torch.no_grad()
def _difference(model: nn.Module, trial: nn.Module, example: Example) -> str:
    """Why the trial does not stand for the model, or ""."""
    try:
        with evaluating(model), evaluating(trial):
            wanted, found = outputs(model, example), outputs(trial, example)
    except (RuntimeError, ValueError, IndexError) as error:
        return f"without it the model does not run ({str(error).splitlines()[0]})"
    for a, b in zip(wanted, found, strict=True):
        if not a.is_floating_point():
            continue
        allowed = _TOLERANCE.get(a.dtype, 1e-5) * max(1.0, a.abs().max().item())
        if a.shape != b.shape or not (a - b).abs().max().item() <= allowed:
            return "without it the model computes something else"
    return ""
