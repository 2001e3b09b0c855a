"""A fixed-point Program as Lava sees it: groups of neurons that run a few nodes each, and synapses.

A message takes one step through a synapse and none through a neuron, so every group lags behind the input by
a number of steps, its latency. All that a group reads must belong to one frame: what comes from nearer to the
input is delayed in its synapse. The Program knows nothing of this; the delays are made here.
"""

from __future__ import annotations

from dataclasses import dataclass

from lrnn.program import Program
from lrnn.program.fixed.nodes import Affine, Dequantize, Linear
from lrnn.program.nodes import Node

MOST_DELAY = 62  # steps, as netx has it; the chip's field has 6 bits
SOURCE = -1  # the group of what the host computes: the program's input in integers
_ENCODERS = ("fixed_quantize", "fixed_embedding")  # what makes integers of the program's input


@dataclass(frozen=True)
class Synapse:
    """What carries one value to one group.

    Attributes:
        value: what it carries.
        group: index of the group that reads it.
        matrix: the node whose weights it multiplies by; None hands the value on as it is.
        delay: steps beyond the one that every synapse takes.
    """

    value: str
    group: int
    matrix: Linear | None
    delay: int

    @property
    def name(self) -> str:
        """Of what arrives: the matrix's node, else the value."""
        return self.matrix.name if self.matrix else self.value


@dataclass(frozen=True)
class Group:
    """Neurons that run `nodes` in order in every step, each on its own numbers (but for a norm's sums).

    Attributes:
        nodes: in the order of the program.
        latency: steps that it lags behind the input.
        sends: values that other groups, or the host, read.
    """

    nodes: tuple[Node, ...]
    latency: int
    sends: tuple[str, ...]

    @property
    def name(self) -> str:
        """Of its last node."""
        return self.nodes[-1].name


@dataclass(frozen=True)
class Graph:
    """Groups, each after those that it reads, and synapses; `input` and `output` are values of integers."""

    program: Program
    input: str
    output: str
    groups: tuple[Group, ...]
    synapses: tuple[Synapse, ...]

    @property
    def latency(self) -> int:
        """Steps from the input to the output."""
        return next(g.latency for g in self.groups if self.output in g.sends)


def make_graph(program: Program) -> Graph:
    """Group the nodes of a fixed-point program, and balance the delays.

    Raises:
        ValueError: the program is in float, has other ends than one integer input and output, or a delay
            does not fit; names the node.
    """
    source, output = _ends(program)
    grouping = _Grouping(source)
    for node in program.nodes:
        if node.name not in (source, program.output):
            grouping.add(node)
    if output == source:
        raise ValueError("the program has no node between its two ends, expected some to run on Lava")
    grouping.sink_scales(output)
    latency = grouping.latencies()
    index = {group: i for i, group in enumerate(latency)}
    synapses = [
        Synapse(value, index[group], matrix, latency[group] - 1 - latency.get(grouping.owner[value], 0))
        for group in latency
        for value, matrix in grouping.reads(group)
    ]
    sent = {s.value for s in synapses} | {output}
    groups = []
    for group in latency:
        nodes = tuple(n for n in grouping.nodes if grouping.owner[n.name] == group)
        groups.append(Group(nodes, latency[group], tuple(n.name for n in nodes if n.name in sent)))
    for s in synapses:
        if s.delay > MOST_DELAY:
            reader = s.matrix or next(n for n in groups[s.group].nodes if s.value in n.inputs)
            raise reader.error(f"its input {s.value!r} waits {s.delay} steps, expected at most {MOST_DELAY}")
    return Graph(program, source, output, tuple(groups), tuple(synapses))


def _ends(program: Program) -> tuple[str, str]:
    """The input and the output in integers."""
    if not program.is_fixed:
        raise ValueError("the program is in float, expected one in fixed point: make it with `lrnn quantize`")
    last = next(node for node in program.nodes if node.name == program.output)
    if not isinstance(last, Dequantize):
        raise last.error("it makes the output, expected a fixed_dequantize node")
    first, *others = [node for node in program.nodes if program.input in node.inputs]
    if others or first.op not in _ENCODERS:
        expected = " or ".join(_ENCODERS)
        raise (others or [first])[0].error(f"it reads the input, expected one node to do so: {expected}")
    for node in program.nodes:
        if node is not last and program.formats[node.name] is None:
            raise node.error("it makes floats, expected integers everywhere but at the ends")
    return first.name, last.inputs[0]


class _Grouping:
    """Which group each value belongs to, by number."""

    def __init__(self, source: str):
        self.nodes: list[Node] = []
        self.owner: dict[str, int] = {source: SOURCE}

    def add(self, node: Node) -> None:
        """A matrix begins a group, other nodes join what they read. Where two groups meet in a node, it joins
        the one that depends on the other; if neither does, both become one.
        """
        groups = [] if isinstance(node, Linear) else sorted({self.owner[i] for i in node.inputs} - {SOURCE})
        home = groups[0] if groups else len(self.nodes)
        for other in groups[1:]:
            if self._depends(home, other):
                continue
            if not self._depends(other, home):
                self.owner.update({name: other for name, group in self.owner.items() if group == home})
            home = other
        self.owner[node.name] = home
        self.nodes.append(node)

    def sink_scales(self, output: str) -> None:
        """Scale a value where it is read, if that is in one other group: its input is sent instead, and often
        is anyway (D of an S5 scales what the residual connection carries too).
        """
        for node in reversed(self.nodes):
            readers = [n for n in self.nodes if node.name in n.inputs]
            groups = {self.owner[n.name] for n in readers}
            read_by_matrix = any(isinstance(n, Linear) for n in readers)
            if isinstance(node, Affine) and len(groups) == 1 and not read_by_matrix and node.name != output:
                self.owner[node.name] = groups.pop()

    def reads(self, group: int) -> list[tuple[str, Linear | None]]:
        """What comes to a group from others: values, and the matrices that multiply them."""
        found: dict[str, tuple[str, Linear | None]] = {}
        for node in self.nodes:
            if self.owner[node.name] == group:
                for value in node.inputs:
                    if isinstance(node, Linear):
                        found[f"sums of {node.name}"] = (value, node)
                    elif self.owner[value] != group:
                        found[value] = (value, None)
        return list(found.values())

    def latencies(self) -> dict[int, int]:
        """Of each group, in an order in which each reads earlier ones."""
        latency: dict[int, int] = {}

        def visit(group: int) -> int:
            if group not in latency:
                latency[group] = 1 + max(0 if g == SOURCE else visit(g) for g in self._sources(group))
            return latency[group]

        for node in self.nodes:
            visit(self.owner[node.name])
        return dict(sorted(latency.items(), key=lambda item: item[1]))

    def _sources(self, group: int) -> set[int]:
        return {self.owner[value] for value, _ in self.reads(group)}

    def _depends(self, group: int, other: int) -> bool:
        """Whether what `other` sends reaches `group`."""
        seen, waiting = set(), [group]
        while waiting:
            fresh = self._sources(waiting.pop()) - seen
            seen |= fresh
            waiting.extend(fresh - {SOURCE})
        return other in seen
