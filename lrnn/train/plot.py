"""PlotSparsity: the picture of a run, drawn when it ends."""

from __future__ import annotations

from pathlib import Path

import lightning as L
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities import rank_zero_warn

from lrnn.profile.plot import pyplot
from lrnn.profile.plot_run import plot_run, read_log
from lrnn.train.prune import Prune


class PlotSparsity(L.Callback):
    """Draw sparsity per layer and learning curves into the run's folder when fit ends.

    Needs `lrnn.Prune` beside it and a CSVLogger, whose log it draws; `lrnn curves RUN` does the same for a
    run that is under way or was killed.

    Args:
        file: name of the picture; its suffix names the format.
    """

    def __init__(self, file: str = "sparsity.svg"):
        self.file = file

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Say what is missing before training, not after it."""
        if not any(isinstance(callback, Prune) for callback in trainer.callbacks):
            raise ValueError("PlotSparsity draws what lrnn.Prune logs, which is not among the callbacks")
        if _csv_logger(trainer) is None:
            raise ValueError("PlotSparsity draws the log of a CSVLogger, which is not among the loggers")
        pyplot()

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw; a run that has pruned nothing yet has no picture."""
        if not trainer.is_global_zero:
            return
        logger = _csv_logger(trainer)
        logger.save()
        try:
            plot_run(read_log(logger.log_dir), Path(logger.log_dir) / self.file)
        except ValueError as error:
            rank_zero_warn(f"no picture of this run: {error}")


def _csv_logger(trainer: L.Trainer) -> CSVLogger | None:
    return next((logger for logger in trainer.loggers if isinstance(logger, CSVLogger)), None)
