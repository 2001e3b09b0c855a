"""What stock netx computes of a `.net` file of dense layers, in integers, and the bounds that keep it exact.

A sigma-delta layer of lava-dl 0.6.0, with a threshold of 0 and `spike_exp` 0, sends the differences of

    y = max(W x + 64 b, 0) >> 6

with >> rounding down: the shift is 6 in every layer, a bias is a whole number of the output's last place, and
nothing saturates. That holds where every sum fits the simulator's 32 bits, which it neither checks nor clips.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lrnn.program.fixed.format import Format

SHIFT = 6
"""`state_exp` of netx's sigma-delta neurons."""
MOST_WEIGHT = 127
"""Of a synapse's 8 bits: -128 could not be negated, and has no double in 9 bits."""
MESSAGE_BITS = 24
"""Of what a Loihi 2 neuron sends, with the sign."""
SUM_BITS = 32
"""Of the simulator's sums."""
CORE_SUM_BITS = 24
"""Of a dendrite's accumulator on the chip."""


@dataclass(frozen=True, eq=False)
class Layer:
    """One dense layer; a node that only shifts is one with a diagonal weight.

    Args:
        node: name of the fixed-point node that it is.
        weight: (rows, cols) int8.
        bias: (rows,) int64, in units of the output.
    """

    node: str
    weight: np.ndarray
    bias: np.ndarray

    def step(self, x: np.ndarray) -> np.ndarray:
        """Frames (..., cols) int64 -> (..., rows)."""
        sums = x @ self.weight.T.astype(np.int64) + (self.bias << SHIFT)
        return np.maximum(sums, 0) >> SHIFT


@dataclass(frozen=True, eq=False)
class Stack:
    """Dense layers one after another, and what their integers mean.

    Args:
        layers: the first reads the input.
        source: name of the value that it reads.
        value: name of the value that it makes.
        input: format of the value that it reads.
        exponent: of the value that it makes, which is `(y - offset) * 2 ** -exponent`.
        offset: what the last layer adds so that a value of either sign passes its ReLU; 0 where it has one.
    """

    layers: tuple[Layer, ...]
    source: str
    value: str
    input: Format
    exponent: int
    offset: int = 0

    @property
    def input_width(self) -> int:
        """Numbers per frame that go in."""
        return self.layers[0].weight.shape[1]

    @property
    def output_width(self) -> int:
        """Numbers per frame that come out."""
        return self.layers[-1].weight.shape[0]

    @property
    def lag(self) -> int:
        """Time steps from a frame's arrival to its output: one for each layer."""
        return len(self.layers)

    def run(self, x: np.ndarray) -> np.ndarray:
        """The value that the stack makes, as the program's integers: the reference.

        Args:
            x: (T, input_width) integers within `input`.

        Returns:
            (T, output_width) int64, without the offset.

        Raises:
            ValueError: another shape, floats, or an integer beyond what `input` can hold.
        """
        y = self.checked(x)
        for layer in self.layers:
            y = layer.step(y)
        return y - self.offset

    def bounded(self) -> Iterator[tuple[Layer, Bounds]]:
        """Each layer with the bounds of what it reads."""
        bounds = Bounds.of(self.input, self.input_width)
        for layer in self.layers:
            yield layer, bounds
            bounds = bounds.rectified(layer)

    def checked(self, x: np.ndarray) -> np.ndarray:
        """Frames as int64; see `run` for what is refused."""
        x = np.asarray(x)
        if x.ndim != 2 or x.shape[1] != self.input_width or x.dtype.kind not in "iu":
            raise ValueError(
                f"x has shape {x.shape}, {x.dtype}; expected integers of shape (frames, {self.input_width})"
            )
        low, high = self.input.low, self.input.high
        if x.size and (x.min() < low or x.max() > high):
            raise ValueError(f"x has integers from {x.min()} to {x.max()}, expected {low} to {high}")
        return x.astype(np.int64)


@dataclass(frozen=True, eq=False)
class Bounds:
    """The least and the greatest that each element of a value can be, zero included: all states begin there.

    Args:
        low: (n,) int64, at most 0.
        high: (n,) int64, at least 0.
    """

    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of(cls, value: Format, width: int) -> Bounds:
        """Of any vector of a format."""
        return cls(np.full(width, min(value.low, 0), np.int64), np.full(width, max(value.high, 0), np.int64))

    def sums(self, weight: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Least and greatest W x + 64 b of each row."""
        up, down = np.maximum(weight, 0).astype(np.int64), np.minimum(weight, 0).astype(np.int64)
        bias = bias.astype(np.int64) << SHIFT
        return up @ self.low + down @ self.high + bias, up @ self.high + down @ self.low + bias

    def rectified(self, layer: Layer) -> Bounds:
        """Of what a layer makes of it."""
        _, high = self.sums(layer.weight, layer.bias)
        high = np.maximum(high, 0) >> SHIFT
        return Bounds(np.zeros_like(high), high)

    def shifted(self, shift: int) -> Bounds:
        """Of it after a shift to the right, rounded down."""
        return Bounds(self.low >> shift, self.high >> shift)

    def widest(self, weight: np.ndarray) -> np.ndarray:
        """Of each row, the greatest that a synapse sums: the simulator multiplies differences of two frames,
        and weights shifted to fill its nine bits.
        """
        magnitudes = np.abs(weight.astype(np.int64))
        return (magnitudes @ (self.high - self.low)) << weight_shift(weight)


def weight_shift(weight: np.ndarray) -> int:
    """By how many bits netx shifts a matrix to the left before it is multiplied, and its sums back after.

    Signed matrices lie in -256 to 254, others in 0 to 255 or -256 to -1 (Loihi's sign modes).
    """
    most, least = int(weight.max()), int(weight.min())
    if most > 0 and least < 0:
        return _log2(min(127 / most, 128 / -least)) + 1
    if least >= 0:
        return _log2(255 / most)
    # A matrix that has no positive weight counts as signed if it has a zero.
    return _log2(256 / -least) if most < 0 else _log2(128 / -least) + 1


def _log2(scale: float) -> int:
    return int(np.floor(np.log2(scale)))
