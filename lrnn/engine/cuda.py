"""One step of a float program for 1 to 16 streams, captured whole in a CUDA graph.

A network whose matrices are some hundred kilobytes takes a GPU less time per layer than a launch takes the
CPU. Captured, all kernels of a step are one submission, and their inputs, outputs and states stay where
they are. Sparse matrices are packed (lrnn.ops.packed_matvec); one that packing would not make smaller than
its dense form in half precision stays dense, in float32. What lies between two products is fused to one
kernel by torch.compile. The limit of a step is the weights' bytes over the GPU's read bandwidth or, for
small networks, the number of kernels in the graph.

Without a GPU the same code runs uncaptured and unfused, for tests. Nothing here has run on a GPU yet:
experiments/gpu_bench.py measures it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from lrnn.ops import PackedWeight, packed_matvec
from lrnn.program import nodes as op
from lrnn.program.program import Program, tensors
from lrnn.program.torch_executor import STATELESS

_WARM_UP = 3  # runs before capture: kernels are compiled, libraries take their workspaces


class DecodeStep:
    """Runs a program step by step for a fixed number of streams, in float32 with rounded weights.

    Args:
        program: what to run; its tensors are copied.
        batch: streams, 1 to 16, all stepped together.
        format: of packed weights: "float16", "bfloat16" or "int8".
        device: None is CUDA where there is one, else the CPU.

    Attributes:
        captured: whether a step is one launch of a CUDA graph.
        packed: the packed matrices by the name of their node.

    Raises:
        ValueError: batch or format is out of range.

    Example:
        >>> decode = DecodeStep(program, batch=4)
        >>> y = decode.step(x)  # x (4, input_width)
    """

    def __init__(
        self,
        program: Program,
        batch: int = 1,
        format: str = "float16",
        device: torch.device | str | None = None,
    ):
        if not 1 <= batch <= 16:
            raise ValueError(f"batch is {batch}, expected 1 to 16")
        device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.program, self.packed = program, {}
        self._x = torch.zeros(batch, program.input_width, device=device)
        self._y = torch.zeros(batch, program.output_width, device=device)
        self._state = {
            name: torch.zeros(batch, width, device=device) for name, width in program.state_widths.items()
        }
        self._calls = [(node, self._call_of(node, format)) for node in program.nodes]
        self.captured = device.type == "cuda"
        self._run = self._capture() if self.captured else self._run_nodes

    @torch.no_grad()
    def step(self, x: Tensor) -> Tensor:
        """The next frame of every stream. NaN and infinity are passed on, and what is no token is taken for
        the nearest one: finding them would mean waiting.

        Args:
            x: (batch, input_width) floating point, on any device.

        Returns:
            y (batch, output_width) float32, on this step's device: a buffer that the next call overwrites.

        Raises:
            TypeError: x is not floating point.
            ValueError: x has another shape.
        """
        if not x.is_floating_point():
            raise TypeError(f"x is {x.dtype}, expected a floating-point tensor")
        if x.shape != self._x.shape:
            raise ValueError(f"x has shape {tuple(x.shape)}, expected {tuple(self._x.shape)}")
        self._x.copy_(x, non_blocking=True)
        self._run()
        return self._y

    def reset(self) -> None:
        """Back to the state before the first frame: zeros."""
        for value in self._state.values():
            value.zero_()

    @property
    def state(self) -> dict[str, Tensor]:
        """A copy to assign later: (batch, state_width) by the name of each node that remembers."""
        return {name: value.clone() for name, value in self._state.items()}

    @state.setter
    @torch.no_grad()
    def state(self, value: dict[str, Tensor]) -> None:
        self.program.check_state({name: tuple(v.shape) for name, v in value.items()}, (len(self._x),))
        for name, tensor in value.items():
            self._state[name].copy_(tensor)

    @torch.no_grad()
    def _run_nodes(self) -> None:
        values = {self.program.input: self._x}
        for node, call in self._calls:
            values[node.name] = call(*[values[name] for name in node.inputs])
        self._y.copy_(values[self.program.output])

    def _capture(self) -> Callable[[], None]:
        """Capture `_run_nodes`, compiled, in a graph; returns what replays it."""
        aside = torch.cuda.Stream(self._x.device)
        aside.wait_stream(torch.cuda.current_stream(self._x.device))
        with torch.cuda.stream(aside):
            run = self._compiled()
        torch.cuda.current_stream(self._x.device).wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(self._x.device), torch.cuda.graph(graph, stream=aside):
            run()
        self.reset()
        return graph.replay

    def _compiled(self, backend: str = "inductor") -> Callable[[], None]:
        """`_run_nodes` with what lies between two products fused, warmed up."""
        run = torch.compile(self._run_nodes, fullgraph=True, dynamic=False, backend=backend)
        for _ in range(_WARM_UP):
            run()
        return run

    def _call_of(self, node: op.Node, format: str) -> Callable[..., Tensor]:
        """A function of the node's inputs, (batch, width) each, with its tensors on the device."""
        w = {name: torch.tensor(value, device=self._x.device) for name, value in tensors(node).items()}
        if isinstance(node, op.Linear):
            return self._linear(node, w["weight"], w.get("bias"), format)
        if isinstance(node, op.Affine):
            return lambda x: torch.addcmul(w["shift"], w["scale"], x)
        if isinstance(node, op.Diagonal):
            return _diagonal(w["a"], self._state[node.name])
        if isinstance(node, op.Gated):
            return _gated(w.get("rotation"), self._state[node.name])
        if isinstance(node, op.Embedding):
            return lambda x: w["weight"][x[..., 0].long().clamp(0, node.tokens - 1)]
        if isinstance(node, op.MeanPool):
            return _mean_pool(self._state[node.name])
        if type(node) not in STATELESS:
            raise node.error("a step on a GPU has no such operation")
        return lambda *x: STATELESS[type(node)](node, w, *x)

    def _linear(self, node: op.Linear, weight: Tensor, bias: Tensor | None, format: str):
        packed = PackedWeight.from_dense(weight, format)
        if packed.nbytes >= 2 * weight.numel():
            return lambda x: F.linear(x, weight, bias)
        self.packed[node.name] = packed
        return lambda x: packed_matvec(x, packed, bias)


def _diagonal(a: Tensor, state: Tensor) -> Callable[[Tensor], Tensor]:
    def call(x: Tensor) -> Tensor:
        h = _turned(a, state) + x
        state.copy_(h)
        return h

    return call


def _gated(rotation: Tensor | None, state: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    def call(g: Tensor, x: Tensor) -> Tensor:
        if rotation is None:
            h = state + g * (x - state)
        else:
            u = _turned(rotation, state)
            h = u + (g[..., None] * (x - u).unflatten(-1, (-1, 2))).flatten(-2)
        state.copy_(h)
        return h

    return call


def _turned(a: Tensor, h: Tensor) -> Tensor:
    """The pairs h (batch, 2 P) times a (P, 2), in real numbers: Inductor fuses no complex ones."""
    a_real, a_imaginary = a.unbind(-1)  # (P,)
    real, imaginary = h.unflatten(-1, (-1, 2)).unbind(-1)  # (batch, P)
    parts = a_real * real - a_imaginary * imaginary, a_real * imaginary + a_imaginary * real
    return torch.stack(parts, dim=-1).flatten(-2)


def _mean_pool(state: Tensor) -> Callable[[Tensor], Tensor]:
    def call(x: Tensor) -> Tensor:
        state[:, :-1].add_(x)
        state[:, -1:].add_(1)
        return state[:, :-1] / state[:, -1:]

    return call
