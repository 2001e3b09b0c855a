"""The fixed-point arithmetic of the paper's code, for parity with it; nothing else in lrnn runs on it.

A number is data / 2 ** exponent, saturated to -2 ** (bits - 1) .. 2 ** (bits - 1) - 1 (lrnn's own integers
are symmetric). Right shifts round down. Every product is shifted by itself, before it is added to another.
The exponents of norms and residuals follow from the data of the whole batch, so that this arithmetic can
neither stream nor be compiled: lrnn.program.fixed has static ones.

Two faults of that code are told apart. In the recurrence the products with the imaginary part of lambda_bar
are shifted by the exponent of the real part: `recurrence` does it, or not. And the state wraps around at 32
bits: here it does not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Direction = Literal["floor", "round", "ceil"]
_EPS = np.float32(1e-6)


@dataclass(frozen=True)
class Fixed:
    """Integers with one exponent.

    Args:
        data: int64, any shape.
        bits: width with the sign.
        exponent: the number meant is data / 2 ** exponent.
    """

    data: np.ndarray
    bits: int
    exponent: int

    @property
    def values(self) -> np.ndarray:
        """In float32, as that code decides exponents."""
        return self.data.astype(np.float32) / np.float32(2.0**self.exponent)

    def at(self, exponent: int, bits: int | None = None, direction: Direction = "floor") -> Fixed:
        """At another exponent, saturated at the old width, and then at the new one."""
        moved = saturated(shifted(self.data, self.exponent - exponent, direction), self.bits, exponent)
        return moved if bits is None else saturated(moved.data, bits, exponent)

    def __neg__(self) -> Fixed:
        return Fixed(-self.data, self.bits, self.exponent)


def shifted(x: np.ndarray, right: int, direction: Direction = "floor") -> np.ndarray:
    """x / 2 ** right as integers; negative shifts are exact."""
    if right <= 0:
        return x << -right
    more = {"floor": 0, "round": 1 << (right - 1), "ceil": (1 << right) - 1}[direction]
    return (x + more) >> right


def saturated(x: np.ndarray, bits: int, exponent: int) -> Fixed:
    """Integers held by `bits` bits."""
    return Fixed(np.clip(x, -(1 << (bits - 1)), (1 << (bits - 1)) - 1), bits, exponent)


def integer_bits(largest: np.float32) -> int:
    """Bits before the point of a magnitude."""
    return max(0, math.ceil(np.log2(np.float32(largest) + _EPS)))


def best_exponent(result: np.ndarray, bits: int) -> int:
    """Of the largest magnitude in a float32 result: "compute_best"."""
    return bits - integer_bits(np.abs(result).max()) - 1


def add(x: Fixed, y: Fixed, exponent: int | None = None, bits: int | None = None) -> Fixed:
    """x + y, each brought to `exponent` first; None finds the best for their sum at the finer of theirs."""
    bits = max(x.bits, y.bits) if bits is None else bits
    if exponent is not None:
        return saturated(x.at(exponent).data + y.at(exponent).data, bits, exponent)
    exponent, finest = best_exponent(x.values + y.values, bits), max(x.exponent, y.exponent)
    total = x.at(finest).data + y.at(finest).data
    return saturated(shifted(total, finest - exponent), bits, exponent)


def multiply(x: Fixed, y: Fixed, exponent: int | None = None, bits: int | None = None) -> Fixed:
    """x * y, element by element; None finds the best exponent."""
    bits = max(x.bits, y.bits) if bits is None else bits
    if exponent is None:
        exponent = best_exponent(x.values * y.values, bits)
    return saturated(shifted(x.data * y.data, x.exponent + y.exponent - exponent), bits, exponent)


def matmul(x: Fixed, y: Fixed, exponent: int, bits: int) -> Fixed:
    """x @ y, shifted once."""
    return saturated(shifted(x.data @ y.data, x.exponent + y.exponent - exponent), bits, exponent)


def relu(x: Fixed) -> Fixed:
    """max(x, 0)."""
    return Fixed(np.maximum(x.data, 0), x.bits, x.exponent)


def sigmoid_table(exponent: int) -> np.ndarray:
    """(8,) sigmoid(k) - 1/2 at k = 0 .. 7, in units of 2 ** -exponent."""
    k = np.arange(8, dtype=np.float32)
    return np.round(1 / (1 + np.exp(-k)) * (1 << exponent)).astype(np.int64) - (1 << (exponent - 1))


def sigmoid(x: Fixed, x_exponent: int, exponent: int) -> Fixed:
    """By lines between the table's points; beyond 7 it runs up and down between the last two of them."""
    table, x = sigmoid_table(exponent), x.at(x_exponent)
    magnitude = np.abs(x.data)
    i = np.minimum(magnitude >> x_exponent, 6)
    rest = magnitude & ((1 << x_exponent) - 1)
    below = (((1 << x_exponent) - rest) * table[i]) >> x_exponent
    half = below + ((rest * table[i + 1]) >> x_exponent)
    return Fixed((1 << (exponent - 1)) + np.where(x.data > 0, half, -half), x.bits, exponent)


Tree = Mapping[str, Any]
"""Integers or settings by name, in levels, as that code stores them."""


def dense(x: Fixed, weights: Tree, settings: Tree) -> Fixed:
    """x @ weight, then + bias."""
    if x.bits > settings["inp_bits"] or x.exponent > settings["inp_exp"]:
        x = x.at(settings["inp_exp"], settings["inp_bits"])
    y = matmul(x, _weight(weights, settings, "weight"), settings["out_exp"], settings["out_bits"])
    return add(y, _weight(weights, settings, "bias"), settings["out_exp"], settings["out_bits"])


