"""A Program as groups of neurons.

A matrix begins a group: its rows are neurons, its nonzero weights synapses. What follows element by element
(ReLU, tables, the recurrence, products, sums) runs in the microcode of those neurons, and a value of another
group comes in over synapses one to one. A norm takes a group of its own and a few neurons that sum over the
vector. What converts between numbers and integers at the two ends is the host's, and so is an embedding,
whose row it sends. Nodes that have no rule here run element by element, and what they hold is counted from
their tensors and states.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from lrnn.profile.loihi.network import INPUT, Connection, Group, Network
from lrnn.program.nodes import Node
from lrnn.program.program import Program, tensors

_HOST = {"round", "fixed_quantize", "fixed_dequantize", "log_softmax", "embedding", "fixed_embedding"}
_ADD = {"add", "fixed_add"}
_AFFINE = {"affine", "fixed_affine"}
_NORM = {"layer_norm", "rms_norm", "fixed_norm"}
_PAIR = {"diagonal", "pair_relu", "fixed_diagonal", "fixed_pair_relu"}
_SHARED_TENSORS = {"table"}  # one for all neurons of a core

# Of a Program in float, in bytes: what the scheme w8a16 makes of it.
_FLOAT_WEIGHT, _FLOAT_PARAMETER, _FLOAT_STATE = 1, 2, 3
FLOAT_NOTE = "the Program is in float: 8-bit weights, 16-bit parameters and 24-bit states are assumed"


@dataclass
class _Building:
    """A group in the making; `order` is its place among the groups."""

    order: int
    neurons: int
    nodes: list[str] = field(default_factory=list)
    connections: list[Connection] = field(default_factory=list)
    variables: list[float] = field(default_factory=list)
    sums: int = 1
    tables: int = 0
    states: float = 0.0
    pair: int = 1
    is_output: bool = False
    level: int = 0


def lower(program: Program) -> Network:
    """The groups of a Program.

    Raises:
        ValueError: no node of it is a neuron's work: there is nothing to place.
    """
    return _Lowering(program).network()


class _Lowering:
    def __init__(self, program: Program):
        self.program = program
        self.groups: list[_Building] = []
        self.home: dict[str, _Building | None] = {program.input: None}  # None is the host
        self.sent = {program.input: program.input}  # what a value is called where it was made
        self.diagonal: dict[str, Node] = {}  # affine maps that run as synapses, by value
        self.readers: dict[str, list[Node]] = {}
        for node in program.nodes:
            for name in node.inputs:
                self.readers.setdefault(name, []).append(node)

    def network(self) -> Network:
        for node in self.program.nodes:
            self._place(node)
        if not self.groups:
            raise ValueError("the Program has no node for a neuron: there is nothing to place")
        output = self.home[self.program.output]
        if output is not None:
            output.is_output = True
        self._levels()
        notes = () if self.program.is_fixed else (FLOAT_NOTE,)
        names = {id(g): g.nodes[0] for g in self.groups}
        groups = tuple(self._finish(g, names) for g in self.groups)
        return Network(self._host_width(groups), groups, notes)

    def _host_width(self, groups: Sequence[Group]) -> int:
        """Numbers of a frame that the host sends."""
        values = [c.value for g in groups for c in g.connections if c.source == INPUT]
        return max((self.program.widths[value] for value in values), default=self.program.input_width)

    def _place(self, node: Node) -> None:
        width = self.program.widths[node.name]
        homes = [self.home[name] for name in node.inputs]
        if node.op in _HOST and (homes[0] is None or self._ends(node)):
            self.home[node.name] = homes[0]
            self.sent[node.name] = node.name if homes[0] is None else self.sent[node.inputs[0]]
            return
        if _is_matrix(node):
            group = self._new(width)
            group.connections.append(self._matrix(node))
            self._hold(group, node, skip={"weight"})
        elif node.op in _NORM:
            group = self._norm(node, width)
        elif node.op in _AFFINE and homes[0] is not None and self._joins(node):
            self.diagonal[node.name] = node
            self.home[node.name] = homes[0]
            self.sent[node.name] = self.sent[node.inputs[0]]
            return
        else:
            group = self._join(node, homes, width)
        group.nodes.append(node.name)
        self.home[node.name] = group
        self.sent[node.name] = node.name

    def _ends(self, node: Node) -> bool:
        """Whether nothing but the host's nodes follow."""
        return all(n.op in _HOST and self._ends(n) for n in self.readers.get(node.name, ()))

    def _joins(self, node: Node) -> bool:
        """Whether an affine map only feeds sums of other groups, and so can be their synapses."""
        readers = self.readers.get(node.name, [])
        other = [n for r in readers for n in r.inputs if n != node.name]
        mine = self.home[node.inputs[0]]
        return (
            bool(readers)
            and all(r.op in _ADD for r in readers)
            and all(self.home.get(n) is not mine for n in other)
        )

    def _new(self, neurons: int) -> _Building:
        self.groups.append(_Building(len(self.groups), neurons))
        return self.groups[-1]

    def _matrix(self, node: Node) -> Connection:
        wide = node.weight.dtype.itemsize if node.weight.dtype.kind == "i" else _FLOAT_WEIGHT
        return Connection(node.name, "", self.sent[node.inputs[0]], node.weight != 0, False, wide)

    def _join(self, node: Node, homes: list, width: int) -> _Building:
        """The group that an element-wise node runs in: the last of those that it reads."""
        known = [g for g in homes if g is not None]
        group = max(known, key=lambda g: g.order) if known else self._new(width)
        for name, home in zip(node.inputs, homes, strict=True):
            if name in self.diagonal:
                self._map(group, home, self.diagonal[name])
            elif home is not group:
                copies = self._copies(self.program.widths[name], group.neurons)
                group.connections.append(Connection(node.name, "", self.sent[name], copies, True))
                group.sums += node.op not in _ADD
        halved = any(2 * self.program.widths[name] == width for name in node.inputs)  # a gate of both parts
        pair = 2 if node.op in _PAIR or halved else 1
        group.pair = max(group.pair, pair)
        if node.state_width >= width:
            group.states += 1 / pair
        self._hold(group, node)
        return group

    def _map(self, group: _Building, home: _Building, node: Node) -> None:
        """An affine map on its way into a sum: synapses one to one, or in the same group a product."""
        if home is group:
            self._hold(group, node)
        else:
            size = node.scale.dtype.itemsize if node.scale.dtype.kind == "i" else _FLOAT_WEIGHT
            group.connections.append(Connection(node.name, "", self.sent[node.name], None, False, size))
            self._hold(group, node, skip={"scale"})
        group.nodes.append(node.name)

    def _copies(self, width: int, neurons: int) -> np.ndarray | None:
        """Synapses one to one; where a gate counts for both parts of a complex number, one to two."""
        return None if width == neurons else np.repeat(np.eye(width, dtype=bool), neurons // width, axis=0)

    def _norm(self, node: Node, width: int) -> _Building:
        """Neurons that scale, and before them one that sums over the vector, or two where means are taken."""
        sums = self._new(2 if getattr(node, "centred", node.op == "layer_norm") else 1)
        sums.nodes.append(f"{node.name}.sums")
        self.home[sums.nodes[0]], self.sent[sums.nodes[0]] = sums, sums.nodes[0]
        sent = self.sent[node.inputs[0]]
        sums.connections.append(Connection(sums.nodes[0], "", sent, np.ones((sums.neurons, width), bool)))
        group = self._new(width)
        group.connections.append(Connection(node.name, "", sent, None, True))
        group.connections.append(
            Connection(node.name, "", sums.nodes[0], np.ones((width, sums.neurons), bool))
        )
        group.sums += 1
        self._hold(group, node)
        return group

    def _hold(self, group: _Building, node: Node, skip: set[str] = frozenset()) -> None:
        """Count what a node's neurons hold: parameters that are not all zero, and states."""
        for name, tensor in tensors(node).items():
            if name in skip or not np.any(tensor):
                continue
            size = tensor.dtype.itemsize if tensor.dtype.kind == "i" else _FLOAT_PARAMETER
            if name in _SHARED_TENSORS:
                group.tables += tensor.size * size
            else:
                group.variables += [size] * math.ceil(tensor.size / group.neurons)
        if node.state_width:
            fixed = np.dtype(node.state_dtype).kind == "i"
            size = np.dtype(node.state_dtype).itemsize if fixed else _FLOAT_STATE
            group.variables += [size] * math.ceil(node.state_width / group.neurons)

    def _levels(self) -> None:
        """How many steps after the input a group works on a frame; delays make up for shorter ways."""
        for group in self.groups:
            sources = [self._source(c) for c in group.connections]
            group.level = 1 + max((s.level for s in sources if s is not None), default=0)

    def _source(self, connection: Connection) -> _Building | None:
        return self.home[connection.value]

    def _finish(self, group: _Building, names: Mapping[int, str]) -> Group:
        connections = []
        for c in group.connections:
            source = self._source(c)
            level = 0 if source is None else source.level
            connections.append(
                replace(
                    c, source=INPUT if source is None else names[id(source)], delay=group.level - 1 - level
                )
            )
        return Group(
            name=names[id(group)],
            neurons=group.neurons,
            nodes=tuple(group.nodes),
            connections=tuple(connections),
            variables=tuple(group.variables),
            sums=group.sums,
            tables=group.tables,
            states=group.states,
            pair=group.pair,
            level=group.level,
            is_output=group.is_output,
        )


def _is_matrix(node: Node) -> bool:
    weight = getattr(node, "weight", None)
    return isinstance(weight, np.ndarray) and weight.ndim == 2
