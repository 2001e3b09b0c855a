"""Schemes, the integers and exponents of weights, and ranges: the numbers quantisation is made of."""

from __future__ import annotations

import json
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lrnn.quant import (
    SCHEMES,
    Range,
    Ranges,
    Scheme,
    dequantize,
    exponent_for_range,
    get_scheme,
    largest_integer,
    quantize_weight,
)

POSITIVE = st.floats(min_value=0, exclude_min=True, max_value=1e300)
WEIGHTS = arrays(
    np.float32, st.tuples(st.integers(1, 5), st.integers(1, 5)), elements=st.floats(-8, 8, width=32)
)


def rounds_to(value: float, exponent: int) -> int:
    """Nearest integer of value * 2 ** exponent, halves to even, in exact arithmetic."""
    return round(Fraction(value) * Fraction(2) ** exponent)


@given(POSITIVE, st.integers(2, 32))
def test_the_exponent_is_the_largest_that_does_not_clip(max_abs, bits):
    exponent = exponent_for_range(max_abs, bits)
    assert rounds_to(max_abs, exponent) <= largest_integer(bits) < rounds_to(max_abs, exponent + 1)


@pytest.mark.parametrize(
    ("max_abs", "bits", "exponent"),
    [
        (1.0, 8, 6),  # 128 is one too many
        (127 / 128, 8, 7),
        (127.49 / 128, 8, 7),
        (127.5 / 128, 8, 6),  # a tie, and 127 is odd
        (3.0, 3, 0),
        (4.0, 3, -1),
        (5e-324, 8, 1080),  # 2 ** -1074, held as 64
    ],
)
def test_the_exponent_at_its_edges(max_abs, bits, exponent):
    assert exponent_for_range(max_abs, bits) == exponent


@pytest.mark.parametrize("max_abs", [0.0, -1.0, math.nan, math.inf])
def test_a_range_without_a_scale_is_refused(max_abs):
    with pytest.raises(ValueError, match=r"max_abs is .*, expected a finite number above 0"):
        exponent_for_range(max_abs, 8)


@pytest.mark.parametrize("bits", [1, 33, 8.0, True])
def test_bits_out_of_range_are_refused(bits):
    with pytest.raises(ValueError, match="bits is"):
        exponent_for_range(1.0, bits)
    with pytest.raises(ValueError, match="bits is"):
        quantize_weight(np.ones((2, 2)), bits)


@given(WEIGHTS, st.sampled_from([2, 4, 8, 16]), st.sampled_from(["row", "tensor"]))
def test_a_weight_is_its_nearest_integers(weight, bits, scale):
    integers, exponents = quantize_weight(weight, bits, scale)
    assert integers.dtype == exponents.dtype == np.int32
    assert exponents.shape == ((len(weight),) if scale == "row" else ())
    assert abs(integers).max() <= largest_integer(bits)
    assert (integers[weight == 0] == 0).all()
    for index, value in np.ndenumerate(weight):
        exponent = int(exponents[index[0]] if scale == "row" else exponents)
        assert integers[index] == rounds_to(float(value), exponent)
    steps = np.ldexp(1.0, -exponents)
    assert (
        abs(dequantize(integers, exponents) - weight) <= (steps[:, None] if scale == "row" else steps) / 2
    ).all()


@given(WEIGHTS, st.sampled_from([2, 8]))
def test_quantising_twice_changes_nothing(weight, bits):
    """Nor does it with another exponent: one scale may hold what a finer one rounded up to."""
    once = dequantize(*quantize_weight(weight, bits))
    np.testing.assert_array_equal(dequantize(*quantize_weight(once, bits)), once)


def test_a_row_scale_keeps_what_a_tensor_scale_loses():
    """A slow state's row of B_bar is about its time step: 100 times smaller than a fast one's."""
    weight = np.random.default_rng(0).standard_normal((64, 32)) * np.logspace(-3, -1, 64)[:, None]
    errors = {
        scale: abs(dequantize(*quantize_weight(weight, 8, scale)) - weight)[0].max() / abs(weight[0]).max()
        for scale in ("row", "tensor")
    }
    assert errors["row"] < 1 / 127
    assert errors["tensor"] > 0.1


def test_zero_rows_vectors_and_tensors():
    integers, exponents = quantize_weight(torch.tensor([[0.0, 0.0], [0.5, -0.25]]), 8)
    assert integers.tolist() == [[0, 0], [64, -32]]
    assert exponents.tolist() == [0, 7]
    integers, exponents = quantize_weight(np.array([0.5, 0.0, -3.0]), 4)
    assert integers.tolist() == [4, 0, -6]
    assert exponents.tolist() == [3, 0, 1]
    integers, exponents = quantize_weight(np.zeros((2, 0)), 8)
    assert integers.shape == (2, 0)
    assert exponents.tolist() == [0, 0]


