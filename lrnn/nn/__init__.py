"""Layers and models: plain modules that know nothing of devices, kernels or compression."""

from lrnn.nn.block import S5Block, S5Stack, TimeDropout
from lrnn.nn.config import HGRNBlockConfig, HGRNOptions, S5BlockConfig, S5Options, SequenceModelConfig
from lrnn.nn.hgrn import HGRN
from lrnn.nn.hgrn_stack import HGRNBlock, HGRNStack, from_fla
from lrnn.nn.language import LanguageModel, LanguageModelConfig
from lrnn.nn.model import SequenceModel
from lrnn.nn.norm import BatchNorm
from lrnn.nn.rnn import LRNN
from lrnn.nn.s5 import S5
from lrnn.nn.sparse_linear import SparseLinear

__all__ = [
    "HGRN",
    "LRNN",
    "S5",
    "BatchNorm",
    "HGRNBlock",
    "HGRNBlockConfig",
    "HGRNOptions",
    "HGRNStack",
    "LanguageModel",
    "LanguageModelConfig",
    "S5Block",
    "S5BlockConfig",
    "S5Options",
    "S5Stack",
    "SequenceModel",
    "SequenceModelConfig",
    "SparseLinear",
    "TimeDropout",
    "from_fla",
]
