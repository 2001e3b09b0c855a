"""Taps: where an activation is watched while ranges are found, and rounded from then on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lrnn.quant.exponent import (
    MOST_EXPONENT,
    MOST_GATE_EXPONENT,
    SATURATED_SIGMOID,
    exponent_for_range,
    largest_integer,
)
from lrnn.quant.fake import fake_clamp, fake_round
from lrnn.quant.found import Site
from lrnn.quant.observer import Histogram
from lrnn.quant.ranges import Observer, Range
from lrnn.quant.scheme import Scheme
from lrnn.quant.sites import walk

Side = Literal["input", "output"]
_OBSERVERS = get_args(Observer)
_CHILD = {"input": "quantize_input", "output": "quantize_output"}


class Tap(nn.Module):
    """Rounds what enters or leaves a module to the grid of its range: a hook that is a child of the module.

    Its range is part of the state dict. Without one it refuses to run.

    Args:
        site: what is tapped.
        scheme: widths and rounding.
    """

    def __init__(self, site: Site, scheme: Scheme):
        super().__init__()
        self.site_name, self.kind, self.narrow = site.name, site.kind, site.narrow
        self.scheme = scheme
        self.watching: Histogram | None = None
        self.passes = False  # everything, untouched
        self.calibration: tuple[Range, Observer, int] | None = None  # range, observer, clips
        self._grid: tuple[int, float] = (0, 0.0)
        self._handle: RemovableHandle | None = None

    def attach(self, owner: nn.Module, side: Side) -> None:
        """Become a child and a hook of `owner`."""
        owner.add_module(_CHILD[side], self)
        if side == "input":
            self._handle = owner.register_forward_pre_hook(self._before)
        else:
            self._handle = owner.register_forward_hook(self._after)

    def detach(self, owner: nn.Module) -> None:
        """Leave it."""
        self._handle.remove()
        for name in [name for name, child in owner.named_children() if child is self]:
            delattr(owner, name)

    def _before(self, _: nn.Module, args: tuple) -> tuple:
        return (self(args[0]), *args[1:])

    def _after(self, _: nn.Module, __: tuple, output: Tensor | tuple) -> Tensor | tuple:
        return (self(output[0]), *output[1:]) if isinstance(output, tuple) else self(output)

    def forward(self, x: Tensor) -> Tensor:
        """Watch, or bound, or round."""
        if self.watching is not None:
            self.watching.see(x)
            return x
        if self.passes:
            return x
        if self.calibration is None:
            raise RuntimeError(
                f"value {self.site_name!r} was not calibrated; call lrnn.quant.calibrate_model first"
            )
        exponent, bound = self._grid
        if self.kind == "state":
            return fake_clamp(x, bound)
        scheme = self.scheme
        x = fake_round(x, exponent, self.bits, scheme.rounding)
        if self.narrow and scheme.matrix_input_bits < scheme.activation_bits:
            dropped = scheme.activation_bits - scheme.matrix_input_bits
            x = fake_round(x, exponent - dropped, scheme.matrix_input_bits, scheme.rounding)
        return x

    def calibrate(self, found: Range, observer: Observer, clips: int) -> None:
        """Fix the grid.

        Raises:
            ValueError: the range is zero; names the value.
        """
        exponent = message_exponent(
            found,
            self.bits,
            made_by_sigmoid=self.kind in ("sigmoid", "opening"),
            read_by_sigmoid=self.kind == "before_sigmoid",
            name=self.site_name,
        )
        if self.kind == "gate":
            exponent = min(exponent, MOST_GATE_EXPONENT)
        self._grid = exponent, largest_integer(self.bits) * 2.0**-exponent
        self.calibration = found, observer, clips

    @property
    def bits(self) -> int:
        """Width of the value's integers."""
        if self.kind == "state":
            return self.scheme.state_bits
        return self.scheme.gate_bits if self.kind in ("opening", "gate") else self.scheme.activation_bits

    @property
    def clips_range(self) -> bool:
        """Whether an observer may clip: not what a recurrence carries, nor its gate."""
        return self.kind not in ("state", "carried", "opening", "gate")

    def get_extra_state(self) -> Tensor:
        """(6,) float64: max_abs, min, max, count, observer, clips; empty before calibration.

        A tensor, because much code takes a state dict to hold nothing else.
        """
        if self.calibration is None:
            return torch.empty(0, dtype=torch.float64)
        found, observer, clips = self.calibration
        values = (found.max_abs, found.min, found.max, found.count, _OBSERVERS.index(observer), clips)
        return torch.tensor(values, dtype=torch.float64)

    def set_extra_state(self, state: Tensor) -> None:
        """See get_extra_state."""
        if len(state):
            max_abs, low, high, count, observer, clips = state.tolist()
            self.calibrate(Range(max_abs, low, high, int(count)), _OBSERVERS[int(observer)], int(clips))

    def extra_repr(self) -> str:
        """Value and grid."""
        grid = "not calibrated" if self.calibration is None else f"exponent={self._grid[0]}"
        return f"{self.site_name!r}, {self.kind}, {grid}"


def message_exponent(
    found: Range, bits: int, *, made_by_sigmoid: bool, read_by_sigmoid: bool, name: str
) -> int:
    """Of the finest grid of so many bits that holds a range.

    A sigmoid's own saturates at 1 by the last bit; what only a sigmoid reads is held up to 16.

    Raises:
        ValueError: the range is zero; names the value.
    """
    if made_by_sigmoid:
        return bits - 1
    if found.max_abs == 0:
        raise ValueError(f"value {name!r} is zero on all calibration data, so that no scale fits it")
    largest = min(found.max_abs, SATURATED_SIGMOID) if read_by_sigmoid else found.max_abs
    return max(-MOST_EXPONENT, min(MOST_EXPONENT, exponent_for_range(largest, bits)))


def taps(module: nn.Module) -> Iterator[tuple[nn.Module, Tap]]:
    """All taps below a module with their owners."""
    for owner in module.modules():
        for child in owner.children():
            if isinstance(child, Tap):
                yield owner, child


def named_taps(module: nn.Module) -> Iterator[tuple[str, Tap]]:
    """All taps with the names of their values as seen from a module, which need not be the one prepared."""
    for site in walk(module).sites:
        tap = getattr(site.owner, _CHILD[site.side], None)
        if isinstance(tap, Tap):
            yield site.name, tap


@contextmanager
def passing(module: nn.Module) -> Iterator[None]:
    """Every tap lets everything pass while the block runs."""
    found = [tap for _, tap in taps(module)]
    for tap in found:
        tap.passes = True
    try:
        yield
    finally:
        for tap in found:
            tap.passes = False
