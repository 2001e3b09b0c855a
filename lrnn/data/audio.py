"""Audio files and sample rates: the one place that knows soundfile, soxr and torchaudio.

Samples are float32 in -1..1, shape (n, channels). Reading a file whole or in blocks gives the same numbers.

soundfile reads and writes. soxr resamples: it works piece by piece and gives the same numbers beside any
torch. torchaudio resamples whole arrays where soxr is missing and torchaudio imports, and lists Speech
Commands. It is in no extra: its last wheels (2.11) do not load beside a newer torch (OSError at import), and
its own file reading needs torchcodec. `backends` says which of them are live, or why not.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from math import ceil, gcd
from pathlib import Path

import numpy as np

from lrnn.data.faults import Fault
from lrnn.files import written_whole

EXTENSIONS = (".wav", ".flac")
MARGIN_SECONDS = 0.05
"""What soxr's filter reaches beyond a sample; more is read around a span that is resampled."""


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


def check(path) -> AudioInfo:
    """Read a header, and see that the samples it promises are there: of a WAV file all of them; other formats
    tell when they are read.

    Raises:
        FileNotFoundError, or Fault: no audio, no samples, or fewer than the header says.
    """
    with _open(path) as file:
        if missing := _missing_bytes(path):
            raise Fault(f"{path}: truncated, {missing:,} bytes short of what its header says", "truncated")
        if not file.frames:
            raise Fault(f"{path}: no samples", "silent")
        return AudioInfo(file.samplerate, file.channels, file.frames, file.subtype)


def _missing_bytes(path) -> int:
    """Bytes of samples that a WAV file's header promises beyond the file's end; 0 for other formats.

    soundfile reads such a file as a shorter one. A size of 2^32 - 1 stands for "unknown" (a file that was
    written to a pipe) and promises nothing.
    """
    with open(path, "rb") as file:
        head = file.read(12)
        if head[:4] != b"RIFF" or head[8:] != b"WAVE":
            return 0
        size = file.seek(0, 2)
        place = 12
        while place + 8 <= size:
            file.seek(place)
            chunk = file.read(8)
            length = int.from_bytes(chunk[4:], "little")
            if chunk[:4] == b"data":
                return 0 if length == 0xFFFFFFFF else max(place + 8 + length - size, 0)
            place += 8 + length + length % 2
    return 0


def read(path, rate: int | None = None) -> tuple[np.ndarray, int]:
    """Read a whole file in any format soundfile knows; NaN or infinity in it is an error.

    Args:
        path: the file.
        rate: resample to this many Hz; None keeps the file's rate.

    Returns:
        samples (n, channels) float32, and their rate.
    """
    with _open(path) as file:
        samples, found = _decoded(path, file, -1), file.samplerate
    return (samples, found) if rate is None else (resample(samples, found, rate), rate)


def read_mono(path, rate: int) -> np.ndarray:
    """Read a whole file as the mean of its channels at `rate` Hz: (n,) float32."""
    return _mono(read(path, rate)[0])


def resampled_length(info: AudioInfo, rate: int) -> int:
    """Samples of a file at `rate` Hz."""
    return round(info.frames * rate / info.rate)