def batch_norm(x: Fixed, weights: Tree, settings: Tree) -> Fixed:
    """Minus mean, times 1 / std, times scale, plus bias."""
    x = add(x, -_weight(weights, settings, "mean"))
    x = multiply(x, _weight(weights, settings, "invsq_var"))
    x = multiply(x, _weight(weights, settings, "scale"))
    return add(x, _weight(weights, settings, "bias"))


def ssm(
    u: Fixed, weights: Tree, settings: Tree, own_shift: bool = False
) -> tuple[Fixed, dict[str, np.ndarray]]:
    """An S5 with the paper's state ReLU.

    Args:
        u: (B, T, H).
        weights: integers.
        settings: bits and exponents.
        own_shift: whether products with the imaginary part are shifted by its own exponent, as is right.

    Returns:
        y, and the states before their ReLU by part, "re" and "im" (B, T, P).
    """
    u = u.at(settings["u_exp"], settings["u_bits"])
    drive = [
        matmul(
            u,
            _transposed(_weight(weights, settings, name)),
            settings[f"Bu_{part}_exp"],
            settings[f"Bu_{part}_bits"],
        )
        for part, name in (("re", "B_real"), ("im", "B_imag"))
    ]
    state_exponents = settings["x_re_exp"], settings["x_im_exp"]
    re, im = recurrence(
        _weight(weights, settings, "A_real"),
        _weight(weights, settings, "A_imag"),
        *(shifted(d.data, d.exponent - e) for d, e in zip(drive, state_exponents, strict=True)),
        own_shift=own_shift,
    )
    keep = (re > 0) | ((re == 0) & (im > 0))
    exponent, bits = settings["y_exp"], settings["y_bits"]
    read = [
        matmul(
            Fixed(x * keep, settings[f"x_{part}_bits"], e),
            _transposed(_weight(weights, settings, name)),
            exponent,
            bits,
        )
        for x, e, part, name in zip(
            (re, im), state_exponents, ("re", "im"), ("C_real", "C_imag"), strict=True
        )
    ]
    y = add(read[0], -read[1], exponent, bits)
    y = Fixed(2 * y.data, bits, exponent)
    y = add(y, multiply(_weight(weights, settings, "D"), u, exponent, bits), exponent, bits)
    return y, {"re": re, "im": im}


def recurrence(
    a_re: Fixed, a_im: Fixed, b_re: np.ndarray, b_im: np.ndarray, own_shift: bool
) -> tuple[np.ndarray, np.ndarray]:
    """h = a h + b from zeros, (B, T, P) each, in 64 bits: it neither wraps nor saturates."""
    first = a_im.exponent if own_shift else a_re.exponent
    second = a_re.exponent if own_shift else a_im.exponent
    re, im = np.zeros_like(b_re), np.zeros_like(b_im)
    h_re, h_im = np.zeros_like(b_re[:, 0]), np.zeros_like(b_im[:, 0])
    for t in range(b_re.shape[1]):
        h_re, h_im = (
            ((a_re.data * h_re) >> a_re.exponent) - ((a_im.data * h_im) >> first) + b_re[:, t],
            ((a_re.data * h_im) >> second) + ((a_im.data * h_re) >> a_im.exponent) + b_im[:, t],
        )
        re[:, t], im[:, t] = h_re, h_im
    return re, im


def run(x: Fixed, weights: Tree, settings: Tree, layers: int, own_shift: bool = False) -> dict[str, Fixed]:
    """The paper's half1 regression model: encoder, layers, decoder.

    Args:
        x: (B, T, d_in).
        weights: integers, {"encoder": {"encoder", "layers_0", ...}, "decoder"}.
        settings: bits and exponents in the same levels.
        layers: how many.
        own_shift: see `ssm`.

    Returns:
        What leaves the encoder, each layer and the decoder: "encoder", "layers_0", ..., "decoder".
    """
    inner, inner_settings = weights["encoder"], settings["encoder"]
    h = relu(dense(x, inner["encoder"], inner_settings["encoder"]))
    out = {"encoder": h}
    for i in range(layers):
        name = f"layers_{i}"
        h = out[name] = _layer(h, inner[name], inner_settings[name], own_shift)
    out["decoder"] = dense(h, weights["decoder"], settings["decoder"])
    return out


def _layer(x: Fixed, weights: Tree, settings: Tree, own_shift: bool) -> Fixed:
    u = batch_norm(x, weights["norm"], settings["norm"])
    x1 = relu(ssm(u, weights["mixer"], settings["mixer"], own_shift)[0])
    table, gate = settings["sigmoid"], settings["multgate"]
    open_ = sigmoid(dense(x1, weights["out2"], settings["out2"]), table["x_exp"], table["y_exp"])
    left, right = x1.at(gate["l_exp"], gate["l_bits"]), open_.at(gate["r_exp"], gate["r_bits"])
    y = multiply(left, right, gate["res_exp"], gate["res_bits"])
    return relu(add(y, x, bits=gate["res_bits"]))


def _weight(weights: Tree, settings: Tree, name: str) -> Fixed:
    return Fixed(np.asarray(weights[name], np.int64), settings[f"{name}_bits"], settings[f"{name}_exp"])


def _transposed(x: Fixed) -> Fixed:
    return Fixed(x.data.T, x.bits, x.exponent)
