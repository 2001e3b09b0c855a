"""The `lrnn` command. Each of its commands is a module here with `add(commands)` and `run(args) -> int`."""

from __future__ import annotations

import argparse
import os
import sys
from importlib import import_module

COMMANDS = (
    "demo",
    "denoise",
    "listen",
    "fit",
    "curves",
    "generate",
    "eval",
    "prune",
    "quantize",
    "compile",
    "export",
    "profile",
    "bench",
    "info",
)


def make_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = argparse.ArgumentParser(prog="lrnn", description=import_module("lrnn").__doc__.splitlines()[0])
    parser.add_argument("--debug", action="store_true", help="show a traceback where a command fails")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in COMMANDS:
        import_module(f"lrnn.cli.{name}").add(commands)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run one command; errors are one line on stderr and exit status 2."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["fit"]:  # its options belong to LightningCLI, --help included
        args = argparse.Namespace(
            run=import_module("lrnn.cli.fit").run, rest=argv[1:], debug="--debug" in argv
        )
        args.rest = [a for a in args.rest if a != "--debug"]
    else:
        args = make_parser().parse_args(argv)
    try:
        return args.run(args)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
        )  # the reader went away; nothing to tell it
        return 1
    except (ValueError, TypeError, OSError, ImportError, RuntimeError) as error:
        if args.debug:
            raise
        text = " ".join(line.strip() for line in str(error).splitlines())  # torch's take several
        print(f"lrnn: error: {text}", file=sys.stderr)
        return 2
