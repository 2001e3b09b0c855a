"""Stacks of dense layers for tests of lrnn.export.netx."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import torch
from torch import nn

import lrnn
from lrnn.export.netx import Layer, Stack, compile_netx
from lrnn.program import Program
from lrnn.program.fixed import nodes as fixed
from lrnn.program.fixed.format import Format


def mlp(*widths: int, relu: bool = True, density: float = 1.0, seed: int = 0) -> nn.Sequential:
    """Linear and ReLU in turn; `relu` says whether one ends it."""
    torch.manual_seed(seed)
    modules = []
    for a, b in pairwise(widths):
        linear = nn.Linear(a, b)
        linear.weight.data *= torch.rand(b, a) < density
        modules += [linear, nn.ReLU()]
    return nn.Sequential(*(modules if relu else modules[:-1])).requires_grad_(False)


def frames(width: int, count: int = 40, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)


def program(*widths: int, **options) -> Program:
    """A random stack, lowered for netx."""
    floats = lrnn.compile(mlp(*widths, **options))
    return compile_netx(floats, lrnn.calibrate(floats, [frames(widths[0], seed=1)]))


def stack(*weights: np.ndarray, biases: list | None = None, bits: int = 12, low: int | None = None) -> Stack:
    """A stack of given integers behind an input of `bits` bits; `low` = 0 says that it has no sign."""
    biases = [np.zeros(len(w), np.int64) for w in weights] if biases is None else biases
    layers = [
        Layer(str(i), w.astype(np.int8), np.asarray(b, np.int64))
        for i, (w, b) in enumerate(zip(weights, biases, strict=True))
    ]
    most = 2 ** (bits - 1) - 1
    return Stack(tuple(layers), "x", "y", Format(0, bits, -most if low is None else low, most), 0)


def integers(of: Stack, count: int = 40, seed: int = 0) -> np.ndarray:
    """Frames over the whole range of a stack's input, its two ends first."""
    shape = (count, of.input_width)
    x = np.random.default_rng(seed).integers(of.input.low, of.input.high, shape, endpoint=True)
    x[0], x[1], x[2] = of.input.high, of.input.low, of.input.high
    return x


def two_branches() -> Program:
    """A chain of two layers, two layers beside each other, their sum, and a layer behind it."""
    made = program(6, 8, 8)
    last = {"exponent": 5, "bits": 16}
    dense = {"rounding": "floor", "weight_exponent": np.full(4, 7, np.int8), "bias": np.full(4, 64, np.int32)}
    x = made.formats["3"].exponent
    rng = np.random.default_rng(0)

    def layer(name: str, source: str, cols: int, exponent: int) -> fixed.Linear:
        weight = rng.integers(-20, 20, (4, cols)).astype(np.int8)
        return fixed.Linear(name, (source,), exponent=exponent + 7 - 6, bits=32, weight=weight, **dense)

    branches = [
        layer("left", "3", 8, x),
        fixed.Relu("left.relu", ("left",)),
        layer("right", "3", 8, x),
        fixed.Relu("right.relu", ("right",)),
        fixed.Add("sum", ("left.relu", "right.relu"), **last),
        layer("head", "sum", 4, last["exponent"]),
        fixed.Relu("head.relu", ("head",)),
        fixed.Rescale("small", ("head.relu",), exponent=0, bits=16),
        fixed.Dequantize("out", ("small",)),
    ]
    return replace(made, nodes=(*made.nodes[:-1], *branches), output="out")
