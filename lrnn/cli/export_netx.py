"""`lrnn export netx M -o FILE.net`: a program of dense layers and ReLU for stock netx, as a whole."""

from __future__ import annotations

import json
import os

import numpy as np

from lrnn.cli.frames import input_frames

_FRAMES = 200


def add(targets) -> None:
    """Declare the target of `lrnn export`."""
    parser = targets.add_parser(
        "netx",
        help="dense layers and ReLU as one HDF5 file that lava.lib.dl.netx.hdf5.Network loads",
        description="Stock netx carries chains of dense layers with ReLU only, and computes "
        "floor(max(W x + 64 b, 0) / 64) in each: lrnn quantize M -o OUT --scheme netx makes such a program. "
        "Of a program that it cannot carry as a whole the first node in the way is named.",
    )
    parser.add_argument("model", metavar="M", help="a program in fixed point (.lrnn)")
    parser.add_argument("-o", "--output", metavar="FILE.net", required=True, help="the file to write")
    parser.add_argument(
        "--verify",
        action="store_true",
        help="run it in stock netx, in the environment of `make lava` or the one whose Python LRNN_LAVA "
        "names, and compare every integer",
    )
    parser.add_argument(
        "--data",
        metavar="FILE",
        help="with --verify: audio for a denoiser, text for a language model, .npy frames (T, width) for "
        "another program; default: random frames over the whole range of the input",
    )
    parser.add_argument(
        "--steps", metavar="N", type=int, default=_FRAMES, help="frames, at most (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.set_defaults(run=run)


def run(args) -> int:
    """Load, write, verify, tell."""
    import lrnn
    from lrnn.export import netx
    from lrnn.export.lava.verify import require_lava

    program = lrnn.load(args.model)
    if not program.is_fixed:
        raise ValueError(
            f"{args.model}: found a program in float, expected one in fixed point: "
            f"lrnn quantize {args.model} -o OUT --scheme netx"
        )
    if args.data is not None and not args.verify:
        raise ValueError(f"--data is {args.data}, but without --verify nothing runs")
    if args.steps < 1:
        raise ValueError(f"--steps is {args.steps}, expected at least 1")
    python = require_lava() if args.verify else None  # says so before anything is written
    stack = netx.whole_stack(program)
    netx.write_net(stack, args.output)
    report = {
        "file": args.output,
        "bytes": os.path.getsize(args.output),
        "layers": netx.layer_rows(stack),
        "input_bits": stack.input.bits,
        "offset": stack.offset,
        "lag": stack.lag,
    }
    if args.verify:
        report["verified"] = _verify(args, program, stack, python)
    print(json.dumps(report) if args.json else _words(report))
    return 0


def _verify(args, program, stack, python) -> dict:
    """Frames and integers that were the same; an error names the first that was not."""
    from lrnn.export import netx

    if args.data is None:
        low, high = stack.input.low, stack.input.high
        shape = (args.steps, stack.input_width)
        integers = np.random.default_rng(0).integers(low, high, shape, endpoint=True)
        frames = np.ldexp(integers.astype(np.float32), -stack.input.exponent)
    else:
        frames = input_frames(program, args.data)[: args.steps]
    x, y = netx.program_integers(program, stack, frames)
    (made,) = netx.verify_nets([(args.output, x)], python)
    if not np.array_equal(made, y):
        raise RuntimeError(f"{args.output}: the file is not what the program computes")
    return {"frames": len(x), "integers": 2 * y.size}


def _words(report: dict) -> str:
    rows = [
        f"  {row['node']}: {row['shape'][0]} x {row['shape'][1]}, {row['nonzeros']:,} weights not zero, sums "
        f"of {row['sum_bits']} bits at most; {row['rows_beyond_core']} rows could pass a dendrite's 24 bits"
        for row in report["layers"]
    ]
    head = (
        f"{report['file']}: {len(rows)} dense layers, {report['bytes']:,} bytes; input of "
        f"{report['input_bits']} bits, output less {report['offset']}, lag of {report['lag']} steps"
    )
    if "verified" in report:
        checked = report["verified"]
        rows.append(
            f"stock netx, dense and sparse: {checked['integers']:,} integers on {checked['frames']:,} "
            "frames, all equal"
        )
    return "\n".join((head, *rows))
