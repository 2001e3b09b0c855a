"""Training with Lightning: modules, data modules, callbacks. Lightning is imported where it is needed."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lrnn.train.callbacks import ExportProgram, RecalibrateNorms, ReportProgress
    from lrnn.train.checkpoint import load_checkpoint
    from lrnn.train.datamodule import DenoiseData
    from lrnn.train.denoise import DenoiseModule
    from lrnn.train.optim import parameter_groups, warmup_cosine
    from lrnn.train.prune import Prune

_MODULES = {
    "DenoiseData": "datamodule",
    "DenoiseModule": "denoise",
    "ExportProgram": "callbacks",
    "Prune": "prune",
    "RecalibrateNorms": "callbacks",
    "ReportProgress": "callbacks",
    "load_checkpoint": "checkpoint",
    "parameter_groups": "optim",
    "warmup_cosine": "optim",
}

__all__ = [
    "DenoiseData",
    "DenoiseModule",
    "ExportProgram",
    "Prune",
    "RecalibrateNorms",
    "ReportProgress",
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
