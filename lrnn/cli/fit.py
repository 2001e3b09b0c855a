"""`lrnn fit -c RECIPE.yaml`: train, and prune on the way, with Lightning. All options are LightningCLI's."""

from __future__ import annotations

import argparse


def add(commands) -> None:
    """Declare the command for `lrnn --help`; its own options, --help included, are parsed by LightningCLI."""
    parser = commands.add_parser("fit", help="train from a YAML recipe (LightningCLI)", add_help=False)
    parser.add_argument("rest", nargs=argparse.REMAINDER)
    parser.set_defaults(run=run)


def run(args) -> int:
    """Train."""
    try:
        from lrnn.train.cli import fit
    except ModuleNotFoundError as error:
        raise ImportError(f"fit needs {error.name}: pip install 'lrnn[train]'") from None
    return fit(args.rest)
