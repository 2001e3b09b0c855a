"""Which channels hang together: torch-pruning's dependency graph of a model, lrnn's layers included.

torch-pruning (Fang et al. 2023, arXiv 2301.12900) finds the graph by walking back through autograd. Every
layer whose channels are known here is put into that walk as one operation with its true values, so that what
happens inside it, the scan for one, is never mistaken for operations between layers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lrnn.nn import HGRN, S5, BatchNorm
from lrnn.nn.hgrn_stack import GLU
from lrnn.nn.norm import RMSNorm
from lrnn.prune.channels import PRUNERS

Example = Tensor | tuple[Any, ...]

MIXERS = (S5, HGRN, GLU)
PRODUCERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Embedding, S5, HGRN, GLU)
"""Layers that make channels; groups are looked for from each of them."""
POINTWISE = (BatchNorm, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.PReLU)
"""Layers that treat every channel by itself."""
ACROSS = (nn.LayerNorm, nn.RMSNorm, RMSNorm, nn.GroupNorm)
"""Layers in which every channel depends on all of them."""
_LAYERS = (*PRODUCERS, *POINTWISE, *ACROSS)


@dataclass(frozen=True)
class Member:
    """A layer whose channels belong to a group.

    Attributes:
        path: its name in the model.
        layer: itself.
        makes, reads: whether the group's channels are its outputs, its inputs; an S5 both makes and reads.
        remove: takes channels away, `remove(layer, indices)`.
        channels: the layer's own channels by channel of the group.
    """

    path: str
    layer: nn.Module
    makes: bool
    reads: bool
    remove: Callable[[nn.Module, list[int]], Any]
    channels: dict[int, list[int]]


@dataclass(frozen=True)
class Group:
    """Channels that can only be removed together, layer by layer.

    Attributes:
        width: how many channels.
        members: layers that make or read them.
        barrier: why none may be removed without changing what is computed, or "".
        is_output: whether the model hands them out: then none can be removed at all.
    """

    width: int
    members: tuple[Member, ...]
    barrier: str
    is_output: bool

    @property
    def name(self) -> str:
        """Of the first layer that makes them."""
        return self.members[0].path


@dataclass(frozen=True)
class Traced:
    """A model's groups, and what its layers read when it ran on the example."""

    groups: tuple[Group, ...]
    inputs: dict[str, Tensor]


def trace(model: nn.Module, example: Example) -> Traced:
    """Run a model, in evaluation mode, on an example and find its groups of channels.

    Args:
        model: nothing of it is changed.
        example: a tensor, or the tuple of its positional arguments.

    Raises:
        ImportError: torch-pruning is not installed.
    """
    graph, recorded = dependency_graph(model, example)
    names = {module: name for name, module in model.named_modules()}
    uses = parameter_uses(model)
    groups = []
    for found in graph.get_all_groups(root_module_types=PRODUCERS):
        groups.append(_group(graph, found, names, recorded.calls, uses))
    return Traced(tuple(groups), {names[m]: x for m, x in recorded.inputs.items()})


def dependency_graph(model: nn.Module, example: Example):
    """torch-pruning's graph, and what was recorded while it was made."""
    tp = require_torch_pruning()
    graph = tp.DependencyGraph()
    with evaluating(model), torch.enable_grad(), as_operations(model) as recorded:
        graph.build_dependency(
            model, example, forward_fn=forward, customized_pruners=dict(PRUNERS), verbose=False
        )
    return graph, recorded


def require_torch_pruning():
    """The package, or ImportError that names the extra."""
    try:
        import torch_pruning
    except ImportError:
        raise ImportError("the dependency graph needs torch-pruning: pip install 'lrnn[shrink]'") from None
    return torch_pruning


def run(model: nn.Module, example: Example) -> Any:
    """The model's output on an example."""
    return model(*example) if isinstance(example, tuple) else model(example)


def tensors(value: Any) -> list[Tensor]:
    """Every tensor of a nest of tuples, lists and dicts, in order."""
    if isinstance(value, Tensor):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, (tuple, list)) else ()
    return [tensor for part in parts for tensor in tensors(part)]


def forward(model: nn.Module, example: Example) -> list[Tensor]:
    """What torch-pruning walks back from: each output once more, so that it is nobody's input."""
    return [out * 1.0 for out in outputs(model, example) if out.grad_fn is not None]


def outputs(model: nn.Module, example: Example) -> list[Tensor]:
    """Every tensor that a model makes of an example; of lrnn's models without the state."""
    out = run(model, example)
    ours = any(issubclass(c, nn.Module) and c.__module__.startswith("lrnn.nn.") for c in type(model).__mro__)
    return tensors(out[0] if ours and isinstance(out, tuple) else out)


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode; afterwards each of its modules is in the mode it was in."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


class Recorded:
    """How often each layer was called, and the last input of each."""

    def __init__(self):
        self.calls: dict[nn.Module, int] = {}
        self.inputs: dict[nn.Module, Tensor] = {}


