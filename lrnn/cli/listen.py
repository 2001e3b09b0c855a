"""`lrnn listen IN`: keywords in a recording or a live stream of samples, each as it is decided."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, replace

from lrnn.cli.source import PCM_RATE, Source, check_rate, open_source
from lrnn.engine import ENGINES, default_engine


def add(commands) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "listen",
        help="print keywords with times as they are decided",
        description="Listen to IN in constant memory and print a line for each keyword: the second at which "
        "it was decided, its probability, the word. Channels are averaged, other rates resampled.",
    )
    parser.add_argument(
        "input", metavar="IN", help="an audio file; '-' is raw PCM on stdin: 16 bit little-endian, mono"
    )
    add_decision(parser)
    parser.add_argument("--rate", type=int, help=f"of raw PCM on stdin, in Hz (default: {PCM_RATE})")
    parser.add_argument("--json", action="store_true", help="one JSON object, when IN ends")
    parser.set_defaults(run=run)


def add_decision(parser) -> None:
    """The model, and when a word counts as said: what `lrnn eval keywords` has too."""
    parser.add_argument(
        "--model", metavar="M", help="a keyword spotter's program (.lrnn); default: the shipped one"
    )
    parser.add_argument("--engine", choices=ENGINES, help="default: native where it is built, else numpy")
    parser.add_argument(
        "--threshold", type=float, metavar="P", help="least probability of a word (default: the model's)"
    )


def decision(spotter, threshold: float | None):
    """The model's decision with another threshold, if one was asked for."""
    return spotter.decision if threshold is None else replace(spotter.decision, threshold=threshold)


def run(args) -> int:
    """Listen to the end."""
    from lrnn.data.spotter import KeywordSpotter

    check_rate(args.rate, args.input)
    engine = args.engine or default_engine()
    spotter = KeywordSpotter.load(args.model)
    chosen = decision(spotter, args.threshold)
    source = open_source(args.input, args.rate)
    stream = spotter.stream(source.rate, engine, chosen)
    found, seconds, spent = _listen(stream, source, quiet=args.json)
    if args.json:
        report = {
            "input": args.input,
            "seconds": seconds,
            "engine": engine,
            "real_time_factor": spent / seconds if seconds else None,
            "decision": asdict(chosen),
            "keywords": [asdict(keyword) for keyword in found],
        }
        print(json.dumps(report))
    elif sys.stderr.isatty():
        print(_sentence(len(found), seconds, spent), file=sys.stderr)
    return 0


def _sentence(words: int, seconds: float, spent: float) -> str:
    """What a person at a terminal wants to know, above all where no word was heard."""
    text = f"{words or 'no'} keyword{'' if words == 1 else 's'} in {seconds:.2f} s"
    return text + (f", real-time factor {spent / seconds:.4f}" if seconds else "")


def _listen(stream, source: Source, quiet: bool) -> tuple[list, float, float]:
    """All keywords, seconds of audio and seconds of computing; a line for each keyword unless quiet."""
    found, taken, spent = [], 0, 0.0
    for samples in _mono(source):
        begun = time.perf_counter()
        words = stream.flush() if samples is None else stream.step(samples)
        spent += time.perf_counter() - begun
        taken += 0 if samples is None else len(samples)
        found += words
        for keyword in () if quiet else words:
            print(f"{keyword.time:9.2f} s  {keyword.probability:.2f}  {keyword.word}", flush=True)
    return found, taken / source.rate, spent


def _mono(source: Source):
    """Blocks as the mean of their channels, and None at the end."""
    for block in source.blocks:
        yield block[:, 0] if block.shape[1] == 1 else block.mean(1)
    yield None
