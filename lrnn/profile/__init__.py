"""What a Program costs: counts (parameters, multiply-accumulates, bytes), measured activity, measured time."""

from lrnn.profile.count import NodeCost, count

__all__ = ["NodeCost", "count"]
