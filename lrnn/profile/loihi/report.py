"""The report of a Program on Loihi 2: placement, what binds, times and energies as intervals.

Everything is computed twice: with the favourable end of every coefficient and groups cut into the fewest
cores that fit, and with the other end and groups halved. An interval spans the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np

from lrnn.profile.loihi.coefficients import coefficients
from lrnn.profile.loihi.counts import Work, work
from lrnn.profile.loihi.estimate import Estimate, estimate
from lrnn.profile.loihi.lower import lower
from lrnn.profile.loihi.network import Group, Network
from lrnn.profile.loihi.place import RESOURCES, Placement, place
from lrnn.profile.loihi.spread import spreads
from lrnn.program.program import Program

TITLE = "estimate, not a measurement"
STATEMENT = (
    "Nothing here ran on a chip. Cores follow from published limits under a stated layout, times are lower "
    "bounds with coefficients that are partly Loihi 1's or assumed, energies are dynamic ones of Loihi 1: no "
    "energy of an operation on Loihi 2 is public. What would decide, Intel's compiler and measurements on a "
    "chip, takes Intel's private stack (NxSDK, lava-loihi)."
)
WORST_CASE = "worst case: no number of any value is ever zero"
MEASURED = "measured: how often each number of each value is not zero"
BATCHES = (1, 2, 4, 8, 16, 32)


@dataclass(frozen=True)
class Scenario:
    """A network on the chip, with one end of the coefficients."""

    name: str
    placement: Placement
    cores: list[Work]
    host: Work
    estimate: Estimate


def scenarios(
    network: Network, activity: Mapping[str, np.ndarray] | None = None
) -> tuple[Scenario, Scenario]:
    """The favourable one and the other.

    Raises:
        ValueError: it cannot be placed; names the group.
    """
    known = coefficients()
    return (
        _scenario("packed", network, activity, known.favourable),
        _scenario("halved", network, activity, known.unfavourable),
    )


def _scenario(name: str, network: Network, activity, values: Mapping[str, float]) -> Scenario:
    placement = place(network, name, values)
    cores, host = work(network, placement, activity)
    return Scenario(
        name, placement, cores, host, estimate(cores, host, values, idle_updates=name == "halved")
    )


def _spread(found: tuple[Scenario, Scenario], network: Network, activity) -> dict | None:
    """Cores and modes of the fastest placement on one chip; None where a chip does not hold the network."""
    placed, times = [], []
    for s in found:
        candidates = []
        for placement in spreads(network, s.placement, activity):
            done = work(network, placement, activity)
            made = estimate(*done, placement.values, idle_updates=s.name == "halved")
            candidates.append((made.fall_through, len(placement.cores), placement, made))
        if not candidates:
            return None
        _, _, placement, made = min(candidates, key=lambda c: c[:2])
        placed.append(placement)
        times.append(_times(made))
    return {
        "cores": _interval(len(placement.cores) for placement in placed),
        "modes": {mode: _merge([t[mode] for t in times]) for mode in times[0]},
        "placement": {s.name: _cores(placement) for s, placement in zip(found, placed, strict=True)},
    }


def _cores(placement: Placement) -> list[dict]:
    return [asdict(core) for core in placement.cores]


def placement_report(
    program: Program, activity: Mapping[str, np.ndarray] | None = None, measured_on: str | None = None
) -> dict:
    """Where a Program would go on Loihi 2, and what it would cost: plain JSON values.

    Args:
        program: in fixed point or in float (then the widths of w8a16 are assumed, and said).
        activity: by name of a value, (width,) fractions of frames in which each of its numbers is not zero,
            see `lrnn.profile.loihi.activity`; None is the worst case.
        measured_on: the frames of `activity` in words, for the report.

    Returns:
        intervals are [low, high], words that differ between the two scenarios [favourable's, other's]:
        `title`, `statement`, `assumptions`, `activity` in words; `cores`, `chips`, `neurons`, `synapses`,
        `synops` a frame, `steps` that a frame takes; `layers` with what fills and what bounds each; `modes`
        fall_through and pipelined with latency_us, frames_per_second, energy_uj; `spread`, the same of the
        fastest placement found on one chip, with its cores, or None; `batch` by replication; `placement`,
        every core of both scenarios; `coefficients` with their sources.

    Raises:
        ValueError: it cannot be placed within the limits; names the node.
        ImportError: PyYAML is not installed.
    """
    return report(lower(program), activity, measured_on)


def report(
    network: Network, activity: Mapping[str, np.ndarray] | None = None, measured_on: str | None = None
) -> dict:
    """See placement_report."""
    found = scenarios(network, activity)
    times = [_times(s.estimate) for s in found]
    return {
        "title": TITLE,
        "statement": STATEMENT,
        "target": "loihi2",
        "assumptions": list(network.notes),
        "activity": WORST_CASE
        if activity is None
        else MEASURED + (f", on {measured_on}" if measured_on else ""),
        "cores": _interval(len(s.placement.cores) for s in found),
        "chips": _interval(s.placement.chips for s in found),
        "neurons": sum(g.neurons for g in network.groups),
        "synapses": sum(g.synapses for g in network.groups),
        "synops": sum(w.synops for w in found[0].cores),
        "steps": network.levels,
        "layers": [_layer(g, found) for g in network.groups],
        "modes": {mode: _merge([t[mode] for t in times]) for mode in times[0]},
        "spread": _spread(found, network, activity),
        "batch": [_batch(size, found) for size in BATCHES],
        "placement": {s.name: _cores(s.placement) for s in found},
        "coefficients": coefficients().to_json(),
    }


def _times(e: Estimate) -> dict:
    return {
        "fall_through": {
            "latency_us": e.fall_through / 1e3,
            "frames_per_second": 1e9 / e.fall_through,
            "energy_uj": e.fall_through_energy / 1e6,
            "binds": _longest(e),
        },
        "pipelined": {
            "latency_us": e.pipelined_latency / 1e3,
            "frames_per_second": 1e9 / e.step.nanoseconds,
            "energy_uj": e.pipelined_energy / 1e6,
            "binds": e.step.binds,
        },
    }


def _longest(e: Estimate) -> str:
    """The term in which most of the time of all steps goes."""
    spent: dict[str, float] = {}
    for step in e.steps:
        spent[step.binds] = spent.get(step.binds, 0.0) + step.nanoseconds
    return max(spent, key=spent.get)


def _merge(ends: list[dict]) -> dict:
    """Intervals of figures, lists of words."""
    return {
        name: [end[name] for end in ends] if name == "binds" else _interval(end[name] for end in ends)
        for name in ends[0]
    }


def _layer(group: Group, found: tuple[Scenario, Scenario]) -> dict:
    ends = [_layer_end(group, s) for s in found]
    merged = {
        name: [end[name] for end in ends]
        if name.startswith("binds")
        else _interval(end[name] for end in ends)
        for name in ends[0]
    }
    return {
        "name": group.name,
        "nodes": list(group.nodes),
        "level": group.level,
        "neurons": group.neurons,
        "synapses": group.synapses,
        "synops": sum(w.synops for w in found[0].cores if w.core.group == group.name),
        "delay": group.delay,
        **merged,
    }


def _layer_end(group: Group, s: Scenario) -> dict:
    cores = s.placement.of(group.name)
    limits = s.placement.values
    fullest = max(cores, key=lambda core: max(core.loads(limits).values()))
    resource = fullest.binds(limits)
    step = s.estimate.steps[group.level - 1]
    return {
        "cores": len(cores),
        "load": fullest.loads(limits)[resource],
        "binds": RESOURCES[resource],
        "synaptic_bytes": sum(core.synaptic for core in cores),
        "memory_bytes": sum(core.memory for core in cores),
        "step_ns": step.nanoseconds,
        "binds_time": step.binds,
    }


def _batch(size: int, found: tuple[Scenario, Scenario]) -> dict:
    """So many streams at once, each on a copy of the network; the barrier is common to all."""
    ends = []
    for s in found:
        cores = size * len(s.placement.cores)
        ends.append(
            {
                "cores": cores,
                "chips": -(-cores // int(s.placement.values["cores_per_chip"])),
                "fall_through_frames_per_second": size * 1e9 / s.estimate.fall_through,
                "pipelined_frames_per_second": size * 1e9 / s.estimate.step.nanoseconds,
                "energy_uj": s.estimate.fall_through_energy / 1e6,
            }
        )
    return {"streams": size, **_merge(ends)}


def _interval(ends) -> list:
    found = list(ends)
    return [min(found), max(found)]
