"""Pruner: schedule, score, distribution and mask put together, one call per optimiser iteration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from lrnn.prune import mask
from lrnn.prune.distribution import Distribution, erk, global_magnitude, rest_sparsity, uniform
from lrnn.prune.health import DeadUnits, dead_units_of
from lrnn.prune.schedule import CubicSchedule, Schedule, make_schedule
from lrnn.prune.score import Score, keep_largest, mask_shape, n_kept, score
from lrnn.prune.weights import Weight, find_weights, match_overrides

Mode = Literal["ste", "paper"]
_UNSAID = {"overrides": {}, "score": "discretized", "schedule": "cubic"}  # in the first checkpoints


class Pruner:
    """Prunes the weights of any module by magnitude while it trains.

        pruner = Pruner(model, 0.9, schedule=CubicSchedule(100, 900), every=8).attach()
        for n, batch in enumerate(batches):
            pruner.step(n)
            ...                      # forward, backward, optimizer.step() as ever
        pruner.finalize()

    Every parameter with two axes or more is pruned; biases, norms and `log_step` never are. Frozen parameters
    (requires_grad=False) are pruned like the others. The masks are a function of the weights and the
    iteration alone, so that processes with equal weights choose equal masks.

    Args:
        module: the module; changed in place.
        sparsity: final share of zeros over the elements of all pruned tensors, 0 <= sparsity < 1.
        distribution: "erk", "uniform" or "global", see lrnn.prune.distribution.
        schedule: when, see lrnn.prune.schedule; the default prunes at the first step.
        every: iterations from one choice of masks to the next. The last choice falls on schedule.end, and
            then the masks are frozen.
        mode: "ste", straight-through masks over dense weights; or "paper", the rule of the paper's code, for
            parity: before every iteration the smallest of the *current* weights are set to zero in place, so
            that dense weights are lost and pruned ones hold no more than one update. There B is pruned by
            element, `log_step` counts as a weight, `every` is not used, the schedule runs one iteration ahead
            and nothing is ever frozen.
        exclude: globs of names of parameters or modules to leave dense; they count for nothing.
        overrides: sparsity of single tensors, by globs as in `exclude`; of several that match the last one
            counts. The others share what is left, so that all together have `sparsity`.
        score: what ranks the entries of B of an S5: "discretized", |B_bar|, or "magnitude", |B|; see
            lrnn.prune.score. All other weights are ranked by |w|.
    """

    def __init__(
        self,
        module: nn.Module,
        sparsity: float = 0.9,
        distribution: Distribution = "erk",
        schedule: Schedule = CubicSchedule(),  # noqa: B008  (frozen)
        every: int = 1,
        mode: Mode = "ste",
        exclude: Sequence[str] = (),
        overrides: Mapping[str, float] | None = None,
        score: Score = "discretized",
    ):
        check_options(sparsity, distribution, every, mode, exclude, overrides, score)
        self.module, self.sparsity, self.distribution = module, sparsity, distribution
        self.schedule, self.every, self.mode, self.score = schedule, every, mode, score
        self.exclude, self.overrides = tuple(exclude), dict(overrides or {})
        self.frozen = False
        self.weights: list[Weight] = []
        self._fixed: dict[str, float] = {}  # final sparsity of the tensors that overrides name
        self._rest = sparsity  # final sparsity of all others together
        self._last: int | None = None  # iteration of the last choice of masks

    def attach(self) -> Pruner:
        """Find the weights and, with mode "ste", put masks of ones on them; masks already there are kept.

        Parameters keep their identity, so an optimiser made before goes on working.
        """
        # To the paper's code a step size is a weight: it stores them as (P, 1) and prunes what has two axes.
        also = ("log_step",) if self.mode == "paper" else ()
        self.weights = find_weights(self.module, self.exclude, also)
        self._fixed = match_overrides(self.weights, self.overrides)
        numel = {weight.name: weight.dense.numel() for weight in self.weights}
        self._rest = rest_sparsity(numel, self._fixed, self.sparsity)
        for weight in self.weights:
            for owner, attribute in weight.places:
                if self.mode == "ste":
                    mask.attach(owner, attribute, mask_shape(owner, attribute, weight.dense))
                elif mask.find(owner, attribute) is not None:
                    raise ValueError(f"{weight.name} has a mask; bake it before pruning with mode='paper'")
        return self

    def step(self, iteration: int) -> bool:
        """Prune as far as the schedule asks; call it before the forward pass.

        Args:
            iteration: optimiser steps done so far. A call that repeats the last iteration (gradient
                accumulation) does nothing.

        Returns:
            Whether the masks were chosen anew.
        """
        self._check_attached()
        if self.frozen or not self._is_due(iteration):
            return False
        self._choose(self._fraction(iteration))
        self._last = iteration
        self.frozen = self.mode == "ste" and iteration >= self.schedule.end
        return True

    def _fraction(self, iteration: int) -> float:
        # The paper's code counts the step that is about to be made.
        return self.schedule.fraction(iteration + 1 if self.mode == "paper" else iteration)

    def _is_due(self, iteration: int) -> bool:
        if self.mode == "paper":
            return self._fraction(iteration) > 0
        if iteration < self.schedule.start:
            return False
        return iteration >= self.schedule.end or self._last is None or iteration - self._last >= self.every

    @torch.no_grad()
    def _choose(self, fraction: float) -> None:
        scores = {weight.name: self._score(weight) for weight in self.weights}
        targets = self._targets(scores, fraction)
        for weight in self.weights:
            scored = scores[weight.name]
            keep = keep_largest(scored, n_kept(scored.numel(), targets[weight.name]))
            if self.mode == "paper":
                weight.dense.masked_fill_(~keep, 0.0)
                continue
            for owner, attribute in weight.places:
                mask.find(owner, attribute).mask.copy_(keep)

    def _score(self, weight: Weight) -> Tensor:
        owner, attribute = weight.places[0]
        if self.mode == "paper":
            result = weight.dense.abs()
        else:
            result = score(owner, attribute, weight.dense, self.score)
        if not torch.isfinite(result).all():
            raise ValueError(f"{weight.name} holds NaN or infinity; its entries cannot be ranked")
        return result

    def _targets(self, scores: dict[str, Tensor], fraction: float) -> dict[str, float]:
        """Sparsity of each tensor at a fraction of the way."""
        fixed = {name: sparsity * fraction for name, sparsity in self._fixed.items()}
        rest = [weight for weight in self.weights if weight.name not in fixed]
        if self.distribution == "global":
            scores = {weight.name: scores[weight.name] for weight in rest}
            numel = {weight.name: weight.dense.numel() for weight in rest}
            return fixed | global_magnitude(scores, numel, self._rest * fraction)
        share_out = erk if self.distribution == "erk" else uniform
        final = share_out({weight.name: _shape(weight) for weight in rest}, self._rest)
        return fixed | {name: sparsity * fraction for name, sparsity in final.items()}

    def sparsities(self) -> dict[str, float]:
        """Share of exact zeros in each pruned weight, as the module computes with it."""
        self._check_attached()
        return {w.name: (w.effective == 0).sum().item() / w.effective.numel() for w in self.weights}

    def total_sparsity(self) -> float:
        """Share of exact zeros over all pruned weights together."""
        self._check_attached()
        zeros = sum((w.effective == 0).sum().item() for w in self.weights)
        return zeros / sum(w.effective.numel() for w in self.weights)

    def dead_units(self) -> dict[str, DeadUnits]:
        """What the masks have cut off in each pruned weight; see lrnn.prune.health."""
        self._check_attached()
        return dead_units_of(self.weights)

    def finalize(self) -> None:
        """Write the zeros into the weights and leave plain parameters under plain names; pruning is over."""
        self._check_attached()
        if self.mode == "paper" and not self.frozen and self._last is not None:
            self._choose(
                self._fraction(self._last)
            )  # the zeros of the last step hold the update that followed it
        for weight in self.weights:
            for owner, attribute in weight.places:
                if mask.find(owner, attribute) is not None:
                    mask.bake_one(owner, attribute)
        self.frozen = True

    def state_dict(self) -> dict[str, Any]:
        """Where the pruner stands, in plain values; the masks themselves are in the module's state dict."""
        return {
            "sparsity": self.sparsity,
            "distribution": self.distribution,
            "mode": self.mode,
            "exclude": list(self.exclude),
            "overrides": dict(self.overrides),
            "score": self.score,
            "schedule": self.schedule.name,
            "start": self.schedule.start,
            "end": self.schedule.end,
            "every": self.every,
            "last": -1 if self._last is None else self._last,
            "frozen": self.frozen,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken, on its schedule.

        Raises:
            ValueError where this pruner has another sparsity, distribution, mode, exclude, overrides, score
            or kind of schedule.
        """
        mine = self.state_dict()
        state = {"exclude": mine["exclude"], **_UNSAID, **state}
        for name in ("sparsity", "distribution", "mode", "exclude", *_UNSAID):
            if state[name] != mine[name]:
                raise ValueError(
                    f"{name} is {mine[name]!r}, but the checkpoint was pruned with {state[name]!r}"
                )
        if (state["start"], state["end"]) != (self.schedule.start, self.schedule.end):
            self.schedule = make_schedule(state["schedule"], int(state["start"]), int(state["end"]))
        self.every, self.frozen = int(state["every"]), bool(state["frozen"])
        self._last = None if state["last"] < 0 else int(state["last"])

    def _check_attached(self) -> None:
        if not self.weights:
            raise RuntimeError("the pruner is not attached; call attach() first")


def prune_once(
    module: nn.Module,
    sparsity: float = 0.9,
    distribution: Distribution = "erk",
    exclude: Sequence[str] = (),
    overrides: Mapping[str, float] | None = None,
    score: Score = "discretized",
) -> dict[str, float]:
    """Prune a module in one shot and bake it; returns each tensor's sparsity. Arguments as for Pruner."""
    pruner = Pruner(
        module, sparsity, distribution, exclude=exclude, overrides=overrides, score=score
    ).attach()
    pruner.step(0)
    pruner.finalize()
    return pruner.sparsities()


def check_options(
    sparsity: float,
    distribution: str,
    every: int,
    mode: str,
    exclude: Sequence[str],
    overrides: Mapping[str, float] | None,
    score: str,
) -> None:
    """Raise ValueError or TypeError that names the argument which Pruner could not use."""
    if not 0 <= sparsity < 1:
        raise ValueError(f"sparsity is {sparsity}, expected 0 <= sparsity < 1")
    if distribution not in get_args(Distribution):
        raise ValueError(f"distribution is {distribution!r}, expected one of {get_args(Distribution)}")
    if mode not in get_args(Mode):
        raise ValueError(f"mode is {mode!r}, expected one of {get_args(Mode)}")
    if score not in get_args(Score):
        raise ValueError(f"score is {score!r}, expected one of {get_args(Score)}")
    if every < 1:
        raise ValueError(f"every is {every}, expected at least 1")
    if isinstance(exclude, str):
        raise TypeError(f"exclude is the string {exclude!r}, expected a sequence of globs")
    for pattern, own in (overrides or {}).items():
        if not 0 <= own < 1:
            raise ValueError(f"overrides has {own} for {pattern!r}, expected 0 <= sparsity < 1")


def _shape(weight: Weight) -> tuple[int, ...]:
    """Shape as the distribution counts it; a step size counts as the (P, 1) of the paper's code."""
    shape = tuple(weight.dense.shape)
    return shape if len(shape) > 1 else (*shape, 1)
