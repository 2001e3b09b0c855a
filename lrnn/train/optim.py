"""The optimiser of the paper's recipe: parameter groups and the learning-rate schedule.

Source: Pierro et al. (2025) train every S5 parameter with Adam at a lower rate and without decay, and
everything else with AdamW; each rate warms up linearly and then follows a cosine to its minimum.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, Literal

import torch
from torch import nn

from lrnn.nn import S5, HGRNStack

Decay = Literal["matrices", "all"]


def warmup_cosine(
    step: int, lr: float, warmup: int, total: int, lr_min: float = 0.0, cycles: int = 1
) -> float:
    """Learning rate of optimiser step `step` (0 is the first).

    Linear from lr / warmup at step 0 to `lr` at step `warmup`, then half a cosine down to `lr_min` at the end
    of the cycle; with `cycles` > 1 the whole shape, warm-up included, is repeated (warm restarts). From
    `total` on it is `lr_min`.

    Args:
        step: optimiser step, from 0.
        lr: peak.
        warmup: steps of warm-up in each cycle, less than total / cycles.
        total: steps of all cycles together.
        lr_min: value at the end of each cycle.
        cycles: number of equal cycles.
    """
    length = total / cycles
    if not 0 <= warmup < length:
        raise ValueError(f"warmup is {warmup} steps, expected 0 <= warmup < total / cycles = {length:g}")
    if step >= total:
        return lr_min
    step = step % length
    if step < warmup:
        return lr / warmup + (lr - lr / warmup) * step / warmup
    progress = (step - warmup) / (length - warmup)
    return lr_min + (lr - lr_min) * 0.5 * (1.0 + math.cos(math.pi * progress))


def parameter_groups(
    model: nn.Module, lr: float, ssm_lr: float, weight_decay: float, decay: Decay = "matrices"
) -> list[dict]:
    """Optimiser groups, each with its `name`, `lr` and `weight_decay`; empty groups are left out.

    - "ssm": every parameter of an `lrnn.S5` (B, C, D, Lambda_re, Lambda_im, log_step) at `ssm_lr`, never
      decayed.
    - "decayed": at `lr` with `weight_decay`: with decay="matrices" what has two axes or more, but not the
      lower bounds of an `lrnn.HGRNStack`; with "all", as in the paper's code, every other parameter, biases
      and norms included.
    - "plain": the rest at `lr`.

    Masks that are attached as parametrizations change nothing: a dense weight belongs to the group of its
    layer.
    """
    if decay not in ("matrices", "all"):
        raise ValueError(f"decay is {decay!r}, expected 'matrices' or 'all'")
    bounds = {id(module.lower_bounds) for module in model.modules() if isinstance(module, HGRNStack)}
    ssm = {id(p) for module in model.modules() if isinstance(module, S5) for p in module.parameters()}
    groups = {
        "ssm": {"lr": ssm_lr, "weight_decay": 0.0, "params": []},
        "decayed": {"lr": lr, "weight_decay": weight_decay, "params": []},
        "plain": {"lr": lr, "weight_decay": 0.0, "params": []},
    }
    for parameter in model.parameters():
        if not parameter.requires_grad:
            continue
        if id(parameter) in ssm:
            name = "ssm"
        else:
            is_matrix = parameter.ndim > 1 and id(parameter) not in bounds
            name = "decayed" if decay == "all" or is_matrix else "plain"
        groups[name]["params"].append(parameter)
    return [{"name": name, **group} for name, group in groups.items() if group["params"]]


def scheduler(
    optimizer: torch.optim.Optimizer, warmup: int, total: int, lr_min: float = 0.0, cycles: int = 1
) -> torch.optim.lr_scheduler.LambdaLR:
    """`warmup_cosine` for each group of `optimizer`, with the group's lr as its peak."""
    peaks = [group["lr"] for group in optimizer.param_groups]
    return torch.optim.lr_scheduler.LambdaLR(
        optimizer, [partial(_factor, peak, warmup, total, lr_min, cycles) for peak in peaks]
    )


def _factor(peak: float, warmup: int, total: int, lr_min: float, cycles: int, step: int) -> float:
    """The schedule as a multiple of its peak: what LambdaLR wants of a function of the step."""
    return warmup_cosine(step, peak, warmup, total, lr_min, cycles) / peak


def optimizer_and_schedule(
    model: nn.Module,
    total: int | float,
    lr: float,
    ssm_lr: float,
    weight_decay: float,
    decay: Decay = "matrices",
    warmup: float = 0.03,
    lr_min: float = 0.0,
    cycles: int = 1,
) -> dict[str, Any]:
    """What a LightningModule's configure_optimizers returns: AdamW over `parameter_groups`, and the warm-up
    and cosine over `total` optimiser steps, with a warm-up of the share `warmup` of each cycle.

    Raises:
        ValueError: `total` is infinite.
    """
    if total == float("inf"):
        raise ValueError("trainer has neither max_steps nor max_epochs: the schedule needs an end")
    groups = parameter_groups(model, lr, ssm_lr, weight_decay, decay)
    optimizer = torch.optim.AdamW(groups, lr=lr, fused=True)
    schedule = scheduler(optimizer, round(warmup * total / cycles), int(total), lr_min, cycles)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