class _Operation(torch.autograd.Function):
    """A layer as one node between its input and its output; never run backwards."""

    @staticmethod
    def forward(ctx, x: Tensor, wanted: Tensor, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Any:
        raise RuntimeError("a traced layer has no gradient")


@contextlib.contextmanager
def as_operations(model: nn.Module) -> Iterator[Recorded]:
    """While it lasts, every known layer is one operation; layers inside another are left to it."""
    recorded, patched = Recorded(), []
    inner = {m for owner in model.modules() if isinstance(owner, MIXERS) for m in owner.modules()} - {
        owner for owner in model.modules() if isinstance(owner, MIXERS)
    }
    try:
        for module in model.modules():
            if type(module) in _LAYERS and module not in inner:
                module.forward = _operation(module, recorded)
                patched.append(module)
        yield recorded
    finally:
        for module in patched:
            del module.forward


def _operation(module: nn.Module, recorded: Recorded) -> Callable[..., Any]:
    original = module.forward
    wanted = torch.zeros((), requires_grad=True)  # a layer that reads integers or frames is a node as well

    def forward(*args: Any, **kwargs: Any) -> Any:
        x = args[0] if args else next(iter(kwargs.values()))  # known layers name their input first
        with torch.no_grad():
            out = original(*args, **kwargs)
        recorded.calls[module] = recorded.calls.get(module, 0) + 1
        recorded.inputs[module] = x.detach()
        if isinstance(out, tuple):
            return _Operation.apply(x, wanted, out[0]), *out[1:]
        return _Operation.apply(x, wanted, out)

    return forward


_FREE = (
    *("Relu", "Gelu", "Sigmoid", "Tanh", "Silu", "Elu", "LeakyRelu", "Softplus", "Hardtanh", "Hardsigmoid"),
    *("Hardswish", "Mish", "Mul", "Add", "Sub", "Div", "Neg", "Exp", "Abs", "Square", "Pow", "Clamp"),
    *("NativeDropout", "ToCopy", "Clone", "Alias", "Mean", "Sum", "Select", "Transpose", "Permute"),
    *("Unsqueeze", "Squeeze", "MaxPool1D", "MaxPool2D", "MaxPool2DWithIndices", "AvgPool2D", "Max", "Amax"),
    *("AdaptiveAvgPool2D", "AdaptiveAvgPool1D", "MaskedFill", "Where", "Index", "Flip"),
)
"""Operations of autograd that leave channels apart. Whatever is not here keeps a group as it is."""


def _group(graph, found, names: dict, calls: dict, uses: dict[int, int]) -> Group:
    tp = require_torch_pruning()
    kinds, members, barrier, is_output = tp.ops.OPTYPE, [], "", False
    for item in found:
        node = item.dep.target
        layer, handler = node.module, item.dep.handler
        if node.type == kinds.OUTPUT:
            is_output = True
        elif node.type in (kinds.PARAMETER, kinds.UNBIND, kinds.EXPAND):
            barrier = barrier or f"its channels meet {_described(node, kinds)}"
        elif node.type == kinds.ELEMENTWISE:
            operation = node.grad_fn.name().rstrip("0123456789").removesuffix("Backward")
            if type(layer) not in _LAYERS and operation not in _FREE:
                barrier = barrier or f"its channels pass through {operation}"
        elif node.type in (kinds.CONCAT, kinds.SPLIT, kinds.RESHAPE, kinds.SLICE):
            continue
        if layer in names and type(layer) in _LAYERS:
            makes, reads = graph.is_out_channel_pruning_fn(handler), graph.is_in_channel_pruning_fn(handler)
            by_root: dict[int, list[int]] = {}
            for channel, root in zip(item.idxs, item.root_idxs, strict=True):
                by_root.setdefault(root, []).append(channel)
            members.append(Member(names[layer], layer, makes, reads, handler, by_root))
            barrier = barrier or _obstacle(layer, names[layer], calls, uses)
        elif layer in names:
            barrier = barrier or f"its channels pass through {names[layer]}, a {type(layer).__name__}"
    return Group(len(found[0].idxs), tuple(members), barrier, is_output)


def _described(node, kinds) -> str:
    return "a parameter of no known layer" if node.type == kinds.PARAMETER else node.grad_fn.name()


def _obstacle(layer: nn.Module, path: str, calls: dict, uses: dict[int, int]) -> str:
    if calls.get(layer, 0) > 1:
        return f"{path} is called more than once"
    if getattr(layer, "groups", 1) > 1:
        return f"{path} is a grouped convolution"
    if any(uses[id(p)] > 1 for p in layer.parameters()):
        return f"{path} shares a parameter with another module"
    return ""


def parameter_uses(model: nn.Module) -> dict[int, int]:
    """How many modules hold each parameter, by its id."""
    uses: dict[int, int] = {}
    for owner in model.modules():
        for parameter in owner._parameters.values():
            if parameter is not None:
                uses[id(parameter)] = uses.get(id(parameter), 0) + 1
    return uses


def check_plain(model: nn.Module) -> None:
    """Raise ValueError where the model carries parametrizations, masks for one."""
    for name, module in model.named_modules():
        if "parametrizations" in module._modules:
            raise ValueError(f"model: {name or 'it'} is parametrized; bake its masks before removing units")


def removed(model: nn.Module, group: Group, channels: Sequence[int]) -> None:
    """Take channels of a group out of a model, or of a copy: members are found by their names."""
    for member in group.members:
        layer = model.get_submodule(member.path)
        trained = {name: p.requires_grad for name, p in layer.named_parameters()}
        member.remove(layer, sorted({k for c in channels for k in member.channels.get(c, ())}))
        for name, parameter in layer.named_parameters():
            parameter.requires_grad_(trained[name])
