"""Layers and models: plain modules that know nothing of devices, kernels or compression."""

from lrnn.nn.block import S5Block, TimeDropout
from lrnn.nn.config import S5BlockConfig, S5Options, SequenceModelConfig
from lrnn.nn.model import SequenceModel
from lrnn.nn.norm import BatchNorm
from lrnn.nn.s5 import S5
from lrnn.nn.sparse_linear import SparseLinear

__all__ = [
    "S5",
    "BatchNorm",
    "S5Block",
    "S5BlockConfig",
    "S5Options",
    "SequenceModel",
    "SequenceModelConfig",
    "SparseLinear",
    "TimeDropout",
]
