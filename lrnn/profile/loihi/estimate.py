"""Bounds on the time of a step, and the energy of a frame.

The time is the max-affine lower bound of Timcheck, Pierro and Shrestha (arXiv 2601.10035): a step takes no
less than the busiest core's neuron updates, synaptic operations, reads of synaptic memory or messages sent,
no less than the fullest link's bits, and no less than the barrier. Their coefficients are not public as
numbers: coefficients.yaml has what stands in. The messages that a core sends are no term of theirs: they are
added because Yik et al. (arXiv 2511.21549) find layers on Loihi 2 that traffic binds. Energy is dynamic only,
without leakage, the host's and the board's: no such figure is public.

Modes: "fall-through" sends one frame through all groups, a level a step, before the next enters; "pipelined"
lets every group work on a frame of its own in each step.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lrnn.profile.loihi.counts import Work

TERMS = ("neuron updates", "synaptic operations", "memory reads", "messages sent", "link", "barrier")


@dataclass(frozen=True)
class Bound:
    """Of a step: nanoseconds, and the term that they come from."""

    nanoseconds: float
    binds: str


@dataclass(frozen=True)
class Estimate:
    """One placement with one end of the coefficients.

    Attributes:
        steps: of the levels in order, in fall-through mode.
        step: of the pipelined mode, all groups at work.
        fall_through_energy, pipelined_energy: pJ of a frame.
    """

    steps: tuple[Bound, ...]
    step: Bound
    fall_through_energy: float
    pipelined_energy: float

    @property
    def fall_through(self) -> float:
        """Nanoseconds from a frame in to its output, and to the next frame."""
        return sum(step.nanoseconds for step in self.steps)

    @property
    def pipelined_latency(self) -> float:
        """Nanoseconds from a frame in to its output, where frames come step by step."""
        return len(self.steps) * self.step.nanoseconds


def estimate(cores: Sequence[Work], host: Work, values: Mapping[str, float], idle_updates: bool) -> Estimate:
    """Times and energies.

    Args:
        cores, host: their work for a frame.
        values: one end of the coefficients.
        idle_updates: whether neurons that wait for their level in fall-through mode are updated all the same.
    """
    levels = max(w.level for w in cores)
    steps = []
    for level in range(1, levels + 1):
        active = [w for w in cores if w.level == level]
        arriving = [*active, host] if level == levels else active  # the output leaves in the last step
        updated = cores if idle_updates else active
        steps.append(_bound(active, updated, arriving, values))
    pipelined = _bound(cores, cores, [*cores, host], values)
    updates = sum(w.neurons for w in cores)
    moved = _moved(cores, host, values)
    return Estimate(
        steps=tuple(steps),
        step=pipelined,
        fall_through_energy=moved + updates * values["energy_neuron"] * (levels if idle_updates else 1),
        pipelined_energy=moved + updates * values["energy_neuron"],
    )


def _bound(
    active: Sequence[Work], updated: Iterable[Work], arriving: Iterable[Work], values: Mapping[str, float]
) -> Bound:
    links: dict = {}
    for target in arriving:
        for link, messages in target.links.items():
            links[link] = links.get(link, 0.0) + messages
    fullest = max(links.values(), default=0.0) * values["message_size"]
    times = (
        max(w.neurons for w in updated) * values["time_neuron"],
        max(w.synops for w in active) * values["time_synop"],
        max(w.reads for w in active) * values["time_read"],
        max(w.sent for w in active) * values["time_message"],
        fullest / values["link_rate"],
        values["time_barrier"],
    )
    longest = max(times)
    return Bound(longest, TERMS[times.index(longest)])


def _moved(cores: Sequence[Work], host: Work, values: Mapping[str, float]) -> float:
    """pJ of synaptic operations and messages; the host's messages cost their hops only."""
    synops = sum(w.synops for w in cores)
    sent = sum(w.sent for w in cores)
    passed = sum(w.hops for w in (*cores, host))
    return synops * values["energy_synop"] + sent * values["energy_message"] + passed * values["energy_hop"]
