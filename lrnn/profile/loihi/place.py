"""Which neurons go to which core, within the published limits.

A group has cores of its own: one microcode program to a core, as Lava's compiler was seen to do. It is cut
into the fewest equal parts that fit ("packed"), or into halves of halves as that compiler does ("halved").
A core stores, for every axon that comes in, the synapses to its neurons: of all of them the weight only, of
a part weight and number, whichever is smaller. A weight is shared by copies of a value only, and never by
the entries of a matrix.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

from lrnn.profile.loihi.network import Connection, Group, Network

Policy = Literal["packed", "halved"]

LIMITS = {
    "neurons": "neurons_per_core",
    "states": "states_per_core",
    "synaptic": "synaptic_memory",
    "memory": "core_memory",
    "axons_in": "axons_in",
    "axons_out": "axons_out",
}
"""What a core uses up, by the coefficient that bounds it."""

RESOURCES = {
    "neurons": "neurons",
    "states": "recurrent states",
    "synaptic": "synaptic memory",
    "memory": "memory",
    "axons_in": "fan-in (axons)",
    "axons_out": "fan-out (axons)",
}
"""The same in words."""


@dataclass(frozen=True)
class Core:
    """A part of a group.

    Attributes:
        index: counted from 0 over all chips.
        group: its name.
        first, last: neurons of the group, `last` not included.
        neurons: of them, in numbers; `states` recurrent ones among them, a complex one counted once.
        synaptic: bytes of synapses.
        memory: bytes in all: synapses, neurons, axons, program.
        axons_in, axons_out: entries of its tables.
    """

    index: int
    group: str
    first: int
    last: int
    neurons: int
    states: float
    synaptic: float
    memory: float
    axons_in: int
    axons_out: int

    def loads(self, limits: Mapping[str, float]) -> dict[str, float]:
        """Fractions of the limits that it uses."""
        return {name: getattr(self, name) / limits[bound] for name, bound in LIMITS.items()}

    def binds(self, limits: Mapping[str, float]) -> str:
        """The resource of which the greatest part is used."""
        loads = self.loads(limits)
        return max(loads, key=loads.get)


@dataclass(frozen=True)
class Placement:
    """All cores, in the order of the groups.

    Attributes:
        policy: how groups were cut.
        cores: in order; their numbers follow the mesh.
        values: the coefficients that were used, one end of each.
    """

    policy: Policy
    cores: tuple[Core, ...]
    values: Mapping[str, float]

    @property
    def chips(self) -> int:
        """That hold the cores."""
        return math.ceil(len(self.cores) / self.values["cores_per_chip"])

    def of(self, group: str) -> list[Core]:
        """Cores of a group."""
        return [core for core in self.cores if core.group == group]


def place(
    network: Network, policy: Policy, values: Mapping[str, float], least: Mapping[str, int] | None = None
) -> Placement:
    """Cut the groups into cores.

    Args:
        network: what to place.
        policy: "packed" or "halved".
        values: one end of the coefficients.
        least: cores that a group has at least, by its name, for time's sake; 1 where it is not named.

    Raises:
        ValueError: a group cannot be cut so that it fits, or waits longer than delays go; names its node.
    """
    parts: dict[str, list[dict]] = {}
    for group in reversed(network.groups):  # what reads a group says how many axons leave its neurons
        if group.delay > (most := values["delay"]):
            raise ValueError(
                f"node {group.name!r}: an input waits {group.delay} steps, expected at most {most:g}"
            )
        leaving = _leaving(network, group, parts)
        parts[group.name] = _cut(group, policy, values, leaving, (least or {}).get(group.name, 1))
    placed = [{"group": group.name, **part} for group in network.groups for part in parts[group.name]]
    return Placement(policy, tuple(Core(index, **part) for index, part in enumerate(placed)), values)


def fan(connection: Connection, first: int, last: int, width: int) -> np.ndarray:
    """(width,) synapses of every neuron of the source to the neurons [first, last) of the target."""
    if connection.mask is not None:
        return np.count_nonzero(connection.mask[first:last], axis=0) * connection.synapses_per_weight
    counts = np.zeros(width, np.int64)
    counts[first:last] = connection.synapses_per_weight
    return counts


def stored_bits(connection: Connection, counts: np.ndarray, neurons: int, values: Mapping) -> np.ndarray:
    """Bits of synaptic memory that the synapses of each axon fill, in whole words.

    Args:
        connection: what is stored.
        counts: synapses of every axon, of `fan`.
        neurons: of the core.
        values: one end of the coefficients.
    """
    weight = values["weight_bits"] + values["synapse_overhead"]
    bits = counts * (weight + math.ceil(math.log2(max(neurons, 2))))
    if connection.mask is not None:
        every = neurons * connection.synapses_per_weight * weight
        bits = np.where(counts > 0, np.minimum(bits, every), 0)
    return np.ceil(bits / values["synapse_word"]) * values["synapse_word"]


def _leaving(network: Network, group: Group, parts: dict[str, list[dict]]) -> np.ndarray:
    """(neurons,) axons that leave each neuron: one for every core and connection that it reaches."""
    leaving = np.full(group.neurons, int(group.is_output))
    for reader, connection in network.readers(group.name):
        for part in parts[reader.name]:
            leaving += fan(connection, part["first"], part["last"], group.neurons) > 0
    return leaving


def _cut(
    group: Group, policy: Policy, values: Mapping[str, float], leaving: np.ndarray, least: int
) -> list[dict]:
    units = group.neurons // group.pair
    for count in _counts(units, policy, least):
        ends = [group.pair * (units * i // count) for i in range(count + 1)]
        ends[-1] = group.neurons
        parts = []
        for first, last in pairwise(ends):
            part = _usage(group, first, last, values, leaving)
            if any(part[name] > values[bound] for name, bound in LIMITS.items()):
                break
            parts.append(part)
        if len(parts) == count:
            return parts
    one = _usage(group, 0, group.pair, values, leaving)
    over = {name: bound for name, bound in LIMITS.items() if one[name] > values[bound]}
    name, bound = next(iter(over.items()))
    raise ValueError(
        f"node {group.name!r}: one neuron alone takes {one[name]:,.0f} of a Loihi 2 core's "
        f"{RESOURCES[name]}, expected at most {values[bound]:,.0f} ({bound} in coefficients.yaml)"
    )


def _counts(units: int, policy: Policy, least: int) -> Iterator[int]:
    count = least
    while count < units:
        yield count
        count = 2 * count if policy == "halved" else count + 1
    yield units


def _usage(group: Group, first: int, last: int, values: Mapping[str, float], leaving: np.ndarray) -> dict:
    """What the neurons [first, last) of a group take of a core."""
    neurons = last - first
    bits, entries = 0.0, 0
    for c in group.connections:
        if c.mask is None:
            each = stored_bits(c, np.array(c.synapses_per_weight), neurons, values)
            bits += float(each) * (1 if c.shared else neurons)
            entries += neurons
        else:
            counts = fan(c, first, last, c.mask.shape[1])
            bits += float(stored_bits(c, counts, neurons, values).sum())
            entries += int(np.count_nonzero(counts))
    word = values["variable_word"]
    state = sum(math.ceil(size / word) * word for size in group.variables)
    sums = (group.sums + group.delay) * math.ceil(values["accumulator"] / word) * word
    if state + sums > values["neuron_state"]:
        raise ValueError(
            f"node {group.name!r}: a neuron holds {state + sums:,.0f} bytes, "
            f"expected at most {values['neuron_state']:,.0f}"
        )
    out = int(leaving[first:last].sum())
    memory = bits / 8 + neurons * (state + sums) + (entries + out) * values["axon_entry"]
    return {
        "first": first,
        "last": last,
        "neurons": neurons,
        "states": neurons * group.states,
        "synaptic": bits / 8,
        "memory": memory + values["program"] + group.tables,
        "axons_in": entries,
        "axons_out": out,
    }
