"""Loihi 2: what the coefficients' file must say of each, and how a Program becomes groups of neurons."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
import pytest
from fixed_cases import ranges_of
from loihi_cases import KNOWN, SHIPPED
from test_profile_fixed import make_float

import lrnn
from lrnn.profile.loihi import activity, placement_report
from lrnn.profile.loihi import coefficients as known
from lrnn.profile.loihi.lower import FLOAT_NOTE, lower
from lrnn.profile.loihi.network import INPUT
from lrnn.profile.loihi.report import report
from lrnn.program import compile_fixed, nodes

# The file of coefficients


def test_every_coefficient_has_all_fields():
    assert len(KNOWN) > 20
    for name, c in KNOWN.items():
        assert c.status in known.STATUSES, name
        assert c.chip in ("loihi1", "loihi2"), name
        assert len(c.source) > 10, name
        assert c.unit, name
        assert c.favourable >= 0, name


def test_no_energy_is_said_to_be_of_loihi_2():
    energies = [c for name, c in KNOWN.items() if name.startswith("energy")]
    assert {c.chip for c in energies} == {"loihi1"}


def test_favourable_ends_are_no_worse():
    better_more = {"cores_per_chip", "link_rate", "states_per_core"}
    for name, c in KNOWN.items():
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


def test_all_synapses_of_a_program_are_its_nonzero_weights():
    network = lower(SHIPPED)
    matrices = sum(int(np.count_nonzero(n.weight)) for n in SHIPPED.nodes if n.op == "fixed_linear")
    found = sum(c.synapses(g.neurons) for g in network.groups for c in g.connections if c.mask is not None)
    assert found == matrices


def test_every_node_is_placed_once_or_is_the_hosts():
    placed = [name for group in lower(SHIPPED).groups for name in group.nodes]
    assert len(placed) == len(set(placed))
    rest = {node.name for node in SHIPPED.nodes} - set(placed)
    assert {node.op for node in SHIPPED.nodes if node.name in rest} == {"fixed_quantize", "fixed_dequantize"}


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
def test_programs_of_all_forms_are_placed(options):
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


@pytest.mark.parametrize(("scheme", "wide"), [("w8a16", 1), ("loihi2", 1), ("w16a16", 2)])
def test_wide_weights_take_several_synapses(scheme, wide):
    floats = make_float(density=0.4)
    x = np.random.default_rng(0).standard_normal((50, 5)).astype(np.float32)
    program = compile_fixed(floats, ranges_of(floats, x), scheme)
    for group in lower(program).groups:
        for c in group.connections:
            if c.mask is not None:
                assert c.synapses(group.neurons) == wide * np.count_nonzero(c.mask)
    assert placement_report(program, activity(program, x))["synops"] > 0


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


@pytest.mark.parametrize("gates", [6, 3], ids=["real", "complex"])
def test_a_gated_recurrence_behind_an_embedding(gates):
    """Six numbers of state: real ones with a gate each, or the parts of three complex ones that share one."""
    program = lrnn.Program(
        "token",
        1,
        (
            _Embedding("embedding", ("token",), np.ones((9, 4), np.float32)),
            nodes.Linear("f", ("embedding",), np.ones((gates, 4), np.float32)),
            nodes.Sigmoid("write", ("f",)),
            nodes.Linear("i", ("embedding",), np.ones((6, 4), np.float32)),
            _Gated("state", ("write", "i")),
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


def test_an_affine_map_is_synapses_to_another_group_and_a_product_in_its_own():
    ones = np.ones(3, np.float32)
    matrix = np.ones((3, 3), np.float32)
    first, second = nodes.Linear("a", ("x",), matrix), nodes.Linear("b", ("a",), matrix)
    for source, connections in (("a", ["b", "map"]), ("b", ["b", "sum"])):
        made = (first, second, nodes.Affine("map", (source,), ones, ones))
        other = "b" if source == "a" else "a"
        program = lrnn.Program("x", 3, (*made, nodes.Add("sum", ("map", other))), "sum")
        groups = lower(program).groups
        assert [g.nodes for g in groups] == [("a",), ("b", "map", "sum")]
        assert [c.name for c in groups[1].connections] == connections
        assert [c.delay for c in groups[1].connections] == [0, 0]
        assert len(groups[1].variables) == (1 if source == "a" else 2)  # the shift, and the scale
        assert report(lower(program))["neurons"] == 6


def test_a_norm_takes_neurons_that_sum():
    weight, ones = np.ones((4, 3), np.float32), np.ones(4, np.float32)
    made = (nodes.Linear("a", ("x",), weight), nodes.LayerNorm("norm", ("a",), ones, ones))
    groups = lower(lrnn.Program("x", 3, made, "norm")).groups
    assert [(g.name, g.neurons, g.level) for g in groups] == [
        ("a", 4, 1),
        ("norm.sums", 2, 2),
        ("norm", 4, 3),
    ]
