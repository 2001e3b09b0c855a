"""Parameters, multiply-accumulates and bytes of each node of a Program, and the activity measured on data.

One rule of counting for the whole project: a matrix counts rows x columns; the real-input complex B_bar
(2P, H) and the real-output C (H, 2P) thereby count 2PH each, the complex diagonal recurrence 4P, a gated one
a product with its gate for each number of its state and, where it is complex, 4 more per state for the
rotation; an affine map or a product counts its width. Everything else (activations, norms, sums, shifts, the
row that an embedding looks up) counts nothing. Floats and integers count alike; exponents and tables are no
parameters, rows of an embedding are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lrnn.program import nodes as op
from lrnn.program.fixed import nodes as fixed
from lrnn.program.program import Program, tensors

if TYPE_CHECKING:
    from torch import Tensor

_CHUNK = 1024  # frames
MATRICES = (op.Linear, fixed.Linear)
"""Nodes that multiply with a matrix, in float and in integers; both call it `weight`."""


@dataclass(frozen=True)
class NodeCost:
    """Cost of one node, per frame.

    Attributes:
        name, op: the node.
        parameters: weights, biases and decays that it holds; `nonzero` of them are not zero.
        macs: multiply-accumulates with every weight counted.
        macs_weights: those whose weight is not zero.
        macs_effective: those whose weight and measured input are not zero, mean over frames; None unmeasured.
        activity: fraction of the node's input that is not zero, measured; None unmeasured, and for tokens.
        bytes: the node's tensors as the native engine holds them; None where the engine is not there to say.
        nanoseconds: measured time per frame in the native engine; None unmeasured.
    """

    name: str
    op: str
    parameters: int
    nonzero: int
    macs: int
    macs_weights: int
    macs_effective: float | None = None
    activity: float | None = None
    bytes: int | None = None
    nanoseconds: float | None = None

    @property
    def density(self) -> float | None:
        """Fraction of the parameters that are not zero; None without parameters."""
        return self.nonzero / self.parameters if self.parameters else None


def count(program: Program, inputs: np.ndarray | None = None) -> list[NodeCost]:
    """Cost of every node in order.

    Args:
        program: what to count.
        inputs: (T, input_width) frames to measure activity on; None leaves it unmeasured.
    """
    seen = None if inputs is None else observe(program, inputs)
    return [_node_cost(node, program.widths[node.name], seen) for node in program.nodes]


@dataclass
class Seen:
    """What one value of a program was on frames, counted as they passed.

    Attributes:
        nonzero: (width,) int64, frames in which each of its numbers was not zero.
        frames: how many there were.
        binary: whether it was never anything but 0, 1 or -1.
    """

    nonzero: np.ndarray
    frames: int = 0
    binary: bool = True

    @property
    def rates(self) -> np.ndarray:
        """(width,) fractions of the frames in which each of its numbers was not zero."""
        return self.nonzero / self.frames

    @property
    def rate(self) -> float:
        """Fraction of all its numbers that were not zero."""
        return float(self.nonzero.sum() / (self.frames * self.nonzero.size))


def observe(program: Program, inputs: np.ndarray) -> dict[str, Seen]:
    """What every value of the program is on frames (T, input_width), from a state of zeros, by name.

    Raises:
        ValueError: the frames have another shape, or there are none.
    """
    if inputs.ndim != 2 or not len(inputs):
        raise ValueError(
            f"inputs has shape {inputs.shape}, expected (frames, {program.input_width}) with frames > 0"
        )
    widths = {program.input: program.input_width, **program.widths}
    found = {name: Seen(np.zeros(width, np.int64)) for name, width in widths.items()}
    for values in traced(program, inputs):
        for name, value in values.items():
            x, seen = value[0].numpy(), found[name]
            seen.nonzero += np.count_nonzero(x, axis=0)
            seen.frames += len(x)
            seen.binary = seen.binary and bool(np.isin(x, (-1, 0, 1)).all())
    return found


def traced(program: Program, inputs: np.ndarray) -> Iterator[dict[str, Tensor]]:
    """Every value of the program on frames (T, input_width), (1, t, width) by name, a stretch of t frames at
    a time: those of a long recording do not fit into memory together.
    """
    import torch

    from lrnn.program.torch_executor import TorchExecutor

    executor, state = TorchExecutor(program), None
    for piece in torch.from_numpy(np.ascontiguousarray(inputs, np.float32)).split(_CHUNK):
        with torch.inference_mode():
            values, state = executor.trace(piece[None], state)
        yield values


def _node_cost(node: op.Node, width: int, seen: dict[str, Seen] | None) -> NodeCost:
    arrays = [] if isinstance(node, fixed.Table) else _parameters(node)
    macs, weights = _macs(node, width)
    read = None if seen is None or node.tokens else seen[node.inputs[0]]
    effective = None
    if seen is not None:
        effective = float(weights)
        if read is not None and isinstance(node, MATRICES):
            effective = float(read.rates @ np.count_nonzero(node.weight, axis=0))
    return NodeCost(
        name=node.name,
        op=node.op,
        parameters=sum(a.size for a in arrays),
        nonzero=sum(int(np.count_nonzero(a)) for a in arrays),
        macs=macs,
        macs_weights=weights,
        macs_effective=effective,
        activity=None if read is None else read.rate,
    )


def _parameters(node: op.Node) -> list[np.ndarray]:
    return [tensor for name, tensor in tensors(node).items() if not name.endswith("_exponent")]


def _macs(node: op.Node, width: int) -> tuple[int, int]:
    """Multiply-accumulates per frame: all, and those with a nonzero weight."""
    if isinstance(node, MATRICES):
        return node.weight.size, int(np.count_nonzero(node.weight))
    if isinstance(node, (op.Diagonal, fixed.Diagonal)):
        return 2 * width, 2 * width  # of P complex states, side by side
    if isinstance(node, (op.Gated, fixed.Gated)):
        rotation = 4 * node.size if width > node.size else 0
        return width + rotation, width + rotation
    if isinstance(node, (op.Affine, fixed.Affine)):
        return width, int(np.count_nonzero(node.scale))
    if isinstance(node, (op.Product, fixed.Product)):
        return width, width
    return 0, 0
