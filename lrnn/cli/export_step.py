"""`lrnn export step M -o FILE`: a program's step for ONNX Runtime, torch.export or AOTInductor."""

from __future__ import annotations

import json
import os


def add(targets) -> None:
    """Declare the target of `lrnn export`."""
    parser = targets.add_parser(
        "step",
        help="one frame as a dense function in ONNX's or PyTorch's form",
        description="A frame and the states go in, the output and the next states come out; zeros are the "
        "first states. What is written needs no lrnn to run. It is dense: lrnn's own engine is what leaves "
        "out zeros and computes in fixed point.",
    )
    parser.add_argument("model", metavar="M", help="a program in float32 (.lrnn)")
    parser.add_argument(
        "-o", "--output", metavar="FILE", required=True, help="what to write: .onnx, or .pt2 for torch.export"
    )
    parser.add_argument("--streams", metavar="N", type=int, default=1, help="of a frame (default: 1)")
    parser.add_argument(
        "--compile", action="store_true", help="with .pt2: machine code by AOTInductor, for this machine"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.set_defaults(run=run)


def run(args) -> int:
    """Load, write, tell."""
    import lrnn
    from lrnn.export import save_step

    program = lrnn.load(args.model)
    if program.is_fixed:
        raise ValueError(f"{args.model}: found a program in fixed point, expected one in float32")
    save_step(program, args.output, streams=args.streams, compiled=args.compile)
    report = {
        "file": args.output,
        "bytes": os.path.getsize(args.output),
        "streams": args.streams,
        "input_width": program.input_width,
        "output_width": program.output_width,
        "state_widths": program.state_widths,
    }
    print(json.dumps(report) if args.json else _words(report))
    return 0


def _words(report: dict) -> str:
    n = report["streams"]
    states = ", ".join(f"({n}, {width})" for width in report["state_widths"].values())
    return (
        f"{report['file']}: {report['bytes']:,} bytes; frame ({n}, {report['input_width']}) to "
        f"({n}, {report['output_width']}), states {states or 'none'}"
    )
