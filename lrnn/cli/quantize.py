"""`lrnn quantize M -o OUT`: a program in fixed point, of a model in float or trained quantised."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

from lrnn.cli.console import progress
from lrnn.cli.frames import read_frames

_CLIPS_PER_STREAM = 8  # keywords of a second each: what recurrences remember builds up over several
_ROW = 1024  # tokens of text


def add(commands) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "quantize",
        help="make a program in fixed point: integers, static scales, the same results on every machine",
        description="Finds the range of every value on calibration data and compiles to integers. Calibrate "
        "on training data, never on what is reported.",
    )
    parser.add_argument(
        "model", metavar="M", help="a program in float (.lrnn), a Lightning .ckpt, or a model's .safetensors"
    )
    parser.add_argument("-o", "--output", metavar="OUT", required=True, help="the program to write")
    add_options(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.set_defaults(run=run)


def add_options(parser) -> None:
    """What `lrnn compile --fixed` has too."""
    parser.add_argument(
        "--scheme",
        metavar="NAME",
        help="widths, see lrnn.quant.SCHEMES (default: that of training, or w8a16); netx: dense layers and "
        "ReLU as lava-dl's netx computes them, for lrnn export netx",
    )
    parser.add_argument(
        "--calibrate",
        metavar="DATA",
        default=os.environ.get("LRNN_DATA"),
        help="for a denoiser a folder with sources/train/{clean,noise} to mix, for a keyword spotter one "
        "with keywords, for a language model one with training text, for another program .npy frames "
        "(T, width) or (B, T, width); default: $LRNN_DATA",
    )
    parser.add_argument(
        "--clips",
        metavar="N",
        type=int,
        default=64,
        help="training clips, streams of eight keywords, or rows of text to calibrate on",
    )
    parser.add_argument(
        "--observer",
        choices=("minmax", "percentile", "mse"),
        default="minmax",
        help="how ranges are chosen: all that was seen (default), all but outliers, least squared error",
    )


def run(args) -> int:
    """Read, calibrate, compile, write, tell."""
    import lrnn

    if Path(args.model).suffix == ".lrnn":
        program = lrnn.load(args.model)
    else:
        from lrnn.train.checkpoint import load_checkpoint

        model, meta = load_checkpoint(args.model)
        program = lrnn.compile(model, meta)
    made, report = quantized(program, args)
    made.save(args.output)
    report = {"program": args.output, "bytes": os.path.getsize(args.output), **report}
    print(json.dumps(report) if args.json else _words(report))
    return 0


def quantized(program, args):
    """A program in fixed point of one in float, as the options ask for, and what there is to report."""
    from dataclasses import replace

    from lrnn.export import netx
    from lrnn.program import calibrate, compile_fixed
    from lrnn.program.dead import drop_dead
    from lrnn.program.fixed.nodes import Linear
    from lrnn.quant import Ranges, get_scheme

    if program.is_fixed:
        raise ValueError(f"{args.model}: found a program in fixed point, expected one in float")
    trained = program.meta.get("quantization")
    scheme = netx.SCHEME if args.scheme == netx.SCHEME.name else get_scheme(args.scheme or "w8a16")
    known = None
    if trained is not None:
        scheme = _trained_scheme(trained, args.scheme)
        known = None if trained["ranges"] is None else Ranges.from_json(trained["ranges"])
        program = replace(program, meta={k: v for k, v in program.meta.items() if k != "quantization"})
    ranges = calibrate(program, _batches(program, args), args.observer, scheme.activation_bits, known=known)
    if scheme is netx.SCHEME:
        made = netx.compile_netx(program, ranges)
    else:
        made = compile_fixed(program, ranges, scheme)
    floats = drop_dead(program.input, program.input_width, program.nodes, program.output)  # as compiling does
    nonzeros = sum(int((node.weight != 0).sum()) for node in made.nodes if isinstance(node, Linear))
    return made, {
        "scheme": scheme.name,
        "trained_quantised": trained is not None,
        "clips": ranges.clips,
        "nodes": len(made.nodes),
        "nonzeros": nonzeros,
        "rounded_to_zero": sum(int((n.weight != 0).sum()) for n in floats if n.op == "linear") - nonzeros,
    }


def _trained_scheme(trained: dict, asked: str | None):
    from lrnn.quant import Scheme, get_scheme

    scheme = Scheme.from_json(trained["scheme"])
    if asked is not None and get_scheme(asked) != scheme:
        raise ValueError(f"--scheme is {asked}, but the model was trained with {scheme.name}")
    return scheme


def _batches(program, args) -> Iterator:
    """Calibration frames, with a progress bar in a terminal."""
    if args.calibrate is None:
        raise ValueError("no calibration data: expected --calibrate DATA or LRNN_DATA in the environment")
    source = next((source for name, source in _SOURCES.items() if name in program.meta), None)
    if source is None:
        if Path(args.calibrate).suffix != ".npy":
            raise ValueError(f"{args.calibrate}: the program is no denoiser, expected an .npy file of frames")
        return iter([read_frames(args.calibrate, program.input_width, clips=True)])
    if args.clips < 1:
        raise ValueError(f"--clips is {args.clips}, expected at least 1")
    return progress(source(program, args), args.clips, "calibrate")


def _features(program, args) -> Iterator:
    """A clip's frames at a time, from training mixtures that no training run sees."""
    from lrnn.data.stft import Stft
    from lrnn.train.datamodule import DenoiseData

    data = DenoiseData(args.calibrate, batch_size=1)
    data.setup("fit")
    stft = Stft.from_meta(program.meta["frontend"])
    for noisy, _ in data.calibration_batches(args.clips):
        yield stft.read(stft.analyse(noisy))


def _keyword_frames(program, args) -> Iterator:
    """A stream's frames at a time, of training clips that follow each other."""
    from lrnn.data.frontend import FrontEnd
    from lrnn.data.keyword_mix import CALIBRATION
    from lrnn.train.keyword_data import KeywordData

    meta = program.meta["keywords"]
    data = KeywordData(args.calibrate, batch_size=_CLIPS_PER_STREAM, augment=CALIBRATION)
    data.read(tuple(meta["labels"]))
    frontend = FrontEnd.from_meta(meta["frontend"])
    for audio, _ in data.calibration_batches(args.clips):
        yield frontend(audio.reshape(1, -1))


def _text(program, args) -> Iterator:
    """A row of training text at a time, cut elsewhere than in a training run with the seed 0."""
    from lrnn.data.rows import Rows
    from lrnn.data.text import find_text
    from lrnn.data.text_program import tokenizer_of
    from lrnn.data.tokens import read_tokens

    tokens = read_tokens(find_text(args.calibrate, "train"), tokenizer_of(program))
    rows = Rows(tokens, min(_ROW, len(tokens) // 2), seed=0, stream=1, count=args.clips)
    for n in range(args.clips):
        yield rows[n].tokens[None, :, None].float()


_SOURCES = {"keywords": _keyword_frames, "frontend": _features, "text": _text}
"""Where calibration data comes from, by the entry of a program's meta that says what it reads."""


def _words(report: dict) -> str:
    return (
        f"{report['program']}: {report['scheme']}, {report['nodes']} nodes, {report['nonzeros']:,} weights "
        f"not zero ({report['rounded_to_zero']:,} rounded to zero), {report['bytes']:,} bytes; calibrated on "
        f"{report['clips']} clips"
    )
