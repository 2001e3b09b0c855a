"""`lrnn curves RUN`: the picture of a training run that prunes, finished or not."""

from __future__ import annotations

import json
import sys
from math import isfinite
from pathlib import Path


def add(commands) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "curves",
        help="draw a training run: sparsity per layer, learning curves",
        description="Draw what lrnn.Prune and the module logged to Lightning's CSVLogger.",
    )
    parser.add_argument("folder", metavar="RUN", help="folder of the run, with its metrics.csv")
    parser.add_argument(
        "-o", "--out", metavar="P.svg", help="the picture, .svg, .png or .pdf (default: RUN/sparsity.svg)"
    )
    parser.add_argument(
        "--metric",
        metavar="NAME",
        action="append",
        default=[],
        help="a learning curve to draw (default: those that were logged, three panels at most)",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.set_defaults(run=run)


def run(args) -> int:
    """Read the log, draw, say where."""
    from lrnn.profile.plot_run import plot_run, read_log

    folder = Path(args.folder)
    out = Path(args.out) if args.out else (folder if folder.is_dir() else folder.parent) / "sparsity.svg"
    log = read_log(folder)
    plot_run(log, out, args.metric)
    if args.json:
        last = {name: values[-1] if isfinite(values[-1]) else None for name, (_, values) in log.items()}
        print(json.dumps({"out": str(out), "last": last}))
        return 0
    print(f"wrote {out}", file=sys.stderr)
    return 0
