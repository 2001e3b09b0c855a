"""Loihi 2: laws of the placement, of the work it makes for the cores, and of the bounds on time."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from loihi_cases import ENDS, POLICIES, SHIPPED, chain, tight
from test_profile_fixed import make_float

from lrnn.profile import count
from lrnn.profile.loihi import activity, placement_report
from lrnn.profile.loihi.counts import work
from lrnn.profile.loihi.estimate import estimate
from lrnn.profile.loihi.lower import lower
from lrnn.profile.loihi.mesh import hops, position, route
from lrnn.profile.loihi.network import INPUT, Connection, Group, Network
from lrnn.profile.loihi.place import LIMITS, place
from lrnn.profile.loihi.spread import spreads

# Placement


@pytest.mark.parametrize("policy", POLICIES)
def test_what_fits_takes_one_core(policy):
    assert len(place(chain(0.1), policy, ENDS[policy]).cores) == 2


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("limit", ["neurons_per_core", "synaptic_memory", "core_memory", "axons_out"])
def test_splitting_keeps_all_and_no_limit_is_exceeded(policy, limit):
    whole = place(chain(0.3), policy, ENDS[policy])
    used = {"neurons_per_core": "neurons", "synaptic_memory": "synaptic", "core_memory": "memory"}
    most = max(getattr(core, used.get(limit, limit)) for core in whole.cores)
    fixed = ENDS[policy]["program"] if limit == "core_memory" else 0
    values = tight(ENDS[policy], **{limit: fixed + (most - fixed) / 3})
    parts = place(chain(0.3), policy, values)
    assert len(parts.cores) > len(whole.cores)
    for name in ("a", "b"):
        cores = parts.of(name)
        assert [core.first for core in cores] == [0, *(core.last for core in cores[:-1])]
        assert cores[-1].last == 300
    for core in parts.cores:
        for used_name, bound in LIMITS.items():
            assert getattr(core, used_name) <= values[bound]
    for placement in (whole, parts):
        cores, _ = work(chain(0.3), placement)
        assert sum(w.synops for w in cores) == chain(0.3).groups[0].synapses + chain(0.3).groups[1].synapses
        assert sum(w.neurons for w in cores) == 600


def test_halving_takes_powers_of_two_and_never_fewer_cores():
    values = tight(ENDS["packed"], synaptic_memory=6000)
    packed, halved = (place(chain(0.3), policy, values) for policy in POLICIES)
    for name in ("a", "b"):
        parts = len(halved.of(name))
        assert parts & (parts - 1) == 0
        assert len(packed.of(name)) <= parts < 2 * len(packed.of(name))


@pytest.mark.parametrize("policy", POLICIES)
def test_complex_numbers_are_not_cut(policy):
    program = make_float(d_model=60, d_state=40)
    placement = place(lower(program), policy, tight(ENDS[policy], neurons_per_core=7))
    for core in placement.of("blocks.0.ssm.B"):
        assert core.first % 2 == 0
        assert core.neurons <= 6
    assert sum(core.states for core in placement.of("blocks.0.ssm.B")) == 20


@pytest.mark.parametrize("policy", POLICIES)
def test_cores_and_energy_grow_with_density(policy):
    values = tight(ENDS[policy], synaptic_memory=9000)
    found = []
    for density in (0.02, 0.1, 0.3, 0.6, 1.0):
        placement = place(chain(density), policy, values)
        cores, host = work(chain(density), placement)
        made = estimate(cores, host, values, idle_updates=False)
        found.append((len(placement.cores), made.fall_through_energy, made.pipelined_energy))
    for smaller, greater in pairwise(found):
        assert all(a <= b for a, b in zip(smaller, greater, strict=True))
    assert found[0][0] < found[-1][0]


@pytest.mark.parametrize("policy", POLICIES)
def test_time_grows_with_density_and_activity_where_cores_stay(policy):
    def time(density: float, rate: float) -> float:
        network = chain(density)
        rates = {name: np.full(300, rate) for name in ("x", "a")}
        cores, host = work(network, place(network, policy, ENDS[policy]), rates)
        return estimate(cores, host, ENDS[policy], idle_updates=False).fall_through

    assert time(0.05, 1.0) < time(0.1, 1.0) < time(0.2, 1.0)
    assert time(0.2, 0.1) < time(0.2, 0.5) < time(0.2, 1.0)


def test_what_cannot_fit_is_refused_by_name():
    with pytest.raises(
        ValueError, match=r"node 'b': one neuron alone takes .* of a Loihi 2 core's synaptic memory"
    ):
        place(chain(1.0), "packed", tight(ENDS["packed"], synaptic_memory=100))
    with pytest.raises(ValueError, match="node 'b': an input waits 1 steps, expected at most 0"):
        place(chain(1.0), "packed", tight(ENDS["packed"], delay=0))
    with pytest.raises(ValueError, match=r"node 'b': a neuron holds .* bytes"):
        place(chain(1.0), "packed", tight(ENDS["packed"], neuron_state=4))


def test_random_small_programs_never_exceed_limits():
    for seed in range(8):
        random = np.random.default_rng(seed)
        program = make_float(
            density=float(random.random()), seed=seed, d_model=int(12 * random.integers(1, 6)), d_state=8
        )
        for policy in POLICIES:
            values = tight(ENDS[policy], neurons_per_core=int(random.integers(2, 40)))
            placement = place(lower(program), policy, values)
            for core in placement.cores:
                assert all(load <= 1 for load in core.loads(values).values())


# Work, mesh and time


def test_synaptic_operations_are_the_effective_macs():
    frames = np.random.default_rng(0).standard_normal((40, 257)).astype(np.float32)
    found = placement_report(SHIPPED, activity(SHIPPED, frames))
    effective = sum(c.macs_effective for c in count(SHIPPED, frames) if c.op == "fixed_linear")
    network = lower(SHIPPED)
    rates = network.rates(activity(SHIPPED, frames))
    others = sum(rates[c.value].sum() for g in network.groups for c in g.connections if c.mask is None)
    assert found["synops"] == pytest.approx(effective + others)


def test_messages_of_a_small_network_by_hand():
    """Two neurons feed one each; each core has one neuron; all but the second input fire half the time."""
    mask = np.array([[True, False], [True, True]])
    a = Group("a", 2, ("a",), (Connection("a", INPUT, "x", mask),))
    b = Group("b", 2, ("b",), (Connection("b", "a", "a", mask.T),), level=2, is_output=True)
    network = Network(2, (a, b))
    placement = place(network, "packed", tight(ENDS["packed"], neurons_per_core=1))
    cores, host = work(network, placement, {"x": np.array([0.5, 1.0]), "a": np.array([0.5, 0.5])})
    assert [w.synops for w in cores] == [0.5, 1.5, 1.0, 0.5]
    assert [w.received for w in cores] == [0.5, 1.5, 1.0, 0.5]
    assert [w.sent for w in cores] == [0.5, 1.0, 1.0, 1.0]
    assert host.sent == 2.0
    assert host.received == 2.0


def test_routes_join_their_ends_by_neighbours():
    values = ENDS["packed"]
    places = [position(core, values) for core in range(300)]
    assert len(set(places[:128])) == 32
    for start, end in zip(places, places[7:], strict=False):
        links = route(start, end)
        assert len(links) == hops(start, end)
        at = start
        for tail, head in links:
            assert tail == at
            assert hops(tail, head) == 1
            at = head
        assert at == end


def test_a_step_is_bound_by_the_largest_term():
    network = chain(0.2)
    cores, host = work(network, place(network, "packed", ENDS["packed"]))
    for name, term in (
        ("time_synop", "synaptic operations"),
        ("time_neuron", "neuron updates"),
        ("time_read", "memory reads"),
        ("time_message", "messages sent"),
        ("time_barrier", "barrier"),
    ):
        values = tight(ENDS["packed"], **{name: 1e6})
        found = estimate(cores, host, values, idle_updates=False)
        assert found.step.binds == term
        assert {step.binds for step in found.steps} == {term}
    spread = place(network, "packed", tight(ENDS["packed"], neurons_per_core=30))  # over several routers
    values = tight(ENDS["packed"], link_rate=1e-9)
    assert estimate(*work(network, spread), values, idle_updates=False).step.binds == "link"


@pytest.mark.parametrize("policy", POLICIES)
def test_spreading_keeps_all_work_on_one_chip(policy):
    network = lower(SHIPPED)
    base = place(network, policy, ENDS[policy])
    made = list(spreads(network, base))
    sizes = [len(placement.cores) for placement in made]
    assert made[0] is base
    assert sizes == sorted(sizes)
    assert len(base.cores) < sizes[-1] <= ENDS[policy]["cores_per_chip"]
    for placement in made:
        cores, _ = work(network, placement)
        assert sum(w.synops for w in cores) == sum(g.synapses for g in network.groups)
        assert sum(w.neurons for w in cores) == sum(g.neurons for g in network.groups)
    busiest = [max(w.synops for w in work(network, placement)[0]) for placement in made]
    assert busiest == sorted(busiest, reverse=True)


def test_what_takes_more_than_a_chip_is_not_spread():
    base = place(chain(0.5), "packed", tight(ENDS["packed"], neurons_per_core=4))
    assert list(spreads(chain(0.5), base)) == []
