"""What pruning has cut off: units of a weight that lost all connections on one side.

A weight is read as a matrix of outputs (rows) by inputs (columns). An output without a weight gets nothing
but its bias from here; an input without a weight is not seen by what this weight feeds. Neither need be wrong
(another path may carry the unit, and silent inputs are best not read), but it does nothing here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor, nn

from lrnn.nn import S5
from lrnn.prune import mask
from lrnn.prune.weights import Weight, find_weights


@dataclass(frozen=True)
class DeadUnits:
    """Units of one weight without any connection.

    Attributes:
        outputs: indices of outputs whose incoming weights are all zero.
        inputs: indices of inputs whose outgoing weights are all zero.
        n_outputs, n_inputs: units of each kind, dead or alive.
        states: which of the two kinds are the states of an S5: "outputs" of B, "inputs" of C; or neither, "".
    """

    outputs: tuple[int, ...]
    inputs: tuple[int, ...]
    n_outputs: int
    n_inputs: int
    states: str = ""

    def __len__(self) -> int:
        return len(self.outputs) + len(self.inputs)

    def __str__(self) -> str:
        parts = []
        if self.outputs:
            kind = "states" if self.states == "outputs" else "outputs"
            parts.append(f"{len(self.outputs)} of {self.n_outputs} {kind} without input")
        if self.inputs:
            kind = "states" if self.states == "inputs" else "inputs"
            parts.append(f"{len(self.inputs)} of {self.n_inputs} {kind} unread")
        return ", ".join(parts) or "none"


def dead_units(module: nn.Module) -> dict[str, DeadUnits]:
    """What is cut off in each weight of `module` that could be pruned, masked or baked.

    States of an S5 are the outputs of B and the inputs of C; outputs of an LSTM's or GRU's weights are its
    gates, of an attention's in_proj_weight queries, keys and values.

    Returns:
        By name of the parameter, as `named_parameters` of the plain module gives it.
    """
    return dead_units_of(find_weights(module))


def dead_units_of(weights: Iterable[Weight]) -> dict[str, DeadUnits]:
    """`dead_units` of chosen weights; a step size connects nothing and is left out."""
    return {weight.name: _dead_units(weight) for weight in weights if weight.dense.ndim > 1}


def _dead_units(weight: Weight) -> DeadUnits:
    owner, attribute = weight.places[0]
    masked = mask.find(owner, attribute)  # what a mask keeps may be zero for now, as it is initialised
    alive = _connections(owner, weight.effective != 0 if masked is None else masked.mask)
    outputs, inputs = alive.any(1), alive.any(0)
    if isinstance(owner, nn.Embedding | nn.EmbeddingBag) and owner.padding_idx is not None:
        inputs[owner.padding_idx] = True  # zero by design
    states = {"B": "outputs", "C": "inputs"}.get(attribute, "") if isinstance(owner, S5) else ""
    return DeadUnits(_false(outputs), _false(inputs), len(outputs), len(inputs), states)


def _connections(owner: nn.Module, nonzero: Tensor) -> Tensor:
    """Bool matrix (outputs, inputs): whether any weight connects the two."""
    matrix = nonzero.flatten(2).any(-1) if nonzero.ndim > 2 else nonzero
    if isinstance(owner, nn.Embedding | nn.EmbeddingBag):  # (words, width)
        return matrix.T
    if not isinstance(owner, nn.modules.conv._ConvNd):
        return matrix
    if owner.transposed:  # (in, out / groups)
        return _by_group(matrix, owner.groups).T
    return _by_group(matrix, owner.groups)  # (out, in / groups)


def _by_group(matrix: Tensor, groups: int) -> Tensor:
    """(rows, columns per group) -> (rows, columns), block-diagonal: a group's rows see its columns only."""
    if groups == 1:
        return matrix
    rows, columns = matrix.shape
    whole = matrix.new_zeros(groups, rows // groups, groups, columns)
    for g, block in enumerate(matrix.view(groups, rows // groups, columns)):
        whole[g, :, g] = block
    return whole.view(rows, groups * columns)


def _false(flags: Tensor) -> tuple[int, ...]:
    return tuple((~flags).nonzero().flatten().tolist())
