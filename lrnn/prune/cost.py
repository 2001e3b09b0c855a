"""Parameters, bytes and multiply-accumulates of a module before anything is compiled.

The rule of counting is that of lrnn.profile.count: a matrix counts rows x columns each time it is applied, a
convolution its weights at every place, the complex recurrence of an S5 4 P, a gated one a product for each
number of its state and 4 more per state for a rotation; D, lower bounds and products of gates count their
width, norms nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lrnn.nn import HGRN, S5, HGRNStack, LanguageModel, S5Block, SparseLinear
from lrnn.nn.hgrn_stack import GLU
from lrnn.prune.dependency import Example, evaluating, run


@dataclass(frozen=True)
class Cost:
    """What a module holds, and what it does in one run.

    Attributes:
        parameters: numbers that are trained; `nonzero` of them are not zero.
        bytes: of parameters and buffers as they are held.
        macs: multiply-accumulates of a run with every weight counted; `macs_weights` those of nonzero ones.
    """

    parameters: int
    nonzero: int
    bytes: int
    macs: int
    macs_weights: int


@torch.no_grad()
def cost(model: nn.Module, example: Example) -> Cost:
    """Cost of a model, and of its run on an example: a tensor, or the tuple of its positional arguments.

    Products that a model of your own makes outside of nn.Linear, nn.Conv*d and lrnn's layers are not seen.
    """
    counted = [0, 0]
    with evaluating(model), _counting(model, counted):
        run(model, example)
    parameters = list(model.parameters())
    return Cost(
        parameters=sum(p.numel() for p in parameters),
        nonzero=sum(int(p.count_nonzero()) for p in parameters),
        bytes=sum(t.numel() * t.element_size() for t in (*parameters, *model.buffers())),
        macs=counted[0],
        macs_weights=counted[1],
    )


@contextmanager
def _counting(model: nn.Module, counted: list[int]) -> Iterator[None]:
    def hook(module: nn.Module, inputs: tuple, output: Tensor | tuple) -> None:
        y = output[0] if isinstance(output, tuple) else output
        for k, macs in enumerate(_per_place(module)):
            counted[k] += macs * _places(module, y)

    handles = [m.register_forward_hook(hook) for m in model.modules() if isinstance(m, _COUNTED)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


_COUNTED = (nn.Linear, SparseLinear, nn.Conv1d, nn.Conv2d, nn.Conv3d, S5, S5Block, HGRN, GLU)
_COUNTED += (HGRNStack, LanguageModel)


def _places(module: nn.Module, y: Tensor) -> int:
    """How often the module's weights were applied to make y."""
    if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        return y.numel() // module.out_channels
    return y.numel() // y.shape[-1]


def _per_place(module: nn.Module) -> tuple[int, int]:
    """Multiply-accumulates: all, and those with a nonzero weight; of linear layers inside, they count own."""
    if isinstance(module, S5):
        return _of_s5(module)
    if isinstance(module, S5Block):
        gate = module.config.d_model if module.out2 is not None else 0
        return gate, gate
    if isinstance(module, HGRN):  # the forget gate, the rotation, the output gate
        width = module.g_proj.out_features
        rotation = 4 * module.d_state if module.is_complex else 0
        return 2 * width + rotation, 2 * width + rotation
    if isinstance(module, HGRNStack):  # the lower bounds, of which the first is zero
        bounds = (module.n_layers - 1) * module.lower_bounds.shape[1]
        return bounds, bounds
    if isinstance(module, GLU):
        return module.up_proj.out_features, module.up_proj.out_features
    if isinstance(module, LanguageModel):  # logits by the embedding, where there is no head
        tied = module.embedding.weight.detach().flatten()[: None if module.head is None else 0]
        return tied.numel(), int(tied.count_nonzero())
    weights = module.values if isinstance(module, SparseLinear) else module.weight
    return weights.numel(), int(weights.count_nonzero())


def _of_s5(layer: S5) -> tuple[int, int]:
    directions = layer.C.shape[1] // layer.n_states
    recurrence = 4 * layer.n_states * directions
    pairs = int((layer.B != 0).any(-1).sum())  # B_bar mixes the parts: it is zero where both are
    weights = 2 * pairs * directions + int(layer.C.count_nonzero()) + int(layer.D.count_nonzero())
    every = layer.B.numel() * directions + layer.C.numel() + layer.d_model
    return every + recurrence, weights + recurrence
