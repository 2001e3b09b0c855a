"""`lrnn bench matvec|spmm|scan|stream|loading`: ratios measured here, in one process, interleaved."""

from __future__ import annotations

import argparse
import json
import os
import sys

from lrnn.cli.console import progress


def add(commands) -> None:
    """Declare the command and its benchmarks."""
    parser = commands.add_parser(
        "bench", help="measured ratios on this machine: matvec, spmm, scan, stream, loading"
    )
    kinds = parser.add_subparsers(dest="bench", metavar="BENCH", required=True)
    matvec = kinds.add_parser(
        "matvec", help="sparse matrices times one vector, against the best dense kernels"
    )
    matvec.add_argument(
        "--sizes",
        type=int,
        nargs="+",
        default=[192, 512, 1024, 4096],
        help="rows and columns (default 192 512 1024 4096)",
    )
    matvec.add_argument("--sparsity", type=float, default=0.9, help="fraction of zero weights (default 0.9)")
    matvec.add_argument(
        "--sweep",
        type=float,
        nargs="*",
        default=[0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95],
        metavar="S",
        help="where the crossover with dense is looked for (default 0.3 to 0.95); none: no sweep",
    )
    matvec.add_argument(
        "--weights",
        metavar="FILE",
        help="the matrices of a program (.lrnn), .safetensors or .mtx file, beside random ones",
    )
    matvec.add_argument(
        "--isa", help="instruction set of lrnn's kernels, dense and sparse: avx2, scalar, ..."
    )
    matvec.add_argument(
        "--energy", action="store_true", help="joules of a product too, where the processor's can be read"
    )
    matvec.add_argument("--rounds", type=int, default=15, help="timed rounds (default 15)")
    spmm = kinds.add_parser(
        "spmm",
        help="sparse matrices times many columns, against dense and sparse products of other libraries",
    )
    spmm.add_argument(
        "--sizes",
        type=_size,
        nargs="+",
        metavar="N|RxC",
        help="rows and columns, 512 or 1024x256 (default 192 512 1024 1024x256 256x1024)",
    )
    spmm.add_argument("--columns", type=int, nargs="+", metavar="T", help="columns (default 64 256 1024)")
    spmm.add_argument(
        "--sparsity",
        type=float,
        nargs="+",
        metavar="S",
        help="fractions of zero weights (default 0.9, and at the middle T a sweep; with --train 0.9)",
    )
    spmm.add_argument("--train", action="store_true", help="a training step with a frozen mask instead")
    spmm.add_argument("--rounds", type=int, default=7, help="timed rounds (default 7)")
    scan = kinds.add_parser("scan", help="the scan, forward and backward, against pure-torch forms")
    scan.add_argument("--batch", type=int, default=8, help="B (default 8)")
    scan.add_argument("--length", type=int, default=4000, help="T (default 4000)")
    scan.add_argument("--width", type=int, default=128, help="P, complex states (default 128)")
    scan.add_argument("--repeats", type=int, default=15, help="timed rounds (default 15)")
    scan.add_argument("--threads", type=int, default=1, help="torch threads (default 1)")
    stream = kinds.add_parser(
        "stream", help="one frame at a time: PyTorch against the native engine, dense and sparse"
    )
    stream.add_argument("--k", type=float, default=1.0, help="width factor of the paper (default 1)")
    stream.add_argument("--sparsity", type=float, default=0.9, help="fraction of zero weights (default 0.9)")
    stream.add_argument("--frames", type=int, default=2000, help="frames per timed round (default 2000)")
    subject = stream.add_mutually_exclusive_group()
    subject.add_argument("--model", metavar="M", help="a program (.lrnn) in place of random weights")
    subject.add_argument(
        "--language",
        type=int,
        metavar="H",
        help="a language model over bytes, six HGRN layers of width H, in place of the paper's denoiser",
    )
    stream.add_argument(
        "--no-compile", action="store_true", help="leave out PyTorch's compilers, which take up to a minute"
    )
    study = stream.add_mutually_exclusive_group()
    study.add_argument(
        "--streams",
        metavar="1..32",
        help="many streams in one process, in turn and as a batch: 1..32, or 1,8,32",
    )
    study.add_argument(
        "--chunk",
        metavar="1..offline",
        help="by the length of a chunk: 1..offline, or 1,16,offline, which is --frames at once",
    )
    study.add_argument(
        "--generate",
        action="store_true",
        help="with --language: bytes of generated text, each drawn and fed back, in place of given frames",
    )
    loading = kinds.add_parser("loading", help="mixing of training clips beside a training step")
    loading.add_argument(
        "--data",
        metavar="DIR",
        default=os.environ.get("LRNN_DATA"),
        help="holds sources; default: $LRNN_DATA, else synthetic sounds",
    )
    loading.add_argument("--workers", type=int, default=0, help="also a data loader's processes (default 0)")
    for kind, run_kind in (
        (matvec, run_matvec),
        (spmm, run_spmm),
        (scan, run_scan),
        (stream, run_stream),
        (loading, run_loading),
    ):
        kind.add_argument("--json", action="store_true", help="one JSON object")
        kind.add_argument("--plot", metavar="P.png", help="draw the figures (.png, .svg, .pdf)")
        kind.add_argument(
            "--compare", metavar="OLD.json", help="ratios to an older run's --json; what got slower is marked"
        )
        kind.set_defaults(run=run_kind)
    matvec.add_argument("--roofline", metavar="P.png", help="draw the kernels under the limits of the run")


