"""A network spread over more cores than it needs, for time's sake: a step lasts as long as its busiest core.

More cores share the work, and more messages go between them, so that the most cores need not be the fastest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from lrnn.profile.loihi.counts import work
from lrnn.profile.loihi.network import Network
from lrnn.profile.loihi.place import Placement, place


def spreads(
    network: Network, base: Placement, activity: Mapping[str, np.ndarray] | None = None
) -> Iterator[Placement]:
    """Placements on one chip: `base`, and with the groups cut so that more and more cores have equal work.

    Args:
        network: what is placed.
        base: the placement with the fewest cores: no group gets fewer.
        activity: how often each number of a value is not zero; None is always.

    Yields:
        placements with the coefficients of `base`; none where that takes more than a chip already.
    """
    cores = int(base.values["cores_per_chip"])
    if len(base.cores) > cores:
        return
    yield base
    times = _times(network, base, activity)
    longest = max(times.values())
    while True:
        longest *= 0.7  # from one placement to the next, half as many cores again at most
        parts = _parts(network, base, times, longest)
        if sum(parts.values()) > cores:
            return
        placement = place(network, "packed", base.values, parts)
        if len(placement.cores) > cores:
            return
        yield placement
        if all(parts[group.name] == group.neurons // group.pair for group in network.groups):
            return


def _times(network: Network, base: Placement, activity: Mapping[str, np.ndarray] | None) -> dict[str, float]:
    """Of each group, the time that its work would take one core."""
    values, times = base.values, {}
    done, _ = work(network, base, activity)
    for group in network.groups:
        mine = [w for w in done if w.core.group == group.name]
        times[group.name] = max(
            sum(w.synops for w in mine) * values["time_synop"],
            sum(w.reads for w in mine) * values["time_read"],
            sum(w.neurons for w in mine) * values["time_neuron"],
        )
    return times


def _parts(network: Network, base: Placement, times: Mapping[str, float], longest: float) -> dict[str, int]:
    """Cores of each group, so that none works longer."""
    return {
        group.name: min(
            max(len(base.of(group.name)), int(np.ceil(times[group.name] / longest))),
            group.neurons // group.pair,
        )
        for group in network.groups
    }
