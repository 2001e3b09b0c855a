"""Unstructured pruning: when (schedule), what (score), how much of each tensor (distribution), how (mask).

The cut is jaxpruner's (Lee et al. 2023). `Pruner` puts the four together and knows nothing of trainers;
`lrnn.Prune` drives it from Lightning. `dead_units` tells what pruning has cut off, `sweep` takes away what
that leaves without effect, and `shrink` makes the layers smaller by it. `structured` removes whole channels
and states: the baseline.
"""

from lrnn.prune.cost import Cost, cost
from lrnn.prune.distribution import Distribution, erk, global_magnitude, uniform
from lrnn.prune.health import DeadUnits, dead_units
from lrnn.prune.mask import Mask, attach_masks, bake
from lrnn.prune.pruner import Mode, Pruner, prune_once
from lrnn.prune.schedule import (
    ConstantSchedule,
    CubicSchedule,
    LinearSchedule,
    OneShotSchedule,
    Schedule,
    ScheduleName,
    make_schedule,
)
from lrnn.prune.score import Score, keep_largest, score
from lrnn.prune.shrink import Shrunk, shrink
from lrnn.prune.sizes import adopt_sizes
from lrnn.prune.sparsify import Sparsified, sparsify
from lrnn.prune.structured import Structured, structured
from lrnn.prune.sweep import sweep

__all__ = [
    "ConstantSchedule",
    "Cost",
    "CubicSchedule",
    "DeadUnits",
    "Distribution",
    "LinearSchedule",
    "Mask",
    "Mode",
    "OneShotSchedule",
    "Pruner",
    "Schedule",
    "ScheduleName",
    "Score",
    "Shrunk",
    "Sparsified",
    "Structured",
    "adopt_sizes",
    "attach_masks",
    "bake",
    "cost",
    "dead_units",
    "erk",
    "global_magnitude",
    "keep_largest",
    "make_schedule",
    "prune_once",
    "score",
    "shrink",
    "sparsify",
    "structured",
    "sweep",
    "uniform",
]
