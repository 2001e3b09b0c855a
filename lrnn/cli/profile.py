"""`lrnn profile M`: what each node of a program costs, what its data leave of it, and what rounding loses."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np

from lrnn.cli.console import check_plot, table
from lrnn.cli.frames import input_frames, token_frames

_MOST_TOKENS = 2000  # of a text: a second or two, and what the noise is measured on at most
_SENTENCE = b"On a bright morning in early spring, 9 boats and 2 gulls lay in the harbour; all was quiet."


def add(commands) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "profile",
        help="parameters, density, activity, MACs, bytes, time and kernel of each node, and why; in fixed "
        "point also widths, ranges, saturation and noise",
    )
    parser.add_argument(
        "model", metavar="M", nargs="?", help="a program (.lrnn); default: the shipped denoiser"
    )
    parser.add_argument(
        "--data",
        metavar="FILE",
        help="audio for a denoiser or a keyword spotter; text for a language model, of which it takes the "
        f"first {_MOST_TOKENS:,} tokens; .npy frames (T, width) for another program. Default: the demo's "
        "clip for a denoiser, a sentence for a language model, none for another program",
    )
    parser.add_argument(
        "--float",
        metavar="M2",
        dest="floats",
        help="the program in float that M in fixed point was made of: noise is measured against it (default: "
        "against M's own weights; the shipped denoiser's against the one in float beside it)",
    )
    parser.add_argument(
        "--target",
        choices=("loihi2",),
        help="a chip: cores, what fills and what bounds each layer, times and energies as intervals, all "
        "estimated, and the proxies of the N-DNS challenge (needs lrnn[loihi])",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument(
        "--plot",
        metavar="P.png",
        help="draw MACs per node: all, nonzero weights, nonzero inputs too; in fixed point, bits and noise; "
        "with --target, the cores and how full they are",
    )
    parser.set_defaults(run=run)


def run(args) -> int:
    """Count, measure, print."""
    from lrnn.profile.measure import profile

    if args.plot:
        check_plot(args.plot)
    program = _program(args.model)
    frames = _frames(program, args.data)
    if args.target:
        from lrnn.cli import profile_loihi

        if args.floats:
            raise ValueError(f"--float is {args.floats}, but --target estimates no noise: leave one out")
        return profile_loihi.run(program, frames, args.data or _default(program), args)
    report = profile(program, frames, _floats(args, program, frames))
    if args.plot:
        from lrnn.profile.plot import plot_macs
        from lrnn.profile.plot_noise import plot_noise

        (plot_noise if report.values else plot_macs)(report, args.plot)
    if args.json:
        print(json.dumps(_json(report)))
    else:
        print(_table(report))
        if report.values:
            print("\n" + _values(report))
        if report.matrices:
            print("\n" + _choices(report))
    return 0


def _floats(args, program, frames: np.ndarray | None):
    """The program to measure noise against, and its name."""
    import lrnn
    from lrnn.models import DENOISER_FLOAT

    path = args.floats
    if path is None and args.model is None:
        path = str(DENOISER_FLOAT)
    if path is None:
        return None
    if not program.is_fixed:
        raise ValueError(f"--float is {path}, but the profiled program is in float itself: it has no noise")
    if frames is None:
        raise ValueError(f"--float is {path}, but there is nothing to run: expected --data FILE")
    return path, lrnn.load(path)


def _json(report) -> dict:
    from lrnn.profile.noise import loses_most, output_sqnr

    nodes, matrices, values = (
        [asdict(item) for item in items] for items in (report.nodes, report.matrices, report.values)
    )
    found = {"nodes": nodes, "total": report.total(), "matrices": matrices}
    if report.values:
        worst = loses_most(report.values)
        found |= {
            "values": values,
            "output_sqnr": output_sqnr(report.values),
            "loses_most": worst and worst.name,
            "noise_reference": report.reference if report.frames else None,
        }
    return found


def _program(path: str | None):
    import lrnn
    from lrnn.data.denoiser import Denoiser

    return lrnn.load(path) if path else Denoiser.load().program


def _frames(program, path: str | None) -> np.ndarray | None:
    """Input frames to measure activity on: the file's, or what `_default` names."""
    from lrnn.models import DEMO_CLIP

    if path is None and "text" in program.meta:
        return token_frames(program, _SENTENCE)
    path = path or (str(DEMO_CLIP) if "frontend" in program.meta else None)
    frames = None if path is None else input_frames(program, path)
    return frames[:_MOST_TOKENS] if frames is not None and program.reads_tokens else frames


def _default(program) -> str:
    """What a program is measured on without a file, in words."""
    return "a sentence" if "text" in program.meta else "the demo's clip"


def _table(report) -> str:
    header = [
        "node",
        "op",
        "parameters",
        "density",
        "input activity",
        "MACs",
        "x weights",
        "x activity",
        "bytes",
        "ns",
    ]
    rows = [
        [
            n.name,
            n.op,
            f"{n.parameters:,}",
            _share(n.density),
            _share(n.activity),
            f"{n.macs:,}",
            f"{n.macs_weights:,}",
            _number(n.macs_effective),
            _number(n.bytes),
            _number(n.nanoseconds),
        ]
        for n in report.nodes
    ]
    total = report.total()
    rows.append(
        [
            "total",
            "",
            f"{total['parameters']:,}",
            _share(total["density"]),
            "",
            f"{total['macs']:,}",
            f"{total['macs_weights']:,}",
            _number(total["macs_effective"]),
            _number(total["bytes"]),
            _number(total["nanoseconds"]),
        ]
    )
    return table(rows, header) + "\n\n" + report.notes()


def _values(report) -> str:
    """The integers: widths and exponents, and what data make of them."""
    header = ["value", "bits", "exponent", "accumulator", "used", "range used", "saturated", "share"]
    rows = [
        [
            v.name,
            str(v.bits),
            str(v.exponent),
            _number(v.accumulator_bits),
            _number(v.bits_used),
            _share(v.range_used),
            _number(v.saturated),
            "-" if v.saturated_share is None else f"{100 * v.saturated_share:.3f} %",
            _level(v.sqnr),
            _level(v.alone),
        ]
        for v in report.values
    ]
    text = table(rows, [*header, "SQNR dB", "alone dB"])
    return f"{report.noise_header()}\n\n{text}\n\n{report.noise_notes()}"


def _choices(report) -> str:
    """The matrices: which kernel, and what the cost model expects of each format."""
    formats = ("dense", "sparse", "event")
    header = ["matrix", "shape", "density", "kernel", *formats, *(f"KiB {name}" for name in formats), "why"]
    rows = [
        [
            m.name,
            f"{m.rows} x {m.cols}",
            _share(m.density),
            m.kernel,
            _number(m.dense_cycles),
            _number(m.sparse_cycles),
            _number(m.event_cycles),
            *(_kib(size) for size in (m.dense_bytes, m.sparse_bytes, m.event_bytes)),
            m.why,
        ]
        for m in report.matrices
    ]
    notes = (
        "dense, sparse, event: cycles of a product by the cost model, and KiB that it reads. The engine\n"
        "takes dense or sparse; event, which skips zero inputs (on the measured ones), is for comparison."
    )
    return table(rows, header) + "\n\n" + notes


def _share(x: float | None) -> str:
    return "-" if x is None else f"{100 * x:.1f} %"


def _number(x: float | None) -> str:
    return "-" if x is None else f"{x:,.0f}"


def _kib(size: int | None) -> str:
    return "-" if size is None else f"{size / 1024:.1f}"


def _level(x: float | None) -> str:
    return "-" if x is None else f"{x:.1f}"
