"""A network as a neuromorphic chip sees it: groups of neurons, and the synapses between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

INPUT = "input"
"""Name of the group that stands for the host, which sends the frames and reads the output."""


@dataclass(frozen=True, eq=False)
class Connection:
    """Synapses from one group to the neurons of another.

    Attributes:
        name: of the node that they carry out.
        source: group that sends, or INPUT.
        value: what it sends, a number of each neuron; a message goes out where it is not zero.
        mask: (neurons of the target, of the source) where there is a synapse; None joins each neuron to the
            one of the same number.
        shared: whether all of them have one weight, which a core then stores once (copies of a value).
        synapses_per_weight: synapses that a weight takes, more than one where it is wide.
        delay: steps that a message waits, so that all inputs of a neuron are of one frame.
    """

    name: str
    source: str
    value: str
    mask: np.ndarray | None = None
    shared: bool = False
    synapses_per_weight: int = 1
    delay: int = 0

    def synapses(self, neurons: int) -> int:
        """Synapses to a target of so many neurons, as they work; a shared weight counts each time."""
        count = neurons if self.mask is None else int(np.count_nonzero(self.mask))
        return count * self.synapses_per_weight


@dataclass(frozen=True, eq=False)
class Group:
    """Neurons that run one program, and the synapses into them.

    Attributes:
        name: of its first node.
        neurons: how many.
        nodes: of the Program that it carries out.
        connections: its inputs.
        variables: bytes of each variable of one neuron: states, parameters, biases.
        sums: sums of synaptic inputs that a neuron keeps apart.
        tables: bytes that all neurons of a core share.
        states: recurrent states of a neuron: 1, half of a complex one, or none.
        pair: 2 where neurons 2 i and 2 i + 1 belong to one complex number and stay together, else 1.
        level: steps after the input at which it works on a frame, from 1.
        is_output: whether the host reads it.
    """

    name: str
    neurons: int
    nodes: tuple[str, ...]
    connections: tuple[Connection, ...]
    variables: tuple[float, ...] = ()
    sums: int = 1
    tables: int = 0
    states: float = 0.0
    pair: int = 1
    level: int = 1
    is_output: bool = False

    @property
    def synapses(self) -> int:
        """Into all its neurons."""
        return sum(c.synapses(self.neurons) for c in self.connections)

    @property
    def delay(self) -> int:
        """The longest of its connections' delays."""
        return max((c.delay for c in self.connections), default=0)


@dataclass(frozen=True, eq=False)
class Network:
    """Groups in an order in which each reads only earlier ones.

    Attributes:
        input_width: numbers of a frame.
        groups: in execution order.
        notes: what was assumed in making it, a sentence each.
    """

    input_width: int
    groups: tuple[Group, ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self):
        widths = {INPUT: self.input_width}
        for group in self.groups:
            for c in group.connections:
                if c.source not in widths:
                    raise ValueError(f"{group.name}: it reads {c.source!r}, which no earlier group makes")
                shape = (group.neurons, widths[c.source])
                found = (shape[0], shape[0]) if c.mask is None else c.mask.shape
                if found != shape:
                    raise ValueError(f"{group.name}: synapses {c.name!r} are {found}, expected {shape}")
            widths[group.name] = group.neurons

    @cached_property
    def widths(self) -> dict[str, int]:
        """Neurons of every group by name, the host's numbers with them."""
        return {INPUT: self.input_width, **{g.name: g.neurons for g in self.groups}}

    @property
    def levels(self) -> int:
        """Steps that one frame takes from the input to the last group."""
        return max(group.level for group in self.groups)

    def readers(self, name: str) -> list[tuple[Group, Connection]]:
        """Who reads a group, by which synapses."""
        return [(g, c) for g in self.groups for c in g.connections if c.source == name]

    def rates(self, activity: Mapping[str, np.ndarray] | None) -> dict[str, np.ndarray]:
        """By value that is sent: how often each of its numbers is not zero, 1 without measurements.

        Args:
            activity: fractions of frames by value, (width,) each; values that are missing count as 1.

        Raises:
            ValueError: a fraction is not within 0 and 1, or a value has another width.
        """
        rates = {}
        for group in self.groups:
            for c in group.connections:
                width = self.widths[c.source]
                rate = np.ones(width) if activity is None else activity.get(c.value)
                rate = np.ones(width) if rate is None else np.asarray(rate, np.float64)
                if rate.shape != (width,):
                    raise ValueError(f"activity[{c.value!r}] has shape {rate.shape}, expected ({width},)")
                if not ((rate >= 0) & (rate <= 1)).all():
                    raise ValueError(f"activity[{c.value!r}] leaves 0 to 1: it is a fraction of frames")
                rates[c.value] = rate
        return rates