def run_matvec(args: argparse.Namespace) -> int:
    """The benchmark of packed matrices."""
    from lrnn.profile.bench import matvec

    _check(args)
    _say("measuring; a minute or two")
    result = matvec.run(
        tuple(args.sizes),
        args.sparsity,
        args.rounds,
        sweep=tuple(args.sweep),
        weights=args.weights,
        isa=args.isa,
        energy=args.energy,
    )
    return _print(args, matvec, result)


def run_spmm(args: argparse.Namespace) -> int:
    """The benchmark of sparse products, or of training through them."""
    from lrnn.profile.bench import spmm, spmm_train

    _say("measuring; a minute or two")
    sizes, columns, sparsity = args.sizes, args.columns, args.sparsity
    if not args.train:
        sweep = spmm.SWEEP if sparsity is None else ()
        chosen = sizes or spmm.SIZES, columns or spmm.COLUMNS, sparsity or spmm.SPARSITY
        result = spmm.run(*chosen, sweep, args.rounds)
        return _print(args, spmm, result)
    widths = [rows for rows, cols in sizes or [(n, n) for n in spmm_train.WIDTHS] if rows == cols]
    if (sizes and len(widths) < len(sizes)) or (sparsity and len(sparsity) > 1):
        raise ValueError("--train: expected square sizes and one sparsity")
    result = spmm_train.run(widths, columns or spmm_train.COLUMNS, *(sparsity or [0.9]), args.rounds)
    return _print(args, spmm_train, result)


def _size(text: str) -> tuple[int, int]:
    rows, _, cols = text.partition("x")
    return int(rows), int(cols or rows)


def run_scan(args: argparse.Namespace) -> int:
    """The scan's benchmark."""
    from lrnn.profile.bench import scan

    _check(args)
    _say("measuring; a minute or two")
    return _print(args, scan, scan.run(args.batch, args.length, args.width, args.repeats, args.threads))


def run_stream(args: argparse.Namespace) -> int:
    """The streaming benchmark, or one of its studies."""
    from lrnn.profile.bench import chunks, generation, stream, streams

    _check(args)
    if args.generate:
        if args.language is None:
            raise ValueError("--generate needs a language model: expected --language H")
        result = generation.run(args.language, args.sparsity, compilers=not args.no_compile, notify=_say)
        return _print(args, generation, result)
    network = {"k": args.k, "sparsity": args.sparsity, "model": args.model, "language": args.language}
    network["notify"] = _say
    if args.streams:
        result = streams.run(streams.parse(args.streams), compilers=not args.no_compile, **network)
        return _print(args, streams, result)
    if args.chunk:
        return _print(args, chunks, chunks.run(chunks.parse(args.chunk), frames=args.frames, **network))
    result = stream.run(frames=args.frames, compilers=not args.no_compile, **network)
    return _print(args, stream, result)


def run_loading(args: argparse.Namespace) -> int:
    """The benchmark of the training data."""
    from lrnn.profile.bench import loading

    _check(args)
    _say("measuring; about a minute")
    return _print(args, loading, loading.run(args.data, args.workers, progress=progress))


def _print(args, bench, result: dict) -> int:
    """Add the machine and the comparison, draw what was asked for, print."""
    from lrnn.profile.bench import report

    result = {"machine": report.machine(), **result}
    if args.compare:
        result["comparison"] = report.compare(result, report.read_result(args.compare, args.bench))
    if args.plot:
        from lrnn.profile.plot_bench import plot

        plot(result, args.plot)
    if getattr(args, "roofline", None):
        from lrnn.profile.plot_bench import plot_roofline

        plot_roofline(result, args.roofline)
    if args.json:
        print(json.dumps(result))
        return 0
    print(bench.table(result))
    if args.compare:
        print("\n" + report.comparison_table(result["comparison"]))
    return 0


def _check(args) -> None:
    """Read and try before minutes of measuring what could only fail after them."""
    if args.compare:
        from lrnn.profile.bench.report import read_result

        read_result(args.compare, args.bench)
    for path in (args.plot, getattr(args, "roofline", None)):
        if path:
            from lrnn.profile.plot import check_picture

            check_picture(path)


def _say(text: str) -> None:
    if sys.stderr.isatty():
        print(text, file=sys.stderr)