def test_a_bad_weight_is_named():
    with pytest.raises(ValueError, match=r"encoder\.weight has NaN or infinite values"):
        quantize_weight(np.array([[1.0, np.nan]]), 8, name="encoder.weight")
    with pytest.raises(ValueError, match=r"C has shape \(1, 1, 1\), expected \(rows, cols\)"):
        quantize_weight(np.ones((1, 1, 1)), 8, name="C")
    with pytest.raises(ValueError, match="scale is 'column', expected one of row, tensor"):
        quantize_weight(np.ones((1, 1)), 8, "column")


def test_presets():
    assert list(SCHEMES) == ["w8a16", "w8a8", "w4a16", "w4a8", "w2a8", "w16a16", "loihi2", "fp8"]
    assert all(scheme.name == name for name, scheme in SCHEMES.items())
    assert get_scheme("w8a16") == Scheme("w8a16")
    assert get_scheme(SCHEMES["fp8"]) is SCHEMES["fp8"]
    w4a8 = SCHEMES["w4a8"]
    assert {w4a8.b_bits, w4a8.c_bits, w4a8.d_bits, w4a8.weight_bits} == {4}
    assert w4a8.activation_bits == 8
    assert w4a8.a_bits == 16  # lambda_bar of a slow state is 1 - 1e-3
    assert SCHEMES["loihi2"].matrix_input_bits == 11
    assert w4a8.matrix_input_bits == 8
    with pytest.raises(ValueError, match="scheme is 'w3', expected one of w8a16"):
        get_scheme("w3")


@pytest.mark.parametrize("name", SCHEMES)
def test_schemes_go_through_json(name):
    assert Scheme.from_json(json.loads(json.dumps(SCHEMES[name].to_json()))) == SCHEMES[name]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"b_bits": 1}, "scheme 'x': b_bits is 1, expected 2 to 16"),
        ({"a_bits": None}, "a_bits is None"),
        ({"state_bits": 24.0}, "state_bits is 24.0, expected 8 to 32"),
        ({"rounding": "up"}, "rounding is 'up', expected one of nearest_even, nearest_up, floor"),
        ({"weight_scale": None}, "weight_scale is None, expected one of row, tensor"),
        ({"float_weights": "e5m2"}, "float_weights is 'e5m2', expected one of e4m3"),
        ({"activation_bits": 8, "message_bits": 9}, "message_bits is 9, expected at most activation_bits, 8"),
    ],
)
def test_a_scheme_that_makes_no_sense_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Scheme("x", **fields)


def test_a_scheme_of_another_version_is_refused():
    with pytest.raises(ValueError, match="unknown field 'e_bits'"):
        Scheme.from_json({"name": "x", "e_bits": 8})
    with pytest.raises(ValueError, match="field 'name' is missing"):
        Scheme.from_json({"a_bits": 8})


def test_ranges_go_through_json():
    ranges = Ranges({"input": Range(1.5, -1.5, 1.0, 20), "relu": Range(0.0, 0.0, 0.0, 20)}, "minmax", 3)
    assert Ranges.from_json(json.loads(json.dumps(ranges.to_json()))) == ranges
    assert ranges["input"].max_abs == 1.5
    with pytest.raises(KeyError, match="value 'encoder' was not calibrated"):
        ranges["encoder"]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ((math.nan, 0.0, 0.0, 1), "max_abs is nan, expected a finite number"),
        ((1.0, -math.inf, 0.0, 1), "min is -inf"),
        ((-1.0, 0.0, 0.0, 1), "max_abs is -1.0, expected at least 0"),
        ((1.0, 1.0, 0.0, 1), "min is 1.0, above max, 0.0"),
        ((1.0, 0.0, 1.0, 0), "count is 0, expected at least 1"),
    ],
)
def test_a_range_that_makes_no_sense_is_refused(entry, message):
    with pytest.raises(ValueError, match=message):
        Range(*entry)


def test_ranges_that_make_no_sense_are_refused():
    values = {"input": Range(1.0, 0.0, 1.0, 1)}
    for arguments, message in (
        (({}, "minmax", 1), "ranges are empty"),
        ((values, "median", 1), "observer is 'median'"),
        ((values, "minmax", 0), "clips is 0"),
    ):
        with pytest.raises(ValueError, match=message):
            Ranges(*arguments)
    broken = Ranges(values, "minmax", 1).to_json()
    broken["values"]["input"]["count"] = 0
    with pytest.raises(ValueError, match="range of value 'input': count is 0"):
        Ranges.from_json(broken)
    with pytest.raises(ValueError, match="ranges have fields"):
        Ranges.from_json({"values": {}})
