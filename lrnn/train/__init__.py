"""Training with Lightning: modules, data modules, callbacks. Lightning is imported where it is needed."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lrnn.train.average import AverageWeights
    from lrnn.train.callbacks import ExportProgram, RecalibrateNorms, ReportProgress
    from lrnn.train.checkpoint import load_checkpoint
    from lrnn.train.checkpoint_io import WholeCheckpointIO
    from lrnn.train.datamodule import DenoiseData
    from lrnn.train.denoise import DenoiseModule
    from lrnn.train.keyword_data import KeywordData
    from lrnn.train.keywords import KeywordModule
    from lrnn.train.language import LanguageModule
    from lrnn.train.optim import parameter_groups, warmup_cosine
    from lrnn.train.plot import PlotSparsity
    from lrnn.train.prune import Prune
    from lrnn.train.quant import QuantizationAware
    from lrnn.train.resume import Resumable, ResumePoints
    from lrnn.train.text import TextData

_MODULES = {
    "AverageWeights": "average",
    "DenoiseData": "datamodule",
    "DenoiseModule": "denoise",
    "ExportProgram": "callbacks",
    "KeywordData": "keyword_data",
    "KeywordModule": "keywords",
    "LanguageModule": "language",
    "PlotSparsity": "plot",
    "Prune": "prune",
    "QuantizationAware": "quant",
    "RecalibrateNorms": "callbacks",
    "ReportProgress": "callbacks",
    "ResumePoints": "resume",
    "Resumable": "resume",
    "TextData": "text",
    "WholeCheckpointIO": "checkpoint_io",
    "load_checkpoint": "checkpoint",
    "parameter_groups": "optim",
    "warmup_cosine": "optim",
}

__all__ = [
    "AverageWeights",
    "DenoiseData",
    "DenoiseModule",
    "ExportProgram",
    "KeywordData",
    "KeywordModule",
    "LanguageModule",
    "PlotSparsity",
    "Prune",
    "QuantizationAware",
    "RecalibrateNorms",
    "ReportProgress",
    "Resumable",
    "ResumePoints",
    "TextData",
    "WholeCheckpointIO",
    "load_checkpoint",
    "parameter_groups",
    "warmup_cosine",
]


def __getattr__(name: str):
    if name in _MODULES:
        return getattr(import_module(f"lrnn.train.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'lrnn.train' has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *_MODULES])
