"""How the sparsity of the whole is shared out among its tensors."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

Distribution = Literal["erk", "uniform", "global"]


def uniform(shapes: dict[str, tuple[int, ...]], sparsity: float) -> dict[str, float]:
    """The same sparsity for each tensor."""
    return dict.fromkeys(shapes, sparsity)


def erk(shapes: dict[str, tuple[int, ...]], sparsity: float) -> dict[str, float]:
    """Erdős-Rényi-kernel: density in proportion to sum(shape) / prod(shape), capped at 1.

    Evci et al. 2020, section 3. All axes count, as in jaxpruner: B (P, H, 2) of an S5 has P + H + 2 over 2 P
    H. Small and thin tensors stay denser.

    Args:
        shapes: shape of each tensor by name.
        sparsity: zeros over elements, of all tensors together.

    Returns:
        Sparsity of each tensor; sum(sparsity_i * numel_i) = sparsity * numel to within one element per
        tensor.
    """
    numel = {name: math.prod(shape) for name, shape in shapes.items()}
    zeros = {name: math.floor(sparsity * n) for name, n in numel.items()}
    raw = {name: sum(shape) / numel[name] for name, shape in shapes.items()}
    dense: set[str] = set()
    while len(dense) < len(shapes):
        rest = [name for name in shapes if name not in dense]
        # What is kept of the rest pays for the zeros that the dense tensors do not have.
        kept = sum(numel[name] - zeros[name] for name in rest) - sum(zeros[name] for name in dense)
        epsilon = kept / sum(raw[name] * numel[name] for name in rest)
        capped = {name for name in rest if epsilon * raw[name] > 1}
        if not capped:
            return {name: 0.0 if name in dense else 1.0 - epsilon * raw[name] for name in shapes}
        dense |= capped
    return dict.fromkeys(shapes, 0.0)


def global_magnitude(scores: dict[str, Tensor], numel: dict[str, int], sparsity: float) -> dict[str, float]:
    """One threshold on the scores of all tensors.

    The scores are compared as they are, so a tensor whose weights are all small (C and B_bar of an S5 beside
    a Linear) goes almost empty; "erk" is the default for that reason.

    Args:
        scores: score of each mask entry, by tensor.
        numel: elements of each tensor; an entry of its mask covers numel / scores.numel() of them.
        sparsity: zeros over elements, of all tensors together.

    Returns:
        Sparsity of each tensor.
    """
    flat = torch.cat([s.flatten().double().cpu() for s in scores.values()])
    width = torch.cat([torch.full((s.numel(),), numel[name] // s.numel()) for name, s in scores.items()])
    order = flat.argsort(descending=True, stable=True)
    budget = round(sum(numel.values()) * (1.0 - sparsity))
    kept = torch.zeros(len(flat), dtype=torch.bool)
    kept[order] = width[order].cumsum(0) <= budget
    parts = kept.split([s.numel() for s in scores.values()])
    return {name: 1.0 - part.sum().item() / len(part) for name, part in zip(scores, parts, strict=True)}


def rest_sparsity(numel: dict[str, int], fixed: dict[str, float], sparsity: float) -> float:
    """Sparsity that is left to the tensors without a fixed one, so that all together have `sparsity`.

    Args:
        numel: elements of each tensor.
        fixed: sparsity of those that have one of their own.
        sparsity: zeros over elements, of all tensors together.

    Raises:
        ValueError where the fixed ones leave the others too few zeros or too many.
    """
    if not fixed:
        return sparsity
    zeros = sparsity * sum(numel.values()) - sum(fixed[name] * numel[name] for name in fixed)
    room = sum(n for name, n in numel.items() if name not in fixed)
    if room == 0:
        raise ValueError("overrides fix the sparsity of every tensor; leave one to make up for the others")
    if not 0 <= zeros / room < 1:
        raise ValueError(
            f"overrides put a sparsity of {sparsity} in all out of reach: the other tensors would need "
            f"{zeros / room:.3f}, expected 0 or more and less than 1"
        )
    return zeros / room
