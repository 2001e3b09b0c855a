"""Where the values and weights of HGRNs are, in the order of lrnn.nn's hgrn_stack.py and hgrn.py."""

from __future__ import annotations

from torch import nn

from lrnn.nn import HGRN, HGRNBlock, HGRNStack
from lrnn.nn.hgrn_stack import GLU
from lrnn.quant.found import Found, Site, Target, join


def add_stack(found: Found, stack: HGRNStack, path: str) -> None:
    """The blocks, the first of which has bounds of zero, and the bounds."""
    for i, block in enumerate(stack.blocks):
        add_hgrn_block(found, block, join(path, f"blocks.{i}"), bounded=i > 0)
    found.targets.append(Target(stack, "lower_bounds", "bounds"))


def add_hgrn_block(found: Found, block: HGRNBlock, path: str, bounded: bool) -> None:
    """Norm, HGRN, residual; norm, gated linear unit, residual."""
    last = "relu" if block.config.relu == "all" else "norm"
    found.sites.append(Site(join(path, f"mixer_{last}"), block.mixer_relu, "output", narrow=True))
    add_hgrn(found, block.mixer, join(path, "mixer"), bounded)
    found.sites.append(Site(join(path, "mixer_sum"), block.mixer_sum, "output"))
    found.sites.append(Site(join(path, f"glu_{last}"), block.glu_relu, "output", narrow=True))
    add_glu(found, block.glu, join(path, "glu"))
    found.sites.append(Site(join(path, "glu_sum"), block.glu_sum, "output"))


def add_hgrn(found: Found, layer: HGRN, path: str, bounded: bool) -> None:
    """Gates, state, norm, output gate. What is written goes into a state as wide as it is, unless a table
    makes it.
    """
    found.sites.append(Site(join(path, "f_proj"), layer.f_proj, "output", "before_sigmoid"))
    found.sites.append(Site(join(path, "write"), layer.write, "output", "opening"))
    if bounded:
        found.sites.append(Site(join(path, "bound"), layer.bound, "output", "gate"))
    if isinstance(layer.input_activation, nn.SiLU):
        found.sites.append(Site(join(path, "i_proj"), layer.i_proj, "output"))
        found.sites.append(Site(join(path, "input"), layer.input_activation, "output", "carried"))
    found.sites.append(Site(join(path, "state"), layer.norm, "input", "carried"))
    found.sites.append(Site(join(path, "norm"), layer.norm, "output"))
    _add_activation(found, layer.g_proj, layer.gate_activation, join(path, "g_proj"), join(path, "gate"))
    found.sites.append(Site(join(path, "gated"), layer.o_proj, "input", narrow=True))
    for matrix in (layer.f_proj, layer.i_proj, layer.g_proj, layer.o_proj):
        found.targets.append(Target(matrix, "weight", "matrix"))
    if layer.is_complex:
        found.targets.append(Target(layer, "theta", "rotation"))


def add_glu(found: Found, glu: GLU, path: str) -> None:
    """down(activation(gate(x)) * up(x))."""
    _add_activation(found, glu.gate_proj, glu.activation, join(path, "gate_proj"), join(path, "activation"))
    found.sites.append(Site(join(path, "up_proj"), glu.up_proj, "output"))
    found.sites.append(Site(join(path, "product"), glu.down_proj, "input", narrow=True))
    for matrix in (glu.gate_proj, glu.up_proj, glu.down_proj):
        found.targets.append(Target(matrix, "weight", "matrix"))


def _add_activation(found: Found, matrix: nn.Linear, activation: nn.Module, before: str, after: str) -> None:
    """A table reads few bits; a ReLU's input is as wide as the sums of the matrix."""
    if isinstance(activation, nn.SiLU):
        found.sites.append(Site(before, matrix, "output"))
    found.sites.append(Site(after, activation, "output"))