def read_span(path, start: int, stop: int, rate: int) -> np.ndarray:
    """Samples [start, stop) of a file at `rate` Hz, the mean of its channels: (stop - start,) float32.

    Whatever is read together, a sample is the same: a file of another rate is resampled second by second,
    each second from a little more than itself.
    """
    with _open(path) as file:
        if file.samplerate == rate:
            return _mono(_read(path, file, start, stop))
        seconds = range(start // rate, -(-stop // rate))
        pieces = [_resampled_second(path, file, second, rate) for second in seconds]
        found = np.concatenate([np.zeros(0, np.float32), *pieces])
    first = start - seconds.start * rate
    return found[first : first + stop - start]


def _resampled_second(path, file, second: int, rate: int) -> np.ndarray:
    """At most `rate` samples, from which on `second` begins."""
    common = gcd(file.samplerate, rate)  # so often per second, samples of both rates coincide
    margin = ceil(MARGIN_SECONDS * common)
    before = min(margin, second * common)
    first = second * file.samplerate - before * file.samplerate // common
    last = (second + 1) * file.samplerate + margin * file.samplerate // common
    piece = _mono(_read(path, file, first, min(last, file.frames)))
    skipped = before * rate // common
    return resample(piece, file.samplerate, rate)[skipped : skipped + rate]


def _read(path, file, start: int, stop: int) -> np.ndarray:
    """Samples [start, stop) of an open file, (stop - start, channels)."""
    try:
        file.seek(start)
    except _soundfile().LibsndfileError:
        raise Fault(f"{path}: ends before sample {start}", "truncated") from None
    samples = _decoded(path, file, stop - start)
    if len(samples) != stop - start:
        raise Fault(f"{path}: {len(samples)} samples from {start} on, expected {stop - start}", "truncated")
    return samples


def _decoded(path, file, frames: int) -> np.ndarray:
    """The next samples of an open file, (at most `frames`, channels); -1 is all."""
    whole = file.subtype == "PCM_16"  # libsndfile's own conversion to float takes ten times as long
    try:
        samples = file.read(frames, dtype="int16" if whole else "float32", always_2d=True)
    except _soundfile().LibsndfileError as error:
        raise Fault(f"{path}: truncated or damaged: {error.error_string}", "truncated") from None
    return samples * np.float32(1 / 32768) if whole else _finite(path, samples)


def _mono(samples: np.ndarray) -> np.ndarray:
    return samples[:, 0] if samples.shape[1] == 1 else samples.mean(1)


def blocks(path, frames: int) -> Iterator[np.ndarray]:
    """Read a file in pieces of (at most `frames`, channels) float32."""
    with _open(path) as file:
        while len(block := _decoded(path, file, frames)):
            yield block


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
    try:
        return _import("soxr").resample(samples, rate, new_rate)
    except ImportError as error:
        torchaudio, reason = _torchaudio()
        if torchaudio is None:
            raise ImportError(
                f"resampling needs the package soxr ({error}) or torchaudio ({reason}): "
                "pip install lrnn[audio]"
            ) from None
    import torch

    columns = torch.from_numpy(np.ascontiguousarray(np.moveaxis(samples, 0, -1)))  # (..., n)
    resampled = torchaudio.functional.resample(columns, rate, new_rate)  # (..., ceil(n new_rate / rate))
    return np.moveaxis(resampled.numpy(), -1, 0)[: round(len(samples) * new_rate / rate)]


class Resampler:
    """One channel resampled piece by piece; the pieces together equal `resample` of the whole.

    Args:
        rate: of the input, in Hz.
        new_rate: of the output.
    """

    def __init__(self, rate: int, new_rate: int):
        self._stream = (
            None if rate == new_rate else _require("soxr").ResampleStream(rate, new_rate, 1, dtype="float32")
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
        raise Fault(f"{path}: not an audio file soundfile can read: {error.error_string}") from None
    with file:
        yield file


def _finite(path, samples: np.ndarray) -> np.ndarray:
    if not np.isfinite(samples).all():
        raise Fault(f"{path}: NaN or infinite samples, expected finite numbers", "not finite")
    return samples


def backends() -> dict[str, str]:
    """What reads files, what resamples, and whether torchaudio could: "live: ..." or "off: ..." and why."""
    torchaudio, reason = _torchaudio()
    theirs = f"off: {reason}" if torchaudio is None else f"live: torchaudio {torchaudio.__version__}"
    found = {}
    for purpose, name in (("audio files", "soundfile"), ("resampling", "soxr")):
        try:
            found[purpose] = f"live: {name} {_import(name).__version__}"
        except ImportError as error:
            found[purpose] = f"off: {error}"
    if found["resampling"].startswith("off"):
        return {**found, "resampling": theirs, "torchaudio": theirs}
    return {**found, "torchaudio": theirs + "; soxr resamples" * (torchaudio is not None)}


def speech_commands(folder, subset: str) -> list[str] | None:
    """A split as torchaudio.datasets.SPEECHCOMMANDS lists it: paths below `folder` such as "down/x.wav".

    Args:
        folder: that the corpus was unpacked into, named speech_commands_v0.01 or v0.02.
        subset: "training", "validation" or "testing".

    Returns:
        None where torchaudio does not import.
    """
    torchaudio, _ = _torchaudio()
    if torchaudio is None:
        return None
    place = Path(folder).resolve()
    root, archive = place.parent.parent, place.parent.name
    dataset = torchaudio.datasets.SPEECHCOMMANDS(root, place.name, archive, subset=subset)
    return ["/".join(Path(dataset.get_metadata(n)[0]).parts[-2:]) for n in range(len(dataset))]


def _torchaudio():
    """The module and None, or None and the reason."""
    try:
        return _import("torchaudio"), None
    except ImportError as error:
        hint = "; install it from the index that torch came from" if "OSError" in str(error) else ""
        return None, f"{error}{hint}"


def _soundfile():
    return _require("soundfile")


def _require(name: str):
    try:
        return _import(name)
    except ImportError as error:
        raise ImportError(f"audio files need the package {name} ({error}): pip install lrnn[audio]") from None


def _import(name: str):
    """A module; where it is missing, or built for another torch or without its library, ImportError."""
    try:
        return import_module(name)
    except OSError as error:
        raise ImportError(f"OSError: {str(error).splitlines()[0]}") from None
