"""LightningCLI for `lrnn fit`: a recipe names module, data and callbacks; every value can be overridden."""

from __future__ import annotations

import argparse
import logging
import sys
import warnings
from pathlib import Path

import lightning as L
import torch
from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from lrnn.memory import keep_freed_memory
from lrnn.train.callbacks import ReportProgress
from lrnn.train.checkpoint_io import WholeCheckpointIO
from lrnn.train.resume import Resumable
from lrnn.train.runs import take_up

EXPECTED_WARNINGS = (
    ".*does not have many workers",  # mixing takes milliseconds
    "LightningCLI's args parameter",  # args are what is left of the command line
    "You're resuming from a checkpoint that ended before",  # DenoiseData goes on where it was
    ".*treespec, LeafSpec",  # Lightning 2.6 on torch 2.13
)


class FitCLI(LightningCLI):
    """LightningCLI without subcommands, with checkpoints that are whole, and `--ckpt_path` to resume."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add what `Trainer.fit` takes."""
        parser.add_argument(
            "--ckpt_path",
            type=str | None,
            default=None,
            help="checkpoint to go on from, in the folder of its run; 'last' is the newest of the newest run",
        )

    def instantiate_trainer(self, **kwargs) -> L.Trainer:
        """Add WholeCheckpointIO, unless the recipe brings a CheckpointIO of its own."""
        plugins = self.config_init.trainer.plugins or []
        plugins = plugins if isinstance(plugins, list) else [plugins]
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            plugins = [*plugins, WholeCheckpointIO()]
        return super().instantiate_trainer(**{"plugins": plugins, **kwargs})


def make_cli(args: list[str]) -> FitCLI:
    """Parse a recipe and build its module, data and trainer; nothing runs yet.

    Without a terminal on stderr a line per validation replaces the progress bar.

    Raises:
        ValueError, one line, that says what is wrong with the recipe or a value in it.
    """
    trainer_defaults = {
        "max_epochs": -1,  # recipes count steps
        "enable_model_summary": False,  # it goes to stdout, which is for results
        "callbacks": [Resumable()],
    }
    if not sys.stderr.isatty():
        trainer_defaults |= {"enable_progress_bar": False}
        trainer_defaults["callbacks"].append(ReportProgress())
    parser_options = {
        "prog": "lrnn fit",
        "description": "Train from a YAML recipe: lrnn fit -c RECIPE.yaml",
        "exit_on_error": False,
    }
    try:
        return FitCLI(
            L.LightningModule,
            L.LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            trainer_defaults=trainer_defaults,
            parser_kwargs=parser_options,
            save_config_kwargs={"overwrite": True},
            run=False,
            args=args,
        )
    except (argparse.ArgumentError, ValueError) as error:
        raise ValueError(_one_line(str(error))) from error


def _one_line(message: str) -> str:
    """What jsonargparse means to say: its report without the list of types that it tried."""
    tried = ("Does not validate", "Subtypes:", "Errors:", "Expected a <class 'NoneType'>", "Given value")
    lines = [line.strip().removeprefix("- ") for line in message.splitlines()]
    return " ".join(line for line in lines if line and not line.startswith(tried))


def fit(args: list[str]) -> int:
    """Run a recipe to its end."""
    for message in EXPECTED_WARNINGS:
        warnings.filterwarnings("ignore", message=message)
    advertising = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    advertising.addFilter(lambda record: "Tip:" not in record.getMessage())
    keep_freed_memory()
    cli = make_cli(args)
    wanted = cli.config.ckpt_path
    checkpoint = None if wanted is None else take_up(cli.trainer, wanted)
    cli.trainer.fit(cli.model, cli.datamodule, ckpt_path=checkpoint)
    print(f"files are in {Path(cli.trainer.log_dir or cli.trainer.default_root_dir)}", file=sys.stderr)
    if torch.distributed.is_initialized():
        # Gloo's threads, left to the interpreter's exit, now and then abort it after all is done.
        torch.distributed.destroy_process_group()
    return 0
