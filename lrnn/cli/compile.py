"""`lrnn compile CKPT -o M`: a trained model becomes a Program, the file that engines run."""

from __future__ import annotations

import json
import os

from lrnn.cli import quantize


def add(commands) -> None:
    """Declare the command."""
    parser = commands.add_parser("compile", help="make a program (.lrnn) of a trained model")
    parser.add_argument(
        "checkpoint", metavar="CKPT", help="a Lightning .ckpt of a denoiser, or a model's .safetensors"
    )
    parser.add_argument("-o", "--output", metavar="M", required=True, help="the program to write")
    parser.add_argument(
        "--fixed", action="store_true", help="in fixed point, as `lrnn quantize` makes it of CKPT"
    )
    quantize.add_options(parser.add_argument_group("with --fixed"))
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.set_defaults(run=run)


def run(args) -> int:
    """Load, compile, write, tell."""
    import lrnn
    from lrnn.program.program import tensors
    from lrnn.train.checkpoint import load_checkpoint

    if args.scheme is not None and not args.fixed:
        raise ValueError(f"--scheme is {args.scheme}, but without --fixed the program is in float")
    model, meta = load_checkpoint(args.checkpoint)
    program = lrnn.compile(model, meta)
    if args.fixed:
        args.model = args.checkpoint
        program, _ = quantize.quantized(program, args)
    program.save(args.output)
    values = [tensor for node in program.nodes for tensor in tensors(node).values()]
    report = {
        "program": args.output,
        "bytes": os.path.getsize(args.output),
        "nodes": len(program.nodes),
        "parameters": sum(tensor.size for tensor in values),
        "nonzeros": sum(int((tensor != 0).sum()) for tensor in values),
    }
    if args.json:
        print(json.dumps(report))
    else:
        print(
            f"{report['program']}: {report['nodes']} nodes, {report['parameters']:,} parameters, "
            f"{report['nonzeros']:,} not zero, {report['bytes']:,} bytes"
        )
    return 0
