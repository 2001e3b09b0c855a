"""`lrnn export lava M -o DIR`: a fixed-point program for Intel's Lava, and proof on its simulator."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

from lrnn.cli.console import progress
from lrnn.cli.frames import input_frames


def add(targets) -> None:
    """Declare the target."""
    parser = targets.add_parser(
        "lava",
        help="a folder that Intel's Lava builds the network from; --verify runs it on Lava's simulator",
        description="Write a program in fixed point as a folder: its graph with balanced delays, its "
        "weights, and golden integers of every value at every step. With --verify, run it on Lava's "
        "simulator of Loihi 2's arithmetic and compare them all. It says nothing about a chip: that needs "
        "Intel's private stack.",
    )
    parser.add_argument(
        "model",
        metavar="M",
        nargs="?",
        help="a program in fixed point (.lrnn); default: the shipped denoiser",
    )
    parser.add_argument(
        "-o", "--output", metavar="DIR", help="the folder to write; an earlier export is replaced"
    )
    parser.add_argument("--verify", action="store_true", help="run what was written on Lava's simulator")
    parser.add_argument("--verify-only", metavar="DIR", help="write nothing, run an export that is there")
    parser.add_argument(
        "--data",
        metavar="FILE",
        help="golden input: audio for a denoiser or a keyword spotter, text for a language model, .npy "
        "frames (T, width) for another program; default: generated frames over all of the input's range",
    )
    parser.add_argument(
        "--steps", metavar="N", type=int, help="at most N steps of golden vectors (default: 200)"
    )
    parser.add_argument("--limit", metavar="S", type=float, help="seconds that Lava may take (default: 600)")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.set_defaults(run=run)


def run(args) -> int:
    """Write, run, tell; 1 where an integer differs."""
    _check(args)
    report = {}
    if args.verify_only is None:
        if args.verify:
            from lrnn.export.lava.verify import require_lava

            require_lava()  # says so before the work
        report |= _write(args)
    folder = args.verify_only or args.output
    if args.verify or args.verify_only:
        report["verified"] = _verify(folder, args.limit)
    print(json.dumps({"folder": folder, **report}) if args.json else _words(folder, report))
    return 0 if report.get("verified", {}).get("equal", True) else 1


def _check(args) -> None:
    if args.verify_only is None:
        if args.output is None:
            raise ValueError("no folder to write: expected -o DIR, or --verify-only DIR")
    elif args.model or args.output or args.verify or args.data or args.steps is not None:
        raise ValueError(
            "--verify-only DIR runs what is there: expected no M, -o, --verify, --data or --steps"
        )
    if args.steps is not None and args.steps < 1:
        raise ValueError(f"--steps is {args.steps}, expected at least 1")
    if args.limit is not None and not args.limit > 0:
        raise ValueError(f"--limit is {args.limit}, expected more than 0 seconds")


def _write(args) -> dict:
    import lrnn
    from lrnn.export.lava import export
    from lrnn.models import DENOISER
    from lrnn.profile.loihi import activity, placement_report

    source = Path(args.model or DENOISER)
    program = lrnn.load(source)
    if not program.is_fixed:
        raise ValueError(
            f"{source}: found a program in float, expected one in fixed point: make it with "
            f"`lrnn quantize {source} --scheme loihi2 -o M`"
        )
    frames = _frames(program, args)
    if args.data is None:
        resources = placement_report(program)
    else:
        resources = placement_report(
            program, activity(program, frames), f"{len(frames):,} frames of {Path(args.data).name}"
        )
    record = export(program, args.output, frames, source=source, resources=resources)
    sums = record["checks"]["sums"].values()
    return {
        "latency": record["latency"],
        "groups": len(record["groups"]),
        "synapses": len(record["synapses"]),
        "nonzeros": sum(m["nonzeros"] for m in record["matrices"].values()),
        "widest_sum_bits": max((s["bits"] for s in sums), default=0),
        "widest_inside_bits": max(record["checks"]["inside"].values(), default=0),
        "rows": sum(m["shape"][0] for m in record["matrices"].values()),
        "norms": [op["node"] for g in record["groups"] for op in g["program"] if "sums_over" in op],
        "cores": resources["cores"],
        "rows_beyond_24_bits": sum(len(s["rows_beyond_24_bits"]) for s in sums),
    }


def _frames(program, args):
    from lrnn.export.lava.vectors import STEPS, generated_frames

    steps = args.steps or STEPS
    if args.data is None:
        return generated_frames(program, steps)
    return input_frames(program, args.data)[:steps]


def _verify(folder: str, limit: float | None) -> dict:
    from lrnn.export.lava.verify import LIMIT, verify

    found = verify(folder, limit or LIMIT, partial(progress, label="lava"))
    return {**found, "netx_integers": _verify_segments(Path(folder))} if found["equal"] else found


def _verify_segments(folder: Path) -> int:
    """Integers that stock netx made, of the segments that it carries."""
    import numpy as np

    from lrnn.export.lava.folder import SEGMENTS
    from lrnn.export.lava.verify import require_lava
    from lrnn.export.netx import verify_segments

    with np.load(folder / "vectors.npz", allow_pickle=False) as vectors:
        values = {name.removeprefix("values/"): vectors[name] for name in vectors.files}
    return verify_segments(folder / SEGMENTS, values, require_lava())


def _words(folder: str, report: dict) -> str:
    lines = []
    if "groups" in report:
        lines.append(
            f"{folder}: {report['groups']} groups of neurons, {report['synapses']} synapses with "
            f"{report['nonzeros']:,} weights, latency {report['latency']} steps"
        )
        lines.append(_sums(report))
        if report["norms"]:
            lines.append(_not_local(len(report["norms"])))
        cores = " to ".join(str(n) for n in sorted(set(report["cores"])))
        lines.append(f"estimated: {cores} cores of a Loihi 2 (lrnn profile --target loihi2)")
    if "verified" in report:
        lines.append(_verdict(folder, report["verified"]))
    return "\n".join(lines)


def _sums(report: dict) -> str:
    text = (
        f"proved: sums of at most {report['widest_sum_bits']} bits, inside neurons at most "
        f"{report['widest_inside_bits']}; "
    )
    if not report["rows_beyond_24_bits"]:
        return text + "the chip's 24 bits hold all sums"
    return text + (
        f"for the chip's 24 bits {report['rows_beyond_24_bits']:,} of {report['rows']:,} sums are bounded by "
        "calibration only (the scheme loihi2 proves all)"
    )


def _not_local(norms: int) -> str:
    return (
        f"not local: {norms} norm{' sums' if norms == 1 else 's sum'} over a whole group of neurons, which "
        "no neuron of a chip does (sums_over in program.json)"
    )


def _verdict(folder: str, found: dict) -> str:
    size = f"{found['values']} values over {found['steps']} steps"
    if found["equal"]:
        netx = f"; stock netx {found['netx_integers']:,} more" if found["netx_integers"] else ""
        return (
            f"Lava makes the same {found['integers']:,} integers ({size}, {found['processes']} Processes, "
            f"{found['seconds']:.1f} s){netx}"
        )
    first = found["first"]
    return (
        f"{folder}: Lava differs first in node {first['node']!r}, step {first['step']}, index "
        f"{first['index']}: found {first['found']}, expected {first['expected']}"
    )
