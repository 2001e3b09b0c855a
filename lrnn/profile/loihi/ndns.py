"""The proxies of the Intel Neuromorphic DNS Challenge (track 1), beside what its board has of others.

    power proxy = (synaptic operations + 10 neuron operations) per frame / time of a frame     operations/s
    PDP proxy   = power proxy x latency                                                       operations

Latency is that of the window, of the transforms' computing time and of the network, which delays nothing: the
frame that goes in is the frame that comes out. They are the challenge's own proxies, not the chip's power.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from lrnn.data.denoiser import Denoiser
from lrnn.data.stft_stream import StreamingIstft, StreamingStft
from lrnn.profile.loihi.coefficients import parse
from lrnn.program.program import Program, tensors

FILE = Path(__file__).with_name("ndns.yaml")
NEURON_WEIGHT = 10
"""Synaptic operations that a neuron operation counts for, by the challenge's rules."""


def proxies(synops: float, neurons: int, frame_seconds: float, latency_seconds: float) -> dict:
    """The two proxies.

    Args:
        synops: synaptic operations of a frame.
        neurons: updated in a frame.
        frame_seconds: from one frame to the next.
        latency_seconds: from a sample in to the sample out.
    """
    power = (synops + NEURON_WEIGHT * neurons) / frame_seconds
    return {"power_proxy_ops_per_second": power, "pdp_proxy_ops": power * latency_seconds}


def ndns_report(program: Program, report: dict) -> dict:
    """Proxies of a denoiser, and the published board.

    Args:
        program: a denoiser's, with its front end.
        report: `placement_report` of it.

    Raises:
        ValueError: the Program has no front end.
    """
    denoiser = Denoiser(program)
    rate = denoiser.sample_rate
    transforms = transform_seconds(denoiser)
    window, hop = denoiser.stft.latency / rate, denoiser.stft.hop / rate
    found = parse(FILE)
    held = [tensor for node in program.nodes for tensor in tensors(node).values()]
    return {
        **proxies(report["synops"], report["neurons"], hop, window + transforms),
        "latency_ms": 1e3 * (window + transforms),
        "transforms_ms": 1e3 * transforms,
        "parameters": sum(tensor.size for tensor in held),
        "parameters_nonzero": sum(int(np.count_nonzero(tensor)) for tensor in held),
        "size_kb": _file_bytes(program) / 1e3,
        "board_source": found["source"],
        "board": [dict(zip(found["columns"], row, strict=True)) for row in found["board"]],
    }


def _file_bytes(program: Program) -> int:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "program.lrnn"
        program.save(path)
        return path.stat().st_size


def transform_seconds(denoiser: Denoiser, frames: int = 300) -> float:
    """Median time of one frame's transforms, there and back, in this process and on this machine."""
    forward, back = StreamingStft(denoiser.stft), StreamingIstft(denoiser.stft)
    hops = np.random.default_rng(0).standard_normal((frames, denoiser.stft.hop)).astype(np.float32)
    taken = []
    for hop in hops:
        begun = time.perf_counter()
        back.push(forward.push(hop))
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken)
