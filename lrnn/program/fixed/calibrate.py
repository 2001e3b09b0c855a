"""The range of every value of a program on data."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from lrnn.program.program import Program
from lrnn.quant import Observer, Range, Ranges

_SHIFT = 16  # of a float32's bits: bins of 128 to the octave


def calibrate(
    program: Program,
    clips: Iterable[np.ndarray],
    observer: Observer = "minmax",
    percentile: float = 99.999,
) -> Ranges:
    """Run a program in float on clips, each from a state of zeros, and see how far its values go.

    Args:
        program: in float.
        clips: (T, input_width) frames each.
        observer: what `max_abs` is: "minmax", the greatest magnitude, or "percentile", the magnitude that so
            many percent of the numbers of a value do not exceed, to 1 % (zeros do not count).
        percentile: above 0, up to 100.

    Raises:
        ValueError: no frames, a clip of another shape, NaN or infinity in a clip or a value; the observer
            is another.
    """
    import torch

    from lrnn.program.torch_executor import TorchExecutor

    if observer not in ("minmax", "percentile"):
        raise ValueError(f"observer is {observer!r}, expected 'minmax' or 'percentile'")
    if not 0 < percentile <= 100:
        raise ValueError(f"percentile is {percentile}, expected above 0 and up to 100")
    executor, seen = TorchExecutor(program), {name: _Seen() for name in program.widths}
    count = 0
    for count, clip in enumerate(clips, 1):
        frames = np.asarray(clip, np.float32)
        if frames.ndim != 2 or not len(frames):
            raise ValueError(
                f"clip {count - 1} has shape {frames.shape}, expected (frames, {program.input_width})"
            )
        with torch.inference_mode():
            values, _ = executor.trace(torch.from_numpy(frames)[None])
        for name, value in values.items():
            seen[name].see(value.numpy(), name)
    if not count:
        raise ValueError("no clips to calibrate on")
    share = 1.0 if observer == "minmax" else percentile / 100
    return Ranges({name: found.range(share) for name, found in seen.items()}, observer, count)


class _Seen:
    """Extremes of a value and a histogram of its magnitudes, by the upper bits of their float32."""

    def __init__(self):
        self.low, self.high = np.inf, -np.inf
        self.counts = np.zeros(1 << (31 - _SHIFT), np.int64)

    def see(self, value: np.ndarray, name: str) -> None:
        if not np.isfinite(value).all():
            raise ValueError(f"value {name!r} has NaN or infinite numbers on the calibration data")
        self.low, self.high = min(self.low, float(value.min())), max(self.high, float(value.max()))
        bins = np.abs(value).reshape(-1).view(np.uint32) >> _SHIFT
        self.counts += np.bincount(bins, minlength=len(self.counts))

    def range(self, share: float) -> Range:
        largest = max(-self.low, self.high)
        counts = self.counts.copy()
        counts[0] = 0  # zeros and denormals: a ReLU makes many
        if share < 1 and counts.any():
            enough = np.searchsorted(np.cumsum(counts), share * counts.sum())
            edge = np.array((enough + 1) << _SHIFT, np.uint32).view(np.float32)
            largest = min(largest, float(edge))
        return Range(largest, self.low, self.high, int(self.counts.sum()))
