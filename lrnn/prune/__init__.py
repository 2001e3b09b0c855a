"""Unstructured pruning: when (schedule), what (score), how much of each tensor (distribution), how (mask).

The cut is jaxpruner's (Lee et al. 2023). `Pruner` puts the four together and knows nothing of trainers;
`lrnn.Prune` drives it from Lightning.
"""

from lrnn.prune.distribution import Distribution, erk, global_magnitude, uniform
from lrnn.prune.mask import Mask, attach_masks, bake
from lrnn.prune.pruner import Mode, Pruner, prune_once
from lrnn.prune.schedule import CubicSchedule
from lrnn.prune.score import keep_largest, score

__all__ = [
    "CubicSchedule",
    "Distribution",
    "Mask",
    "Mode",
    "Pruner",
    "attach_masks",
    "bake",
    "erk",
    "global_magnitude",
    "keep_largest",
    "prune_once",
    "score",
    "uniform",
]
