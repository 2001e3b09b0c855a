"""`lrnn export TARGET`: a program in the form of another system."""

from __future__ import annotations

from importlib import import_module

TARGETS = ("lava", "netx", "step")


def add(commands) -> None:
    """Declare the command; each target is a module here, `export_TARGET`."""
    parser = commands.add_parser("export", help="write a program in the form of another system")
    targets = parser.add_subparsers(dest="target", metavar="TARGET", required=True)
    for name in TARGETS:
        import_module(f"lrnn.cli.export_{name}").add(targets)
