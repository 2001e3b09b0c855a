"""The normative executor: one frame at a time in numpy, as plain as the equations. What it computes is right.

Floats are float32, integers int64; nodes run in the order of the program, and a step is a pure function that
takes a state and returns the next one. It is slow on purpose; the native engine (lrnn.engine) is held to it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from lrnn.program import nodes as op
from lrnn.program.fixed import numpy_nodes as fixed
from lrnn.program.program import Program

State = dict[str, np.ndarray]


class NumpyExecutor:
    """Runs a program frame by frame.

    Args:
        program: the program; it is read, never changed.

    Example:
        >>> executor = NumpyExecutor(program)
        >>> state = executor.zero_state()
        >>> y, state = executor.step(x, state)
    """

    def __init__(self, program: Program):
        self.program = program
        self._functions = {node.name: _bound(program, node) for node in program.nodes}

    def zero_state(self) -> State:
        """The state before the first frame: zeros by name, of `program.state_widths` and `state_dtypes`."""
        dtypes = self.program.state_dtypes
        return {name: np.zeros(width, dtypes[name]) for name, width in self.program.state_widths.items()}

    def step(self, x: np.ndarray, state: State) -> tuple[np.ndarray, State]:
        """One frame.

        Args:
            x: (input_width,) numbers; converted to float32.
            state: from `zero_state` or the previous step; not changed.

        Returns:
            y (output_width,) float32, and the state to give to the next step.

        Raises:
            ValueError: x has another shape, or holds NaN, infinity or a number that is no token's; state is
                not that of this program.
        """
        values, after = self.trace(x, state)
        return values[self.program.output], after

    def trace(self, x: np.ndarray, state: State) -> tuple[State, State]:
        """As `step`, but returns every value of the program by name, the input included; those of fixed-point
        nodes as int64.
        """
        self.program.check_state({name: value.shape for name, value in state.items()})
        x = np.asarray(x, np.float32)
        if x.shape != (self.program.input_width,):
            raise ValueError(f"x has shape {x.shape}, expected ({self.program.input_width},)")
        if not np.isfinite(x).all():
            raise ValueError("x has NaN or infinite values")
        self.program.check_tokens(x, "x")
        values = {self.program.input: x}
        after: State = {}
        for node in self.program.nodes:
            inputs = [values[name] for name in node.inputs]
            compute = self._functions[node.name]
            if node.state_width:
                values[node.name], after[node.name] = compute(*inputs, state[node.name])
            else:
                values[node.name] = compute(*inputs)
        return values, after


def _bound(program: Program, node: op.Node) -> Callable:
    """What a node computes, as a function of its inputs, and of its state where it has one."""
    if type(node) in _FUNCTIONS:
        return partial(_FUNCTIONS[type(node)], node)
    return partial(fixed.FUNCTIONS[type(node)], node, [program.formats[name] for name in node.inputs])


def _linear(node: op.Linear, x: np.ndarray) -> np.ndarray:
    y = node.weight @ x  # (rows, cols) (cols,) -> (rows,)
    return y if node.bias is None else y + node.bias


def _affine(node: op.Affine, x: np.ndarray) -> np.ndarray:
    return node.scale * x + node.shift


def _relu(node: op.Relu, x: np.ndarray) -> np.ndarray:
    return np.maximum(x, np.float32(0))


def _pair_relu(node: op.PairRelu, x: np.ndarray) -> np.ndarray:
    pairs = x.reshape(-1, 2)  # (P, 2) re, im
    re, im = pairs[:, 0], pairs[:, 1]
    keep = (re > 0) | ((re == 0) & (im > 0))
    return np.where(keep[:, None], pairs, np.float32(0)).reshape(-1)


def _sigmoid(node: op.Node, x: np.ndarray) -> np.ndarray:
    e = np.exp(-np.abs(x))  # in (0, 1]: never overflows
    return np.where(x >= 0, np.float32(1), e) / (np.float32(1) + e)


def _silu(node: op.Silu, x: np.ndarray) -> np.ndarray:
    return x * _sigmoid(node, x)


def _gelu(node: op.Gelu, x: np.ndarray) -> np.ndarray:
    inner = np.float32(np.sqrt(2 / np.pi)) * (x + np.float32(0.044715) * x * x * x)
    return np.float32(0.5) * x * (np.float32(1) + np.tanh(inner))


def _layer_norm(node: op.LayerNorm, x: np.ndarray) -> np.ndarray:
    centred = x - x.mean()
    return centred / np.sqrt((centred * centred).mean() + np.float32(node.eps)) * node.scale + node.shift


def _rms_norm(node: op.RmsNorm, x: np.ndarray) -> np.ndarray:
    return x / np.sqrt((x * x).mean() + np.float32(node.eps)) * node.scale


def _embedding(node: op.Embedding, x: np.ndarray) -> np.ndarray:
    return node.weight[int(x[0])]


def _add(node: op.Add, x0: np.ndarray, x1: np.ndarray) -> np.ndarray:
    return x0 + x1


def _product(node: op.Product, x0: np.ndarray, x1: np.ndarray) -> np.ndarray:
    return x0 * x1


def _round(node: op.Round, x: np.ndarray) -> np.ndarray:
    return np.rint(x * np.float32(2.0**node.exponent)) * np.float32(2.0**-node.exponent)


def _log_softmax(node: op.LogSoftmax, x: np.ndarray) -> np.ndarray:
    shifted = x - x.max()
    return shifted - np.log(np.exp(shifted).sum())


def _diagonal(node: op.Diagonal, x: np.ndarray, h: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    new = _turned(node.a, h) + x
    return new, new


def _gated(node: op.Gated, g: np.ndarray, x: np.ndarray, h: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if node.rotation is not None:
        g, h = np.repeat(g, 2), _turned(node.rotation, h)
    new = h + g * (x - h)
    return new, new


def _turned(a: np.ndarray, h: np.ndarray) -> np.ndarray:
    are, aim = a[:, 0], a[:, 1]  # (P,)
    hre, him = h[0::2], h[1::2]
    product = np.empty_like(h)
    product[0::2] = are * hre - aim * him
    product[1::2] = are * him + aim * hre
    return product


def _mean_pool(node: op.MeanPool, x: np.ndarray, state: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    state = state + np.append(x, np.float32(1))  # (size + 1,): the sum, and the count of frames
    return state[:-1] / state[-1], state


_FUNCTIONS: dict[type[op.Node], Callable] = {
    op.Linear: _linear,
    op.Affine: _affine,
    op.Relu: _relu,
    op.PairRelu: _pair_relu,
    op.Sigmoid: _sigmoid,
    op.Silu: _silu,
    op.Gelu: _gelu,
    op.LayerNorm: _layer_norm,
    op.RmsNorm: _rms_norm,
    op.Embedding: _embedding,
    op.Add: _add,
    op.Product: _product,
    op.Round: _round,
    op.LogSoftmax: _log_softmax,
    op.Diagonal: _diagonal,
    op.Gated: _gated,
    op.MeanPool: _mean_pool,
}
