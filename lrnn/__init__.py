"""lrnn: linear recurrent networks made small and fast for the edge.

`import lrnn` needs torch only. What needs more (safetensors, lightning, soundfile) is imported where it is
first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lrnn.nn import (
    HGRN,
    LRNN,
    S5,
    HGRNBlock,
    HGRNBlockConfig,
    HGRNOptions,
    HGRNStack,
    LanguageModel,
    LanguageModelConfig,
    S5Block,
    S5BlockConfig,
    S5Options,
    SequenceModel,
    SequenceModelConfig,
    SparseLinear,
)
from lrnn.ops import SparsePattern, SparseWeight, backends, scan, sparse_linear

if TYPE_CHECKING:
    from lrnn.data.denoiser import Denoiser
    from lrnn.data.spotter import KeywordSpotter
    from lrnn.nn.hub import HubMixin
    from lrnn.program import Program, calibrate, compile, compile_fixed, load
    from lrnn.prune import Pruner, shrink, sparsify
    from lrnn.train.prune import Prune
    from lrnn.train.quant import QuantizationAware

__version__ = "0.1.0"

_LATER = {
    "Program": "lrnn.program",
    "calibrate": "lrnn.program",
    "compile": "lrnn.program",
    "compile_fixed": "lrnn.program",
    "load": "lrnn.program",
    "Denoiser": "lrnn.data.denoiser",
    "KeywordSpotter": "lrnn.data.spotter",
    "HubMixin": "lrnn.nn.hub",
    "Pruner": "lrnn.prune",
    "shrink": "lrnn.prune",
    "sparsify": "lrnn.prune",
    "Prune": "lrnn.train.prune",
    "QuantizationAware": "lrnn.train.quant",
}

_PACKAGES = ("data", "engine", "export", "profile", "program", "prune", "quant", "train")

__all__ = [
    "HGRN",
    "LRNN",
    "S5",
    "Denoiser",
    "HGRNBlock",
    "HGRNBlockConfig",
    "HGRNOptions",
    "HGRNStack",
    "HubMixin",
    "KeywordSpotter",
    "LanguageModel",
    "LanguageModelConfig",
    "Program",
    "Prune",
    "Pruner",
    "QuantizationAware",
    "S5Block",
    "S5BlockConfig",
    "S5Options",
    "SequenceModel",
    "SequenceModelConfig",
    "SparseLinear",
    "SparsePattern",
    "SparseWeight",
    "backends",
    "calibrate",
    "compile",
    "compile_fixed",
    "load",
    "scan",
    "shrink",
    "sparse_linear",
    "sparsify",
]


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(import_module(_LATER[name]), name)
    if name in _PACKAGES:
        return import_module(f"lrnn.{name}")
    raise AttributeError(f"module 'lrnn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_LATER, *_PACKAGES])
