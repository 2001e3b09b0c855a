"""Parameters, multiply-accumulates and bytes of each node of a Program, and the activity measured on data.

One rule of counting for the whole project: a matrix counts rows x columns; the real-input complex B_bar
(2P, H) and the real-output C (H, 2P) thereby count 2PH each, the complex diagonal recurrence 4P, a gated one
a product with its gate for each number of its state and, where it is complex, 4 more per state for the
rotation; an affine map or a product counts its width. Everything else (activations, norms, sums, shifts, the
row that an embedding looks up) counts nothing. Floats and integers count alike; exponents and tables are no
parameters, rows of an embedding are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lrnn.program import nodes as op
from lrnn.program.fixed import nodes as fixed
from lrnn.program.program import Program, tensors

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
    values = None if inputs is None else traced(program, inputs)
    return [_node_cost(node, program.widths[node.name], values) for node in program.nodes]


def traced(program: Program, inputs: np.ndarray) -> dict[str, np.ndarray]:
    """Every value of the program on these frames, (T, width) by name."""
    import torch

    from lrnn.program.torch_executor import TorchExecutor

    if inputs.ndim != 2 or not len(inputs):
        raise ValueError(
            f"inputs has shape {inputs.shape}, expected (frames, {program.input_width}) with frames > 0"
        )
    with torch.inference_mode():
        values, _ = TorchExecutor(program).trace(torch.from_numpy(np.asarray(inputs, np.float32))[None])
    return {name: value[0].numpy() for name, value in values.items()}


def _node_cost(node: op.Node, width: int, values: dict[str, np.ndarray] | None) -> NodeCost:
    arrays = [] if isinstance(node, fixed.Table) else _parameters(node)
    macs, weights = _macs(node, width)
    active = None if values is None or node.tokens else values[node.inputs[0]] != 0  # (T, width)
    effective = None
    if active is not None:
        effective = float(weights)
        if isinstance(node, MATRICES):
            effective = float(active.mean(0) @ np.count_nonzero(node.weight, axis=0))
    return NodeCost(
        name=node.name,
        op=node.op,
        parameters=sum(a.size for a in arrays),
        nonzero=sum(int(np.count_nonzero(a)) for a in arrays),
        macs=macs,
        macs_weights=weights,
        macs_effective=effective,
        activity=None if active is None else float(active.mean()),
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
