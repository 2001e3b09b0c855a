"""Audio files and sample rates: the one place that knows soundfile and soxr.

Samples are float32 in -1..1, shape (n, channels). Reading a file whole or in blocks gives the same numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import numpy as np

from lrnn.files import written_whole

EXTENSIONS = (".wav", ".flac")


@dataclass(frozen=True)
class AudioInfo:
    """What a file's header says: rate in Hz, channels, samples per channel, subtype such as "PCM_16"."""

    rate: int
    channels: int
    frames: int
    subtype: str


def info(path) -> AudioInfo:
    """Read a header."""
    with _open(path) as file:
        return AudioInfo(file.samplerate, file.channels, file.frames, file.subtype)


def read(path, rate: int | None = None) -> tuple[np.ndarray, int]:
    """Read a whole file in any format soundfile knows; NaN or infinity in it is an error.

    Args:
        path: the file.
        rate: resample to this many Hz; None keeps the file's rate.

    Returns:
        samples (n, channels) float32, and their rate.
    """
    with _open(path) as file:
        samples, found = _finite(path, file.read(dtype="float32", always_2d=True)), file.samplerate
    return (samples, found) if rate is None else (resample(samples, found, rate), rate)


def read_mono(path, rate: int) -> np.ndarray:
    """Read a whole file as the mean of its channels at `rate` Hz: (n,) float32."""
    samples, _ = read(path, rate)
    return samples[:, 0] if samples.shape[1] == 1 else samples.mean(1)


def blocks(path, frames: int) -> Iterator[np.ndarray]:
    """Read a file in pieces of (at most `frames`, channels) float32."""
    with _open(path) as file:
        while len(block := file.read(frames, dtype="float32", always_2d=True)):
            yield _finite(path, block)


def write(path, samples: np.ndarray, rate: int, subtype: str | None = None) -> None:
    """Write (n,) or (n, channels) float samples, whole or not at all; see `writer`."""
    samples = np.asarray(samples)
    with writer(path, rate, 1 if samples.ndim == 1 else samples.shape[1], subtype) as append:
        append(samples)


@contextmanager
def writer(path, rate: int, channels: int, subtype: str | None = None):
    """Open a file to write: yields a function that appends (n,) or (n, channels) float samples.

    The extension names the format. A subtype the format cannot hold is replaced by the format's default.
    Samples beyond -1..1 are clipped unless the subtype is a float. The file appears under its name when the
    block ends well, and not at all when it raises.
    """
    path = Path(path)
    soundfile = _soundfile()
    format = path.suffix[1:].upper()
    if format not in soundfile.available_formats():
        raise ValueError(
            f"{path}: {path.suffix!r} is no format soundfile writes, expected .wav, .flac, .ogg ..."
        )
    if subtype not in soundfile.available_subtypes(format):
        subtype = soundfile.default_subtype(format)

    def append(samples):
        file.write(_for_subtype(samples, subtype))

    try:
        with (
            written_whole(path) as temporary,
            soundfile.SoundFile(temporary, "w", rate, channels, subtype, format=format) as file,
        ):
            yield append
    except soundfile.LibsndfileError as error:
        raise ValueError(f"{path}: cannot write audio: {error.error_string}") from None


def _for_subtype(samples: np.ndarray, subtype: str) -> np.ndarray:
    if subtype == "PCM_16":
        return to_int16(samples)  # libsndfile rounds down: files read and written again would drift
    return samples if subtype in ("FLOAT", "DOUBLE") else np.clip(samples, -1, 1)


def to_int16(samples: np.ndarray) -> np.ndarray:
    """Float samples in -1..1 as 16-bit integers, rounded, clipped beyond."""
    return np.clip(np.round(samples * 32768.0), -32768, 32767).astype(np.int16)


def resample(samples: np.ndarray, rate: int, new_rate: int) -> np.ndarray:
    """Resample (n, ...) along the first axis to round(n new_rate / rate) samples, aligned with the input."""
    if rate == new_rate or not len(samples):
        return samples
    return _soxr().resample(samples, rate, new_rate)


class Resampler:
    """One channel resampled piece by piece; the pieces together equal `resample` of the whole.

    Args:
        rate: of the input, in Hz.
        new_rate: of the output.
    """

    def __init__(self, rate: int, new_rate: int):
        self._stream = (
            None if rate == new_rate else _soxr().ResampleStream(rate, new_rate, 1, dtype="float32")
        )

    def push(self, samples: np.ndarray) -> np.ndarray:
        """Take (n,) float32, return what is finished (soxr keeps some milliseconds back)."""
        return samples if self._stream is None else self._stream.resample_chunk(samples)

    def flush(self) -> np.ndarray:
        """The rest; nothing may be pushed afterwards."""
        nothing = np.zeros(0, np.float32)
        return nothing if self._stream is None else self._stream.resample_chunk(nothing, last=True)


@contextmanager
def _open(path):
    soundfile = _soundfile()
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such audio file")
    try:
        file = soundfile.SoundFile(path)
    except soundfile.LibsndfileError as error:
        raise ValueError(f"{path}: not an audio file soundfile can read: {error.error_string}") from None
    with file:
        yield file


def _finite(path, samples: np.ndarray) -> np.ndarray:
    if not np.isfinite(samples).all():
        raise ValueError(f"{path}: NaN or infinite samples, expected finite numbers")
    return samples


def _soundfile():
    return _require("soundfile")


def _soxr():
    return _require("soxr")


def _require(name: str):
    try:
        return import_module(name)
    except (ImportError, OSError) as error:  # soundfile raises OSError where libsndfile is missing
        raise ImportError(f"audio files need the package {name} ({error}): pip install lrnn[audio]") from None
