"""Stacks of dense layers for tests of lrnn.export.netx."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from torch import nn

import lrnn
from lrnn.export.netx import Layer, Stack, compile_netx
from lrnn.program import Program
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
