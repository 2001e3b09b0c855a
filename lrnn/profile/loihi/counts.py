"""What a frame makes each core do: synaptic operations, neuron updates, reads and messages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from lrnn.profile.loihi.mesh import HOST, Place, hops, position, route
from lrnn.profile.loihi.network import INPUT, Network
from lrnn.profile.loihi.place import Core, Placement, fan, stored_bits


@dataclass
class Work:
    """Of one core for one frame, means over frames.

    Attributes:
        core: which.
        level: step after the input at which it works on the frame.
        synops: synaptic operations: synapses of the messages that come in.
        neurons: neuron updates.
        reads: words of synaptic memory.
        received: messages that come in.
        sent: messages that go out, one for every core and connection that is reached.
        links: messages on each link on their way to this core.
        hops: links that those messages pass, summed.
    """

    core: Core
    level: int
    synops: float = 0.0
    neurons: int = 0
    reads: float = 0.0
    received: float = 0.0
    sent: float = 0.0
    links: dict[tuple[Place, Place], float] = field(default_factory=dict)
    hops: float = 0.0


def work(
    network: Network, placement: Placement, activity: Mapping[str, np.ndarray] | None = None
) -> tuple[list[Work], Work]:
    """Of every core in order, and of the host, which reads the output and sends the frames.

    Args:
        network: what was placed.
        placement: of it.
        activity: how often each number of a value is not zero; None is the worst case, always.

    Raises:
        ValueError: see Network.rates.
    """
    rates = network.rates(activity)
    groups = {group.name: group for group in network.groups}
    found = {
        core.index: Work(core, groups[core.group].level, neurons=core.neurons) for core in placement.cores
    }
    host = Work(Core(-1, INPUT, 0, network.input_width, network.input_width, 0, 0, 0, 0, 0), 0)
    places = {core.index: position(core.index, placement.values) for core in placement.cores}
    senders = {name: placement.of(name) for name in groups} | {INPUT: [host.core]}
    for core in placement.cores:
        for c in groups[core.group].connections:
            rate = rates[c.value]
            counts = fan(c, core.first, core.last, network.widths[c.source])
            words = np.ceil(
                stored_bits(c, counts, core.neurons, placement.values) / placement.values["read_word"]
            )
            arriving = rate * (counts > 0)
            mine = found[core.index]
            mine.synops += float(rate @ counts)
            mine.reads += float(rate @ words)
            mine.received += float(arriving.sum())
            for sender in senders[c.source]:
                messages = float(arriving[sender.first : sender.last].sum())
                origin = found.get(sender.index, host)
                _send(origin, mine, messages, places.get(sender.index, HOST), places[core.index])
    for group in network.groups:
        if group.is_output:
            for core in placement.of(group.name):
                host.received += core.neurons  # every number of the output leaves, zero or not
                _send(found[core.index], host, core.neurons, places[core.index], HOST)
    return list(found.values()), host


def _send(origin: Work, target: Work, messages: float, start: Place, end: Place) -> None:
    origin.sent += messages
    target.hops += messages * hops(start, end)
    for link in route(start, end):
        target.links[link] = target.links.get(link, 0.0) + messages
