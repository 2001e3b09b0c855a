"""Where a command's samples come from: an audio file, or raw PCM on standard input as it arrives."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lrnn.data import audio

PIPE = "-"
PCM_RATE = 16000
PCM_BYTES = 65536  # at most, from a pipe; less where less is there


@dataclass
class Source:
    """Samples and what is known of them; `blocks` gives (n, channels) float32 and can be read once."""

    rate: int
    channels: int
    subtype: str
    n_blocks: int | None  # None where it is not known
    blocks: Iterator[np.ndarray]


def open_source(path: str, rate: int | None) -> Source:
    """The file at `path`, or standard input for "-".

    Args:
        path: an audio file, or "-" for raw PCM: 16 bit little-endian, mono.
        rate: of the PCM in Hz; None is 16,000.
    """
    if path == PIPE:
        return Source(rate or PCM_RATE, 1, "PCM_16", None, _read_pcm(sys.stdin.buffer))
    info = audio.info(path)
    n_blocks = -(-info.frames // info.rate)
    return Source(info.rate, info.channels, info.subtype, n_blocks, audio.blocks(path, info.rate))


def check_rate(rate: int | None, path: str) -> None:
    """ValueError where --rate is given for a file, or is no rate."""
    if rate is not None and path != PIPE:
        raise ValueError("--rate is for raw PCM on stdin; the file IN names its own")
    if rate is not None and rate < 1:
        raise ValueError(f"--rate is {rate}, expected a positive number of Hz")


def _read_pcm(file) -> Iterator[np.ndarray]:
    """Samples as soon as they arrive, (n, 1) float32."""
    rest = b""
    while data := file.read1(PCM_BYTES):
        data = rest + data
        whole = len(data) - len(data) % 2
        data, rest = data[:whole], data[whole:]
        yield np.frombuffer(data, "<i2").astype(np.float32)[:, None] / 32768
    if rest:
        raise ValueError("stdin: an odd number of bytes, expected samples of 16 bits")
