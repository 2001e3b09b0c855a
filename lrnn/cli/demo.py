"""`lrnn demo`: the shipped denoiser on the shipped clip, with what one wants to see first."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from pathlib import Path

import numpy as np

_WARM_UP = 100


def add(commands) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "demo", help="denoise the shipped clip; prints what it gained and what a frame costs"
    )
    parser.add_argument(
        "--out", metavar="DIR", default="out", help="folder for the WAV files and the picture (default: out)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.set_defaults(run=run)


def run(args) -> int:
    """Denoise, measure, write, tell."""
    from lrnn.data import audio
    from lrnn.data.denoiser import Denoiser
    from lrnn.engine import default_engine
    from lrnn.models import DEMO_CLEAN, DEMO_CLIP, DENOISER, DENOISER_FLOAT

    denoiser, in_float = Denoiser.load(), Denoiser.load(DENOISER_FLOAT)
    noisy = audio.read_mono(DEMO_CLIP, denoiser.sample_rate)
    clean = audio.read_mono(DEMO_CLEAN, denoiser.sample_rate)
    engine = default_engine()
    denoised, seconds = _stream(denoiser, noisy, engine)
    found = {
        "engine": engine,
        "seconds": len(noisy) / denoiser.sample_rate,
        "noisy_si_snr": _si_snr(noisy, clean),
        "si_snr": _si_snr(denoised, clean),
        "float_si_snr": _si_snr(_stream(in_float, noisy, engine)[0], clean),
        "microseconds_per_hop": 1e6 * float(np.median(seconds)),
        "network_microseconds": 1e6 * _network_time(denoiser, noisy, engine),
        "float_microseconds": 1e6 * _network_time(in_float, noisy, engine),
        "dense_pytorch_microseconds": 1e6 * _dense_pytorch_time(in_float, noisy),
        "bytes": os.path.getsize(DENOISER),
        "float_bytes": os.path.getsize(DENOISER_FLOAT),
        "hop_microseconds": 1e6 * denoiser.stft.hop / denoiser.sample_rate,
        "files": _write(Path(args.out), denoiser.sample_rate, noisy, denoised, clean),
    }
    print(json.dumps(found) if args.json else _words(found, denoiser, in_float))
    return 0


def _stream(denoiser, noisy: np.ndarray, engine: str) -> tuple[np.ndarray, list[float]]:
    """The clip hop by hop: denoised samples in line with the input, and the seconds each hop took."""
    stream = denoiser.stream(engine)
    hops = np.pad(noisy, (0, -len(noisy) % stream.hop)).reshape(-1, stream.hop)
    pieces, seconds = [], []
    for hop in hops:
        begun = time.perf_counter()
        pieces.append(stream.step(hop))
        seconds.append(time.perf_counter() - begun)
    pieces.append(stream.flush())
    return np.concatenate(pieces)[stream.delay :][: len(noisy)], seconds


def _si_snr(estimate: np.ndarray, target: np.ndarray) -> float:
    import torch

    from lrnn.data.metrics import si_snr

    return float(si_snr(torch.from_numpy(estimate), torch.from_numpy(target)))


def _network_time(denoiser, noisy: np.ndarray, engine: str) -> float:
    """Median seconds of the sparse network alone on one frame."""
    frames = denoiser.features(noisy, denoiser.sample_rate)
    stream = denoiser.program.stream(engine)
    return _median_seconds(stream.step, frames)


def _dense_pytorch_time(denoiser, noisy: np.ndarray) -> float:
    """Median seconds of the same network on one frame as dense PyTorch: weights baked, eager, one thread."""
    import torch

    from lrnn.profile.bench.eager_step import EagerStep
    from lrnn.profile.bench.timing import torch_threads

    frames = torch.from_numpy(denoiser.features(noisy, denoiser.sample_rate))
    with torch_threads(1), torch.inference_mode():
        return _median_seconds(EagerStep(denoiser.program), frames)


def _median_seconds(step, frames) -> float:
    seconds = []
    for frame in frames:
        begun = time.perf_counter()
        step(frame)
        seconds.append(time.perf_counter() - begun)
    return float(np.median(seconds[_WARM_UP:]))


def _write(folder: Path, rate: int, noisy, denoised, clean) -> list[str]:
    from lrnn.data import audio

    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, samples in (("noisy", noisy), ("denoised", denoised)):
        audio.write(folder / f"demo-{name}.wav", samples, rate)
        written.append(str(folder / f"demo-{name}.wav"))
    try:
        from lrnn.data.spectrogram import plot_spectrograms
    except ImportError:  # without matplotlib the demo has no picture, and says so below
        return written
    plot_spectrograms({"noisy": noisy, "denoised": denoised, "clean": clean}, rate, folder / "demo.png")
    return [*written, str(folder / "demo.png")]


def _command() -> str:
    """How to call lrnn again: its name, or the path it was called by where a shell would not find it."""
    called = Path(sys.argv[0])
    if called.stem != "lrnn" or shutil.which("lrnn"):
        return "lrnn"
    return str(called)


def _words(found: dict, denoiser, in_float) -> str:
    from lrnn.profile.count import count

    costs = count(in_float.program)
    parameters, nonzero = sum(c.parameters for c in costs), sum(c.nonzero for c in costs)
    dense, sparse = sum(c.macs for c in costs), sum(c.macs_weights for c in costs)
    hop, budget = found["microseconds_per_hop"], found["hop_microseconds"]
    network, floats = found["network_microseconds"], found["float_microseconds"]
    torch_us = found["dense_pytorch_microseconds"]
    seconds, engine = found["seconds"], found["engine"]
    before, after, after_floats = found["noisy_si_snr"], found["si_snr"], found["float_si_snr"]
    lrnn = _command()
    no_picture = "\n  (no picture: pip install matplotlib)"
    picture = "" if found["files"][-1].endswith(".png") else no_picture
    return f"""\
A sparse S5 network: {nonzero:,} of {parameters:,} weights, {sparse:,} of {dense:,} MACs a frame,
in fixed point (8-bit weights, 16-bit activations; {found["bytes"] / 1000:.0f} kB) and in float32 \
({found["float_bytes"] / 1000:.0f} kB).
{seconds:.1f} s of synthetic speech in noise, {budget / 1000:.0f} ms a frame, engine {engine}:

                               fixed point               float32
  SI-SNR, {before:.1f} dB before     {after:8.1f} dB ({after - before:+.1f})  \
{after_floats:10.1f} dB ({after_floats - before:+.1f})
  network, one frame          {network:8.1f} us         {floats:10.1f} us
  dense in PyTorch                                {torch_us:10.1f} us   ({torch_us / network:.0f}x)
  whole denoiser, one hop     {hop:8.1f} us   ({budget / hop:.0f}x faster than real time)
  delay of the sound          {1000 * denoiser.stft.latency / denoiser.sample_rate:8.1f} ms

Listen:  {"  ".join(found["files"])}{picture}

Next:
  {lrnn} denoise IN.wav OUT.wav --plot P.png     a recording of your own
  {lrnn} profile                                 where the weights and the time are
  {lrnn} bench stream                            the same ratios, measured with care
  {lrnn} fit -c experiments/denoise-mini.yaml    train and prune one yourself"""
