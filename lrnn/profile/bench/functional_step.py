"""A Program as a pure function of a frame and its state, for PyTorch's compilers, for `lrnn bench stream`.

`torch.compile` checks guards and goes through Python at every call, which at k = 1 costs more than the
matrices do; AOTInductor compiles the same graph ahead of time into a shared library, PyTorch's fastest form.
Complex views do not compile, so the recurrence is in real arithmetic on (re, im) pairs.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lrnn.program import nodes as op
from lrnn.program.program import Program

Step = Callable[..., list[Tensor]]


class FunctionalStep(nn.Module):
    """One frame in dense float32, all state passed in and out.

    Args:
        program: its weights become buffers.

    Raises:
        ValueError: the program holds a node with no form here.
    """

    def __init__(self, program: Program):
        super().__init__()
        places = {program.input: 0, **{node.name: i + 1 for i, node in enumerate(program.nodes)}}
        self.calls = nn.ModuleList()
        self._inputs = []
        for node in program.nodes:
            if type(node) not in _FORMS:
                raise ValueError(f"node {node.name!r} ({node.op}) has no functional form to compare with")
            self.calls.append(_FORMS[type(node)](node))
            self._inputs.append([places[name] for name in node.inputs])
        self._output = places[program.output]
        self.widths = list(program.state_widths.values())

    def forward(self, frame: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        """Frame (..., input_width) and states (..., width) to (..., output_width) and the next states."""
        values, left, after = [frame], list(states), []
        for call, inputs in zip(self.calls, self._inputs, strict=True):
            arguments = [values[i] for i in inputs]
            if isinstance(call, (_Diagonal, _Gated)):
                after.append(call(*arguments, left.pop(0)))
                values.append(after[-1])
            else:
                values.append(call(*arguments))
        return values[self._output], *after


class _Linear(nn.Module):
    def __init__(self, node: op.Linear):
        super().__init__()
        self.register_buffer("weight", torch.tensor(node.weight))
        self.register_buffer("bias", None if node.bias is None else torch.tensor(node.bias))

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim > 1:
            return F.linear(x, self.weight, self.bias)
        if self.bias is None:  # on one vector, MKL's product is 1.6 times as fast as a matrix of one row
            return torch.mv(self.weight, x)
        return torch.addmv(self.bias, self.weight, x)


class _Affine(nn.Module):
    def __init__(self, node: op.Affine):
        super().__init__()
        self.register_buffer("scale", torch.tensor(node.scale))
        self.register_buffer("shift", torch.tensor(node.shift) if np.any(node.shift) else None)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale if self.shift is None else x * self.scale + self.shift


class _Diagonal(nn.Module):
    def __init__(self, node: op.Diagonal):
        super().__init__()
        re, im = torch.tensor(node.a).unbind(-1)  # (P,)
        self.register_buffer("re", re[:, None].contiguous())
        self.register_buffer("im", torch.stack([-im, im], dim=-1))

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        pairs = h.unflatten(-1, (-1, 2))  # (..., P, 2)
        return (self.re * pairs + self.im * pairs.flip(-1)).flatten(-2) + x


class _Gated(nn.Module):
    def __init__(self, node: op.Gated):
        super().__init__()
        turns = node.rotation is not None
        self._turn = _Diagonal(op.Diagonal(node.name, node.inputs[1:], node.rotation)) if turns else None

    def forward(self, g: Tensor, x: Tensor, h: Tensor) -> Tensor:
        if self._turn is None:
            return h + g * (x - h)
        u = self._turn(torch.zeros_like(x), h)
        return u + (g[..., None] * (x - u).unflatten(-1, (-1, 2))).flatten(-2)


class _Embedding(nn.Module):
    def __init__(self, node: op.Embedding):
        super().__init__()
        self.register_buffer("weight", torch.tensor(node.weight))

    def forward(self, x: Tensor) -> Tensor:
        return F.embedding(x[..., 0].long(), self.weight)


class _RmsNorm(nn.Module):
    def __init__(self, node: op.RmsNorm):
        super().__init__()
        self.register_buffer("scale", torch.tensor(node.scale))
        self._eps = node.eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.scale.shape, self.scale, self._eps)


class _LayerNorm(nn.Module):
    def __init__(self, node: op.LayerNorm):
        super().__init__()
        self.register_buffer("scale", torch.tensor(node.scale))
        self.register_buffer("shift", torch.tensor(node.shift))
        self._eps = node.eps

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.scale.shape, self.scale, self.shift, self._eps)


class _Plain(nn.Module):
    def __init__(self, function: Callable[..., Tensor]):
        super().__init__()
        self._function = function

    def forward(self, *inputs: Tensor) -> Tensor:
        return self._function(*inputs)


_FORMS: dict[type[op.Node], Callable[[op.Node], nn.Module]] = {
    op.Linear: _Linear,
    op.Affine: _Affine,
    op.Diagonal: _Diagonal,
    op.Gated: _Gated,
    op.Embedding: _Embedding,
    op.LayerNorm: _LayerNorm,
    op.RmsNorm: _RmsNorm,
    op.Relu: lambda node: nn.ReLU(),
    op.Sigmoid: lambda node: nn.Sigmoid(),
    op.Silu: lambda node: nn.SiLU(),
    op.Gelu: lambda node: nn.GELU(approximate="tanh"),
    op.Add: lambda node: _Plain(torch.add),
    op.Product: lambda node: _Plain(torch.mul),
}


class Stateful:
    """Carries the states of a compiled step from call to call.

    Args:
        step: frame and states to output and states.
        widths: of the states.
        shape: of a frame without its width: () or (streams,).
    """

    def __init__(self, step: Step, widths: list[int], shape: tuple[int, ...] = ()):
        self._step = step
        self._states = [torch.zeros(*shape, width) for width in widths]

    def __call__(self, frame: Tensor) -> Tensor:
        """The output of the next frame."""
        y, *self._states = self._step(frame, *self._states)
        return y


def compiled(program: Program) -> Stateful:
    """The step through torch.compile; it is compiled for one frame (input_width,) before this returns."""
    module = FunctionalStep(program).eval()
    step = torch.compile(module, fullgraph=True, dynamic=False)
    with _quiet():
        Stateful(step, module.widths)(torch.zeros(program.input_width))
    return Stateful(step, module.widths)


def ahead_of_time(program: Program, *, batched: bool = False) -> Callable[[tuple[int, ...]], Stateful]:
    """The step through torch.export and AOTInductor.

    Args:
        program: the network.
        batched: frames are (streams, input_width) with two streams or more, in place of (input_width,).

    Returns:
        a function from the shape of a frame without its width, () or (streams,), to a step at zero state.
    """
    module = FunctionalStep(program).eval()
    shape = (8,) if batched else ()
    example = tuple(torch.zeros(*shape, width) for width in (program.input_width, *module.widths))
    streams = {0: torch.export.Dim("streams", min=2, max=4096)} if batched else {}
    with tempfile.TemporaryDirectory() as folder, _quiet():
        graph = torch.export.export(
            module, example, dynamic_shapes=(streams, (streams,) * len(module.widths))
        )
        package = torch._inductor.aoti_compile_and_package(graph, package_path=str(Path(folder, "step.pt2")))
        loader = torch._inductor.aoti_load_package(package).loader
    # Calling the package itself sorts its arguments in Python for another 10 us.
    return lambda shape: Stateful(lambda *values: loader.boxed_run(list(values)), module.widths, shape)


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the compilers' own
        yield
