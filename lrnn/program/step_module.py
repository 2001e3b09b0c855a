"""A Program's step as a PyTorch module, for compilers and exporters: all state goes in and comes out.

No value is complex, which Inductor and ONNX do not take: an S5's recurrence is in real arithmetic on (re, im)
pairs. No operator is lrnn's own, so what is exported runs where lrnn is not installed.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lrnn.program import nodes as op
from lrnn.program.program import Program, tensors
from lrnn.program.torch_executor import STATELESS


class StepModule(nn.Module):
    """One frame of a float program, dense, as a pure function.

    `torch.compile(step, fullgraph=True)` and `torch.export.export(step, (frame, *step.zero_states(streams)))`
    take it as it is; `lrnn.export.save_step` writes it for AOTInductor and ONNX Runtime.

    Args:
        program: in float32; its weights become buffers.

    Attributes:
        state_widths: of the states in the order in which they are passed, by the names of their nodes.

    Raises:
        ValueError: the program is in fixed point.

    Example:
        >>> step = lrnn.program.StepModule(lrnn.compile(model)).eval()
        >>> states = step.zero_states(streams)
        >>> y, *states = step(frame, *states)  # frame (streams, input_width), y (streams, output_width)
    """

    def __init__(self, program: Program):
        super().__init__()
        if program.is_fixed:
            raise ValueError("program is in fixed point, expected one in float32: the one it was made of")
        places = {program.input: 0, **{node.name: i + 1 for i, node in enumerate(program.nodes)}}
        self.calls = nn.ModuleList(_FORMS.get(type(node), _Stateless)(node) for node in program.nodes)
        self._inputs = [[places[name] for name in node.inputs] for node in program.nodes]
        self._remembers = [node.state_width > 0 for node in program.nodes]
        self._output = places[program.output]
        self.input_width = program.input_width
        self.state_widths = dict(program.state_widths)

    def zero_states(self, *shape: int) -> list[Tensor]:
        """The states before the first frame, each (*shape, width), for frames (*shape, input_width)."""
        return [torch.zeros(*shape, width) for width in self.state_widths.values()]

    def forward(self, frame: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        """One frame of one stream or of many.

        Args:
            frame: (..., input_width) float32.
            states: (..., width) each, from `zero_states` or the last call.

        Returns:
            (..., output_width), then the states to give to the next call.

        Raises:
            ValueError: the frame or the states have other widths.
        """
        found = [x.shape[-1] for x in (frame, *states)]
        expected = [self.input_width, *self.state_widths.values()]
        if found != expected:
            raise ValueError(f"frame and states have widths {found}, expected {expected}")
        values, left, after = [frame], list(states), []
        for call, inputs, remembers in zip(self.calls, self._inputs, self._remembers, strict=True):
            arguments = [values[i] for i in inputs]
            if remembers:
                y, h = call(*arguments, left.pop(0))
                after.append(h)
            else:
                y = call(*arguments)
            values.append(y)
        return values[self._output], *after


class _Stateless(nn.Module):
    """A node of one frame, as the torch executor computes it."""

    def __init__(self, node: op.Node):
        super().__init__()
        self._node, self._compute, self._fields = node, STATELESS[type(node)], list(tensors(node))
        for field, value in tensors(node).items():
            self.register_buffer(field, torch.tensor(value))

    def forward(self, *inputs: Tensor) -> Tensor:
        return self._compute(self._node, {field: getattr(self, field) for field in self._fields}, *inputs)


class _Linear(nn.Module):
    """On one vector MKL's product of a matrix and a vector is 1.6 times as fast as that of two matrices."""

    def __init__(self, node: op.Linear):
        super().__init__()
        self.register_buffer("weight", torch.tensor(node.weight))
        self.register_buffer("bias", None if node.bias is None else torch.tensor(node.bias))

    def forward(self, x: Tensor) -> Tensor:
        if any(n != 1 for n in x.shape[:-1]):
            return nn.functional.linear(x, self.weight, self.bias)
        vector = x.reshape(-1)
        if self.bias is None:
            y = torch.mv(self.weight, vector)
        else:
            y = torch.addmv(self.bias, self.weight, vector)
        return y.reshape(*x.shape[:-1], -1)


class _Turn(nn.Module):
    """(re, im) pairs times constants a (P, 2)."""

    def __init__(self, a: Tensor):
        super().__init__()
        re, im = a.unbind(-1)  # (P,)
        self.register_buffer("re", re[:, None].contiguous())
        self.register_buffer("im", torch.stack([-im, im], dim=-1))

    def forward(self, h: Tensor) -> Tensor:
        pairs = h.unflatten(-1, (-1, 2))  # (..., P, 2)
        return (self.re * pairs + self.im * pairs.flip(-1)).flatten(-2)


class _Diagonal(nn.Module):
    def __init__(self, node: op.Diagonal):
        super().__init__()
        self._turn = _Turn(torch.tensor(node.a))

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        new = self._turn(h) + x
        return new, new


class _Gated(nn.Module):
    def __init__(self, node: op.Gated):
        super().__init__()
        self._turn = None if node.rotation is None else _Turn(torch.tensor(node.rotation))

    def forward(self, g: Tensor, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        if self._turn is None:
            new = h + g * (x - h)
        else:
            u = self._turn(h)
            new = u + (g[..., None] * (x - u).unflatten(-1, (-1, 2))).flatten(-2)
        return new, new


class _MeanPool(nn.Module):
    def __init__(self, node: op.MeanPool):
        super().__init__()

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        one = torch.ones_like(x[..., :1])
        state = state + torch.cat([x, one], dim=-1)  # the sum, and the count of frames
        return state[..., :-1] / state[..., -1:], state


_FORMS: dict[type[op.Node], type[nn.Module]] = {
    op.Linear: _Linear,
    op.Diagonal: _Diagonal,
    op.Gated: _Gated,
    op.MeanPool: _MeanPool,
}
