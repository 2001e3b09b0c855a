"""What a Program costs: parameters, multiply-accumulates, bytes; activity and time as measured."""

from lrnn.profile.count import NodeCost, count

__all__ = ["NodeCost", "count"]
