"""`lrnn denoise IN OUT`: a recording or a live stream of samples, denoised piece by piece."""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import contextmanager
from importlib import import_module

import numpy as np

from lrnn.cli.console import progress
from lrnn.cli.source import PCM_RATE, PIPE, Source, check_rate, open_source
from lrnn.data import audio
from lrnn.data.denoiser import AlignedStream, Denoiser
from lrnn.engine import ENGINES, default_engine


def add(commands) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "denoise",
        help="denoise a recording or a stream of samples",
        description="Denoise IN into OUT, hop by hop in constant memory. OUT has IN's length and lines up "
        "with it. Each channel is denoised by itself; other rates than the model's are resampled.",
    )
    parser.add_argument(
        "input", metavar="IN", help="an audio file; '-' is raw PCM on stdin: 16 bit little-endian, mono"
    )
    parser.add_argument("output", metavar="OUT", help="an audio file; '-' is raw PCM on stdout")
    parser.add_argument("--model", metavar="M", help="a denoiser's program (.lrnn); default: the shipped one")
    parser.add_argument("--engine", choices=ENGINES, help="default: native where it is built, else numpy")
    parser.add_argument("--rate", type=int, help=f"of raw PCM on stdin, in Hz (default: {PCM_RATE})")
    parser.add_argument("--reference", metavar="CLEAN", help="clean speech to measure the improvement by")
    parser.add_argument("--plot", metavar="P.png", help="draw the spectrograms before and after")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.set_defaults(run=run)


def run(args) -> int:
    """Denoise, then measure and draw from the files."""
    _check(args)
    args.engine = args.engine or default_engine()
    denoiser = Denoiser.load(args.model)
    source = open_source(args.input, args.rate)
    seconds, spent = _denoise(denoiser, source, args)
    report = {
        "output": args.output,
        "seconds": seconds,
        "rate": source.rate,
        "channels": source.channels,
        "engine": args.engine,
        "real_time_factor": spent / seconds if seconds else None,
        "latency_ms": 1000 * denoiser.stft.latency / denoiser.sample_rate,
    }
    if args.reference:
        report |= _measure(args)
    if args.plot:
        _plot(args, report)
    text = json.dumps(report) if args.json else _sentence(report)
    print(text, file=sys.stderr if args.output == PIPE else sys.stdout)
    return 0


def _check(args) -> None:
    piped = PIPE in (args.input, args.output)
    if piped and (args.reference or args.plot):
        raise ValueError(
            "--reference and --plot read the files again, expected IN and OUT to be files, found '-'"
        )
    if args.output == PIPE and args.json:
        raise ValueError("--json and OUT '-' both want stdout, expected one of them")
    check_rate(args.rate, args.input)
    if args.plot:
        import_module("lrnn.data.spectrogram")  # says now what it misses, not after the work
    if not piped and os.path.realpath(args.input) == os.path.realpath(args.output):
        raise ValueError(f"OUT is IN ({args.output}), expected another file")


@contextmanager
def _sink(path: str, source: Source):
    """A function that appends (n, channels) samples."""
    if path != PIPE:
        with audio.writer(path, source.rate, source.channels, source.subtype) as append:
            yield append
        return

    def append(samples):
        sys.stdout.buffer.write(audio.to_int16(samples).astype("<i2").tobytes())
        sys.stdout.buffer.flush()

    yield append


def _denoise(denoiser: Denoiser, source: Source, args) -> tuple[float, float]:
    """Run the source through; returns seconds of audio and seconds of computing."""
    streams = [AlignedStream(denoiser, source.rate, args.engine) for _ in range(source.channels)]
    blocks = source.blocks
    if source.n_blocks is not None:
        blocks = progress(blocks, source.n_blocks, "denoise")
    taken, spent = 0, 0.0
    with _sink(args.output, source) as append:
        for block in blocks:
            begun = time.perf_counter()
            pieces = [stream.push(block[:, c]) for c, stream in enumerate(streams)]
            spent += time.perf_counter() - begun
            append(np.stack(pieces, axis=1))
            taken += len(block)
        begun = time.perf_counter()
        rest = [stream.flush() for stream in streams]
        spent += time.perf_counter() - begun
        append(np.stack(rest, axis=1))
    return taken / source.rate, spent


def _measure(args) -> dict[str, float]:
    """SI-SNR before and after against the reference, the mean over channels."""
    import torch

    from lrnn.data.metrics import si_snr

    clean, rate = audio.read(args.reference)
    clips = {path: audio.read(path) for path in (args.input, args.output)}
    for path, (samples, found) in clips.items():
        if (samples.shape, found) != (clean.shape, rate):
            raise ValueError(
                f"{args.reference}: {clean.shape} samples at {rate} Hz, "
                f"expected {samples.shape} at {found} Hz as {path}"
            )
    target = torch.from_numpy(clean.T)
    noisy, cleaned = (si_snr(torch.from_numpy(s.T), target).mean().item() for s, _ in clips.values())
    return {"noisy_si_snr": noisy, "si_snr": cleaned, "si_snri": cleaned - noisy}


def _plot(args, report: dict) -> None:
    """First channels of the files, with the figures of `_measure` where it was asked for."""
    from lrnn.data.spectrogram import plot_spectrograms

    titles = {"noisy": args.input, "denoised": args.output}
    if args.reference:
        before, after = report["noisy_si_snr"], report["si_snr"]
        titles = {
            f"noisy, SI-SNR {before:.1f} dB": args.input,
            f"denoised, SI-SNR {after:.1f} dB": args.output,
        }
        titles["clean"] = args.reference
    clips = {title: audio.read(path)[0][:, 0] for title, path in titles.items()}
    plot_spectrograms(clips, report["rate"], args.plot)


def _sentence(report: dict) -> str:
    channels = "mono" if report["channels"] == 1 else f"{report['channels']} channels"
    text = f"{report['output']}: {report['seconds']:.2f} s, {report['rate']} Hz, {channels}; "
    text += f"{report['engine']} engine, latency {report['latency_ms']:.0f} ms"
    if report["real_time_factor"] is not None:
        text += f", real-time factor {report['real_time_factor']:.4f}"
    if "si_snr" in report:
        before, after = report["noisy_si_snr"], report["si_snr"]
        text += f"\nSI-SNR {before:.2f} dB -> {after:.2f} dB: {report['si_snri']:+.2f} dB"
    return text
