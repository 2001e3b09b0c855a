"""Loihi 2: laws of the placement and the bounds, and what the coefficients' file must say of each."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import ClassVar

import numpy as np
import pytest
from test_profile_fixed import make_float

import lrnn
from lrnn.models import DENOISER, DENOISER_FLOAT
from lrnn.profile import count
from lrnn.profile.loihi import activity, placement_report
from lrnn.profile.loihi import coefficients as known
from lrnn.profile.loihi.counts import work
from lrnn.profile.loihi.estimate import estimate
from lrnn.profile.loihi.lower import FLOAT_NOTE, lower
from lrnn.profile.loihi.mesh import hops, position, route
from lrnn.profile.loihi.network import INPUT, Connection, Group, Network
from lrnn.profile.loihi.place import LIMITS, place
from lrnn.profile.loihi.published import PUBLISHED, validate
from lrnn.profile.loihi.report import BATCHES, report
from lrnn.profile.loihi.spread import spreads
from lrnn.program import nodes

POLICIES = ("packed", "halved")


@pytest.fixture(scope="module")
def coefficients() -> known.Coefficients:
    return known.coefficients()


@pytest.fixture(scope="module")
def ends(coefficients) -> dict:
    return {"packed": coefficients.favourable, "halved": coefficients.unfavourable}


@pytest.fixture(scope="module")
def denoiser() -> lrnn.Program:
    return lrnn.load(DENOISER)


def chain(density: float, width: int = 300, seed: int = 0) -> Network:
    """Two matrices in a row, whose masks grow with the density."""
    random = np.random.default_rng(seed)
    masks = [random.random((width, width)) < density for _ in range(2)]
    first = Group("a", width, ("a",), (Connection("a", INPUT, "x", masks[0]),), (4.0,))
    copy = Connection("b.copy", INPUT, "x", None, shared=True, delay=1)
    second = Group(
        "b", width, ("b",), (Connection("b", "a", "a", masks[1]), copy), (4.0,), level=2, is_output=True
    )
    return Network(width, (first, second))


def tight(values: dict, **limits) -> dict:
    return {**values, **limits}


# The file of coefficients


def test_every_coefficient_has_all_fields(coefficients):
    assert len(coefficients) > 20
    for name, c in coefficients.items():
        assert c.status in known.STATUSES, name
        assert c.chip in ("loihi1", "loihi2"), name
        assert len(c.source) > 10, name
        assert c.unit, name
        assert c.favourable >= 0, name


def test_no_energy_is_said_to_be_of_loihi_2(coefficients):
    energies = [c for name, c in coefficients.items() if name.startswith("energy")]
    assert {c.chip for c in energies} == {"loihi1"}


def test_favourable_ends_are_no_worse(coefficients):
    better_more = {"cores_per_chip", "link_rate", "states_per_core"}
    for name, c in coefficients.items():
        if name in better_more:
            assert c.favourable >= c.unfavourable, name
        else:
            assert c.favourable <= c.unfavourable, name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: {value: 1, unit: ns, source: s, chip: loihi2}", "a has .* expected the fields"),
        ("a: {value: x, unit: ns, source: s, chip: loihi2, status: vendor}", "a has value 'x'"),
        ("a: {value: 1, unit: ns, source: s, chip: loihi2, status: rumour}", "status 'rumour'"),
        (
            "a: {value: [1, 2, 3], unit: ns, source: s, chip: loihi2, status: vendor}",
            "expected a number or two",
        ),
        ("a: {value: 1, unit: '', source: s, chip: loihi2, status: vendor}", "a has an empty field"),
        ("- a", "found list"),
        ("a: [", "not YAML"),
    ],
)
def test_a_wrong_file_is_refused_by_name(tmp_path, text, message):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        known.read(path)
    assert str(path) in str(error.value)


# Lowering


def test_all_synapses_of_a_program_are_its_nonzero_weights(denoiser):
    network = lower(denoiser)
    matrices = sum(int(np.count_nonzero(n.weight)) for n in denoiser.nodes if n.op == "fixed_linear")
    found = sum(c.synapses(g.neurons) for g in network.groups for c in g.connections if c.mask is not None)
    assert found == matrices


def test_every_node_is_placed_once_or_is_the_hosts(denoiser):
    placed = [name for group in lower(denoiser).groups for name in group.nodes]
    assert len(placed) == len(set(placed))
    rest = {node.name for node in denoiser.nodes} - set(placed)
    assert {node.op for node in denoiser.nodes if node.name in rest} == {"fixed_quantize", "fixed_dequantize"}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"relu": "none", "glu": "full"},
        {"norm": "layer"},
        {"relu": "pair", "prenorm": False},
        {"input_exponent": 3},
        {"head": "classification"},
    ],
    ids=str,
)
def test_programs_of_all_forms_are_placed(options, ends):
    program = make_float(**options)
    network = lower(program)
    assert FLOAT_NOTE in network.notes
    arrive = {g.name: g.level for g in network.groups} | {INPUT: 0}
    for group in network.groups:
        for c in group.connections:  # all inputs of a neuron are of one frame
            assert arrive[c.source] + 1 + c.delay == group.level
    found = placement_report(program)
    json.dumps(found)
    assert found["neurons"] == sum(g.neurons for g in network.groups)


def test_a_node_without_a_rule_runs_element_by_element():
    program = make_float()
    made = tuple(
        _Unheard(node.name, node.inputs) if node.name == "blocks.0.sigmoid" else node
        for node in program.nodes
    )
    found = lower(replace(program, nodes=made))
    assert [g.neurons for g in found.groups] == [g.neurons for g in lower(program).groups]


class _Unheard(nodes.Node):
    op = "unheard"


@dataclass(frozen=True, eq=False)
class _Gated(nodes.Node):
    """An HGRN's recurrence: reads a gate for every state, then the states' inputs."""

    op: ClassVar[str] = "gated"
    arity: ClassVar[int] = 2
    rotation: np.ndarray | None = None

    def width(self, widths):
        return widths[1]

    @property
    def state_width(self) -> int:
        return 6


@dataclass(frozen=True, eq=False)
class _Embedding(nodes.Node):
    op: ClassVar[str] = "embedding"
    weight: np.ndarray = field(metadata=nodes.axes("V", "n"))

    def width(self, widths):
        return self.weight.shape[1]


@pytest.mark.parametrize("rotation", [None, np.ones((3, 2), np.float32)], ids=["real", "complex"])
def test_a_gated_recurrence_behind_an_embedding(rotation):
    """Three gates for six states: real ones, or the parts of three complex ones that share a gate."""
    gates = 6 if rotation is None else 3
    program = lrnn.Program(
        "token",
        1,
        (
            _Embedding("embedding", ("token",), np.ones((9, 4), np.float32)),
            nodes.Linear("f", ("embedding",), np.ones((gates, 4), np.float32)),
            nodes.Sigmoid("write", ("f",)),
            nodes.Linear("i", ("embedding",), np.ones((6, 4), np.float32)),
            _Gated("state", ("write", "i"), rotation),
            nodes.Linear("o", ("state",), np.ones((2, 6), np.float32)),
        ),
        "o",
    )
    network = lower(program)
    assert [(g.name, g.neurons, g.level) for g in network.groups] == [
        ("f", gates, 1),
        ("i", 6, 2),
        ("o", 2, 3),
    ]
    assert network.input_width == 4  # the host looks the row up
    state = network.groups[1]
    assert state.states * 6 == gates
    assert state.pair == 6 // gates
    gate = next(c for c in state.connections if c.source == "f")
    assert gate.synapses(6) == 6
    assert state.connections[0].delay == 1
    assert report(network)["neurons"] == gates + 8


def test_a_norm_takes_neurons_that_sum():
    weight, ones = np.ones((4, 3), np.float32), np.ones(4, np.float32)
    made = (nodes.Linear("a", ("x",), weight), nodes.LayerNorm("norm", ("a",), ones, ones))
    groups = lower(lrnn.Program("x", 3, made, "norm")).groups
    assert [(g.name, g.neurons, g.level) for g in groups] == [
        ("a", 4, 1),
        ("norm.sums", 2, 2),
        ("norm", 4, 3),
    ]


# Placement


@pytest.mark.parametrize("policy", POLICIES)
def test_what_fits_takes_one_core(policy, ends):
    assert len(place(chain(0.1), policy, ends[policy]).cores) == 2


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("limit", ["neurons_per_core", "synaptic_memory", "core_memory", "axons_out"])
def test_splitting_keeps_all_and_no_limit_is_exceeded(policy, limit, ends):
    whole = place(chain(0.3), policy, ends[policy])
    used = {"neurons_per_core": "neurons", "synaptic_memory": "synaptic", "core_memory": "memory"}
    most = max(getattr(core, used.get(limit, limit)) for core in whole.cores)
    fixed = ends[policy]["program"] if limit == "core_memory" else 0
    values = tight(ends[policy], **{limit: fixed + (most - fixed) / 3})
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


def test_halving_takes_powers_of_two_and_never_fewer_cores(ends):
    values = tight(ends["packed"], synaptic_memory=6000)
    packed, halved = (place(chain(0.3), policy, values) for policy in POLICIES)
    for name in ("a", "b"):
        parts = len(halved.of(name))
        assert parts & (parts - 1) == 0
        assert len(packed.of(name)) <= parts < 2 * len(packed.of(name))


@pytest.mark.parametrize("policy", POLICIES)
def test_complex_numbers_are_not_cut(policy, ends):
    program = make_float(d_model=60, d_state=40)
    placement = place(lower(program), policy, tight(ends[policy], neurons_per_core=7))
    for core in placement.of("blocks.0.ssm.B"):
        assert core.first % 2 == 0
        assert core.neurons <= 6
    assert sum(core.states for core in placement.of("blocks.0.ssm.B")) == 20


@pytest.mark.parametrize("policy", POLICIES)
def test_cores_and_energy_grow_with_density(policy, ends):
    values = tight(ends[policy], synaptic_memory=9000)
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
def test_time_grows_with_density_and_activity_where_cores_stay(policy, ends):
    def time(density: float, rate: float) -> float:
        network = chain(density)
        rates = {name: np.full(300, rate) for name in ("x", "a")}
        cores, host = work(network, place(network, policy, ends[policy]), rates)
        return estimate(cores, host, ends[policy], idle_updates=False).fall_through

    assert time(0.05, 1.0) < time(0.1, 1.0) < time(0.2, 1.0)
    assert time(0.2, 0.1) < time(0.2, 0.5) < time(0.2, 1.0)


def test_what_cannot_fit_is_refused_by_name(ends):
    with pytest.raises(ValueError, match=r"b: one neuron alone takes .* of synaptic"):
        place(chain(1.0), "packed", tight(ends["packed"], synaptic_memory=100))
    with pytest.raises(ValueError, match="b: an input waits 1 steps, expected at most 0"):
        place(chain(1.0), "packed", tight(ends["packed"], delay=0))
    with pytest.raises(ValueError, match=r"b: a neuron holds .* bytes"):
        place(chain(1.0), "packed", tight(ends["packed"], neuron_state=4))


# Work, mesh and time


def test_synaptic_operations_are_the_effective_macs(denoiser):
    frames = np.random.default_rng(0).standard_normal((40, 257)).astype(np.float32)
    found = placement_report(denoiser, activity(denoiser, frames))
    effective = sum(c.macs_effective for c in count(denoiser, frames) if c.op == "fixed_linear")
    network = lower(denoiser)
    rates = network.rates(activity(denoiser, frames))
    others = sum(rates[c.value].sum() for g in network.groups for c in g.connections if c.mask is None)
    assert found["synops"] == pytest.approx(effective + others)


def test_messages_of_a_small_network_by_hand(ends):
    """Two neurons feed one each; each core has one neuron; all but the second input fire half the time."""
    mask = np.array([[True, False], [True, True]])
    a = Group("a", 2, ("a",), (Connection("a", INPUT, "x", mask),))
    b = Group("b", 2, ("b",), (Connection("b", "a", "a", mask.T),), level=2, is_output=True)
    network = Network(2, (a, b))
    placement = place(network, "packed", tight(ends["packed"], neurons_per_core=1))
    cores, host = work(network, placement, {"x": np.array([0.5, 1.0]), "a": np.array([0.5, 0.5])})
    assert [w.synops for w in cores] == [0.5, 1.5, 1.0, 0.5]
    assert [w.received for w in cores] == [0.5, 1.5, 1.0, 0.5]
    assert [w.sent for w in cores] == [0.5, 1.0, 1.0, 1.0]
    assert host.sent == 2.0
    assert host.received == 2.0


def test_routes_join_their_ends_by_neighbours(ends):
    values = ends["packed"]
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


def test_a_step_is_bound_by_the_largest_term(ends):
    network = chain(0.2)
    cores, host = work(network, place(network, "packed", ends["packed"]))
    for name, term in (
        ("time_synop", "synaptic operations"),
        ("time_neuron", "neuron updates"),
        ("time_read", "memory reads"),
        ("time_message", "messages sent"),
        ("time_barrier", "barrier"),
    ):
        values = tight(ends["packed"], **{name: 1e6})
        found = estimate(cores, host, values, idle_updates=False)
        assert found.step.binds == term
        assert {step.binds for step in found.steps} == {term}
    spread = place(network, "packed", tight(ends["packed"], neurons_per_core=30))  # over several routers
    values = tight(ends["packed"], link_rate=1e-9)
    assert estimate(*work(network, spread), values, idle_updates=False).step.binds == "link"


@pytest.mark.parametrize("policy", POLICIES)
def test_spreading_keeps_all_work_on_one_chip(policy, ends, denoiser):
    network = lower(denoiser)
    base = place(network, policy, ends[policy])
    made = list(spreads(network, base))
    sizes = [len(placement.cores) for placement in made]
    assert made[0] is base
    assert sizes == sorted(sizes)
    assert len(base.cores) < sizes[-1] <= ends[policy]["cores_per_chip"]
    for placement in made:
        cores, _ = work(network, placement)
        assert sum(w.synops for w in cores) == sum(g.synapses for g in network.groups)
        assert sum(w.neurons for w in cores) == sum(g.neurons for g in network.groups)
    busiest = [max(w.synops for w in work(network, placement)[0]) for placement in made]
    assert busiest == sorted(busiest, reverse=True)


def test_what_takes_more_than_a_chip_is_not_spread(ends):
    base = place(chain(0.5), "packed", tight(ends["packed"], neurons_per_core=4))
    assert list(spreads(chain(0.5), base)) == []


# The report


@pytest.fixture(scope="module")
def found(denoiser) -> dict:
    return placement_report(denoiser)


def test_intervals_are_ordered(found):
    def check(value, where):
        if isinstance(value, dict):
            for name, inner in value.items():
                if name not in ("coefficients", "placement"):
                    check(inner, f"{where}.{name}")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            for i, inner in enumerate(value):
                check(inner, f"{where}[{i}]")
        elif isinstance(value, list) and len(value) == 2 and not isinstance(value[0], str):
            assert value[0] <= value[1], where

    check(found, "report")
    assert found["title"] == "estimate, not a measurement"


def test_the_pipeline_is_no_faster_to_an_output_and_no_slower_to_the_next_frame(found):
    fall, pipe = found["modes"]["fall_through"], found["modes"]["pipelined"]
    assert all(f <= p * (1 + 1e-9) for f, p in zip(fall["latency_us"], pipe["latency_us"], strict=True))
    assert all(f <= p for f, p in zip(fall["frames_per_second"], pipe["frames_per_second"], strict=True))


def test_the_fastest_placement_is_no_slower_than_the_smallest(found):
    fast, small = found["spread"], found["modes"]
    assert fast["cores"][1] <= 128
    pairs = zip(fast["modes"]["fall_through"]["latency_us"], small["fall_through"]["latency_us"], strict=True)
    assert all(a <= b for a, b in pairs)


def test_bounds_hold_at_replication(found):
    one = found["batch"][0]
    assert one["cores"] == found["cores"]
    assert [row["streams"] for row in found["batch"]] == list(BATCHES)
    for row in found["batch"]:
        n = row["streams"]
        assert row["cores"] == [n * cores for cores in one["cores"]]
        assert row["energy_uj"] == one["energy_uj"]
        for name in ("fall_through_frames_per_second", "pipelined_frames_per_second"):
            assert row[name] == pytest.approx([n * rate for rate in one[name]])
        assert row["chips"][0] * 128 >= row["cores"][0] > (row["chips"][0] - 1) * 128


def test_measured_activity_costs_no_more_than_the_worst_case(denoiser, found):
    frames = np.random.default_rng(0).standard_normal((40, 257)).astype(np.float32)
    mine = placement_report(denoiser, activity(denoiser, frames))
    assert mine["synops"] < found["synops"]
    for mode in ("fall_through", "pipelined"):
        for name in ("latency_us", "energy_uj"):
            pairs = zip(mine["modes"][mode][name], found["modes"][mode][name], strict=True)
            assert all(a <= b for a, b in pairs)
    assert mine["cores"] == found["cores"]


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        ({"encoder": np.ones(3)}, r"activity\['encoder'\] has shape \(3,\), expected"),
        ({"encoder": np.full(12, 2.0)}, r"activity\['encoder'\] leaves 0 to 1"),
    ],
)
def test_a_wrong_activity_is_refused_by_name(rates, message):
    network = lower(make_float(relu="none"))
    values = {c.value for g in network.groups for c in g.connections}
    rates = {next(v for v in values if v == "encoder"): rates["encoder"]}
    with pytest.raises(ValueError, match=message):
        report(network, rates)


def test_an_empty_program_has_nothing_to_place():
    with pytest.raises(ValueError, match="nothing to place"):
        lower(lrnn.Program("x", 3, (), "x"))


def test_fixed_and_float_of_one_network_are_placed_alike(denoiser):
    floats = placement_report(lrnn.load(DENOISER_FLOAT))
    fixed = placement_report(denoiser)
    assert floats["neurons"] == fixed["neurons"]
    assert floats["cores"] == fixed["cores"]
    assert floats["synapses"] >= fixed["synapses"]  # rounding makes zeros


# Against what others published


def test_published_numbers_of_cores_are_met_within_a_fifth_from_each_other():
    for row, s in zip(validate(), PUBLISHED, strict=True):
        assert s.parameters == pytest.approx(1000 * s.parameters_k, rel=0.01)
        assert row["cores"][0] <= row["published"] <= row["cores"][1]
        assert row["limits"][0] <= row["limits"][1] <= row["published"]
        assert row["predicted"] == pytest.approx(row["published"], rel=0.2)


def test_random_small_programs_never_exceed_limits(ends):
    for seed in range(8):
        random = np.random.default_rng(seed)
        program = make_float(
            density=float(random.random()), seed=seed, d_model=int(12 * random.integers(1, 6)), d_state=8
        )
        for policy in POLICIES:
            values = tight(ends[policy], neurons_per_core=int(random.integers(2, 40)))
            placement = place(lower(program), policy, values)
            for core in placement.cores:
                assert all(load <= 1 for load in core.loads(values).values())
