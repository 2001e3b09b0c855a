"""Each integer node against exact arithmetic in Python's numbers, and the proofs that no sum overflows."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from fixed_cases import between, ints, trace
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lrnn.program import Program, nodes
from lrnn.program.fixed import nodes as fixed
from lrnn.program.fixed.arithmetic import interpolate, inverse_root, shift_right
from lrnn.program.fixed.format import Format
from lrnn.program.fixed.tables import FUNCTIONS, make_table
from lrnn.quant import largest_integer

ROUNDINGS = ("nearest_even", "nearest_up", "floor")
roundings = st.sampled_from(ROUNDINGS)


def exact(value: Fraction, rounding: str) -> int:
    if rounding == "floor":
        return math.floor(value)
    return round(value) if rounding == "nearest_even" else math.floor(value + Fraction(1, 2))


def finished(node, value: Fraction) -> int:
    """A real number as the integer of a node's format."""
    most = largest_integer(node.bits)
    return max(-most, min(most, exact(value * Fraction(2) ** node.exponent, node.rounding)))


@given(st.integers(-(2**61), 2**61), st.integers(-1, 62), roundings)
@example(2**61, 62, "nearest_even")
@example(3 << 60, 61, "nearest_even")
@example(-1, 62, "floor")
def test_a_shift_rounds_as_it_says(x, shift, rounding):
    found = shift_right(np.array([x]), shift, rounding)
    assert found.tolist() == [exact(Fraction(x) / Fraction(2) ** shift, rounding)]


weights = st.one_of(st.just(0), st.sampled_from([-127, 127]), st.integers(-127, 127))
integers = st.one_of(st.sampled_from([-32767, 32767, 0]), st.integers(-32767, 32767))
exponents = st.integers(-6, 20)
biases = st.one_of(st.just(0), st.integers(-(2**31) + 1, 2**31 - 1))


@settings(deadline=None)
@given(st.data(), st.integers(1, 5), st.integers(1, 4), st.integers(-9, 9), exponents, st.integers(2, 24))
def test_linear(data, rows, cols, x_exponent, exponent, bits):
    draw = data.draw
    W = np.array(draw(st.lists(weights, min_size=rows * cols, max_size=rows * cols)), np.int8)
    node = fixed.Linear(
        "y",
        ("x",),
        weight=W.reshape(rows, cols),
        weight_exponent=np.array(draw(st.lists(exponents, min_size=rows, max_size=rows)), np.int8),
        bias=np.array(draw(st.lists(biases, min_size=rows, max_size=rows)), np.int32),
        exponent=exponent,
        bits=bits,
        rounding=draw(roundings),
    )
    program = between(node, x_exponent, 16, cols)
    x = np.array(draw(st.lists(integers, min_size=3 * cols, max_size=3 * cols))).reshape(3, cols)
    y = trace(program, np.ldexp(x, -x_exponent))[0]["y"]
    for frame, found in zip(x.tolist(), y.tolist(), strict=True):
        for r in range(rows):
            total = sum(int(w) * q for w, q in zip(node.weight[r], frame, strict=True)) + int(node.bias[r])
            scale = Fraction(2) ** (int(node.weight_exponent[r]) + x_exponent)
            assert found[r] == finished(node, total / scale)


@settings(deadline=None)
@given(integers, integers, exponents, exponents, exponents, st.integers(2, 24), roundings)
def test_elementwise(q0, q1, e0, e1, exponent, bits, rounding):
    made = {"exponent": exponent, "bits": bits, "rounding": rounding}
    ends = [fixed.Quantize("x0", ("in",), exponent=e0), fixed.Quantize("x1", ("in",), exponent=e1)]
    body = {
        "sum": fixed.Add("sum", ("x0", "x1"), **made),
        "product": fixed.Product("product", ("x0", "x1"), **made),
        "affine": fixed.Affine(
            "affine",
            ("x0",),
            scale=ints(-77, 3),
            scale_exponent=ints(5, -2),
            bias=ints(9, -4, dtype=np.int32),
            **made,
        ),
        "rescale": fixed.Rescale("rescale", ("x1",), **made),
    }
    program = Program("in", 2, (*ends, *body.values(), fixed.Dequantize("out", ("sum",))), "out")
    x = np.array([[math.ldexp(q0, -e0), math.ldexp(q1, -e1)]], np.float32)
    values = {name: value[0] for name, value in trace(program, x)[0].items()}
    for i in range(2):
        x0, x1 = Fraction(int(values["x0"][i])) / 2**20, Fraction(int(values["x1"][i])) / 2**20
        x0, x1 = x0 * Fraction(2) ** (20 - e0), x1 * Fraction(2) ** (20 - e1)
        affine = body["affine"]
        s = Fraction(2) ** -int(affine.scale_exponent[i])
        bias = int(affine.bias[i]) * s * Fraction(2) ** -e0
        expected = {"sum": x0 + x1, "product": x0 * x1, "affine": int(affine.scale[i]) * s * x0 + bias}
        for name, value in {**expected, "rescale": x1}.items():
            assert values[name][i] == finished(body[name], value), name


@given(st.floats(width=32, allow_nan=False, allow_infinity=False), st.integers(-126, 126), st.integers(2, 25))
@example(1e-45, 126, 16)
@example(3.4e38, 126, 16)
@example(-3.4e38, -126, 2)
@example(0.5, 0, 16)
@example(2.5, 0, 16)
def test_the_ends(x, exponent, bits):
    if bits - 1 - exponent > 128:
        exponent = bits - 129
    ends = fixed.Quantize("q", ("in",), exponent=exponent, bits=bits), fixed.Dequantize("out", ("q",))
    values, _ = trace(Program("in", 1, ends, "out"), np.array([[x]], np.float32))
    q = int(values["q"][0, 0])
    assert q == finished(ends[0], Fraction(float(np.float32(x))))
    assert float(values["out"][0, 0]) == math.ldexp(q, -exponent)


def test_relus_pass_integers_on():
    x = [[3, -4, 0, 7, 0, -7, -1, 9]]
    assert trace(between(fixed.Relu("y", ("x",)), width=8), np.array(x))[0]["y"].tolist() == [
        [3, 0, 0, 7, 0, 0, 0, 9]
    ]
    program = between(fixed.PairRelu("y", ("x",)), width=8)
    assert trace(program, np.array(x))[0]["y"].tolist() == [[3, -4, 0, 7, 0, 0, 0, 0]]
    assert program.formats["y"] == program.formats["x"]
    assert between(fixed.Relu("y", ("x",))).formats["y"] == Format(0, 16, 0, 32767)


@given(st.lists(st.lists(integers, min_size=3, max_size=3), min_size=1, max_size=20))
def test_a_mean_is_exact(frames):
    y = trace(between(fixed.MeanPool("y", ("x",), size=3), width=3), np.array(frames))[0]["y"]
    for t in range(len(frames)):
        for i in range(3):
            mean = Fraction(sum(frame[i] for frame in frames[: t + 1]), t + 1)
            assert y[t, i] == exact(mean, "nearest_up")


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize(("in_bits", "out_bits"), [(16, 16), (8, 8), (11, 16), (2, 4)])
@pytest.mark.parametrize("reach", [4.0, 16.0])
def test_a_table_is_as_near_as_it_says(function, in_bits, out_bits, reach):
    in_exponent = in_bits - 1 - int(math.log2(reach))
    out_exponent = out_bits - 1 if function == "sigmoid" else in_exponent + out_bits - in_bits
    table, max_error = make_table(function, in_bits, in_exponent, out_bits, out_exponent)
    x = np.arange(-largest_integer(in_bits), largest_integer(in_bits) + 1)
    y = interpolate(x, table.astype(np.int64), in_bits)
    error = np.abs(np.ldexp(y.astype(float), -out_exponent) - FUNCTIONS[function](np.ldexp(x, -in_exponent)))
    assert error.max() == max_error
    if function == "sigmoid":
        assert (np.diff(y) >= 0).all()
        assert y.min() >= 0
    if in_bits == out_bits == 16:
        step, bend = reach / 256, {"sigmoid": 0.0963, "silu": 0.5, "gelu": 0.798}[function]  # max |f''|
        assert max_error < step**2 / 8 * bend + 2.0**-out_exponent


def test_the_sigmoid_of_w8a16_in_numbers():
    """Over +-16, all that a sigmoid needs: the worst of 65,535 integers."""
    _, max_error = make_table("sigmoid", 16, 11, 16, 15)
    assert 6.7e-5 < max_error < 6.8e-5


@settings(deadline=None)
@given(st.integers(1, 2**63 - 1))
@example(1)
@example(2**62)
@example(2**63 - 1)
@example(2**30)
@example(2**31 - 1)
@example(2**53 + 1)
def test_an_inverse_root_is_near(w):
    mantissa, j = inverse_root(w)
    assert 2**15 <= mantissa <= 2**16
    assert -15 <= j <= 16
    assert mantissa * 2.0 ** -(31 + j) * math.sqrt(w) == pytest.approx(1, abs=3e-5)


def norm(n: int, eps: float, exponent: int, **changes) -> fixed.Norm:
    values = {
        "scale": np.full(n, 1 << 14, np.int16),
        "scale_exponent": np.full(n, 14, np.int8),
        "bias": np.full(n, 1 << 28, np.int32),  # 1/4
        "eps": round(n * n * eps * 4.0**exponent),
        "centred": True,
        "exponent": 12,
    }
    return fixed.Norm("y", ("x",), **{**values, **changes})


@settings(deadline=None)
@given(st.integers(2, 40), st.data(), st.booleans(), st.sampled_from([1.0, 1e-2, 1e-4, 0.0]))
def test_a_norm_is_near_in_float64(n, data, centred, size):
    q = np.array(data.draw(st.lists(integers, min_size=n, max_size=n)))
    q = np.rint(q * size).astype(int)
    y = trace(between(norm(n, 1e-5, 12, centred=centred), 12, 16, n), np.ldexp(q, -12)[None])[0]["y"][0]
    x = q / 4096
    x = x - x.mean() if centred else x
    expected = x / np.sqrt((x * x).mean() + 1e-5) + 0.25
    np.testing.assert_allclose(y / 4096, np.clip(expected, -8, 8), atol=3e-4, rtol=3e-5)


def test_a_bound_is_reached_and_never_passed():
    """The input of the sign of each weight makes the greatest sum there is."""
    rng = np.random.default_rng(0)
    weight = rng.integers(-127, 128, (4, 9)).astype(np.int8)
    weight[2] = 0
    bias = ints(5, -1000, 7, 0, dtype=np.int32)
    node = fixed.Linear("y", ("x",), weight=weight, weight_exponent=ints(0, 0, 0, 0), bias=bias)
    most = Format.saturated(0, 16).magnitude
    for row, bound in enumerate(node.bounds(Format.saturated(0, 16))):
        sign = 1 if bias[row] >= 0 else -1
        worst = sign * most * np.sign(weight[row].astype(int))
        assert bound == abs(int(weight[row].astype(int) @ worst) + int(bias[row]))


def linear(weight, **changes) -> fixed.Linear:
    weight = np.atleast_2d(weight)
    rows = len(weight)
    values = {"weight_exponent": np.zeros(rows, np.int8), "bias": np.zeros(rows, np.int32)}
    if weight.dtype == np.int64:
        weight = weight.astype(np.int8)
    return fixed.Linear("y", ("x",), weight=weight, **{**values, **changes})


def test_accumulators_of_32_bits_are_told_from_those_of_64():
    x = Format.saturated(0, 16)
    assert linear(np.full(516, 127)).accumulator_bits((x,)) == 32  # 516 * 127 * 32767 = 2147286444
    assert linear(np.full(517, 127)).accumulator_bits((x,)) == 64
    assert linear([1], exponent=15).accumulator_bits((x,)) == 32  # shifted to the left before it saturates
    assert linear([1], exponent=17).accumulator_bits((x,)) == 64
    assert linear([1], weight_exponent=ints(31)).accumulator_bits((x,)) == 32  # with the half that rounds
    assert linear([1], weight_exponent=ints(32)).accumulator_bits((x,)) == 64


def diagonal(**changes) -> fixed.Diagonal:
    values = {"decay": ints([1 << 14, 0], dtype=np.int16), "decay_exponent": ints(15)}
    return fixed.Diagonal("y", ("x",), **{**values, "state_exponent": 0, "state_bits": 24, **changes})


ZERO, ONE = np.zeros(1, np.int32), np.ones(1, np.int8)
REFUSED = {
    "rows overflow": (
        lambda: between(linear([[0], [127]], exponent=42)),
        r"node 'y' \(fixed_linear\): the sum of row 1 could reach 18302070333726785536, expected less",
    ),
    "product": (
        lambda: between(fixed.Product("y", ("x", "x"), bits=32), 0, 33),
        r"node 'x' \(fixed_quantize\): bits is 33, expected 2 to 32",
    ),
    "shift": (
        lambda: between(linear([1], exponent=-63)),
        "row 0 is shifted by 63, expected -62 to 62",
    ),
    "empty shift": (lambda: between(linear([0], exponent=64)), "row 0 is shifted by -64"),
    "least weight": (lambda: between(linear([-128])), "weight has -128, expected at least -127"),
    "float weight": (
        lambda: between(linear(np.ones(1, np.float32))),
        "weight is float32, expected int8 or int16",
    ),
    "wide weight": (
        lambda: between(linear(np.ones(1, np.int32))),
        "weight is int32, expected int8 or int16",
    ),
    "rows of exponents": (
        lambda: between(linear([1], weight_exponent=ints(0, 0))),
        r"weight_exponent has shape \(2,\), expected \(1,\)",
    ),
    "exponent": (lambda: between(linear([1], exponent=127)), "exponent is 127, expected -126 to 126"),
    "rounding": (
        lambda: between(linear([1], rounding="up")),
        "rounding is 'up', expected one of nearest_even",
    ),
    "quantize rounding": (
        lambda: fixed.Quantize("x", ("in",), rounding="floor").format((None,)),
        "rounding is 'floor', expected 'nearest_even'",
    ),
    "floats": (
        lambda: Program("in", 1, (fixed.Relu("y", ("in",)),), "y"),
        r"node 'y' \(fixed_relu\): it reads floats, expected integers",
    ),
    "integers": (
        lambda: between(nodes.Relu("y", ("x",))),
        r"node 'y' \(relu\): it reads integers, expected floats",
    ),
    "no way out": (
        lambda: Program("in", 1, (fixed.Quantize("y", ("in",)),), "y"),
        "output 'y' holds integers, expected floats",
    ),
    "twice in": (lambda: between(fixed.Quantize("y", ("x",))), "it reads integers, expected floats"),
    "wide output": (
        lambda: between(linear([1], bits=26)),
        r"node 'out' \(fixed_dequantize\): it reads 26 bits, expected at most 25",
    ),
    "great output": (
        lambda: between(fixed.Relu("y", ("x",)), -126, 16),
        "it reads 16 bits of exponent -126, which float32 cannot hold",
    ),
    "no decay": (
        lambda: between(diagonal(decay=ints([0, 0], dtype=np.int16)), width=2),
        r"node 'y' \(fixed_diagonal\): state 0 does not decay",
    ),
    "growth": (
        lambda: between(diagonal(decay=ints([0, 9], dtype=np.int16)), width=2),
        "state 0 does not decay",
    ),
    "decay exponent": (
        lambda: between(diagonal(decay_exponent=ints(31)), width=2),
        r"decay_exponent\[0\] is 31, expected 1 to 30",
    ),
    "state bits": (lambda: between(diagonal(state_bits=33), width=2), "state_bits is 33, expected 2 to 32"),
    "odd pairs": (lambda: between(fixed.PairRelu("y", ("x",)), width=3), "modulo 2 is 1, expected 0"),
    "entries": (
        lambda: between(
            fixed.Table("y", ("x",), table=ints(0, 1, 2, 3), function="f", max_error=0.0, exponent=0, bits=8)
        ),
        "table has 4 entries, expected a power of two and one more",
    ),
    "great entry": (
        lambda: between(
            fixed.Table(
                "y",
                ("x",),
                table=ints(0, 1, 300, dtype=np.int16),
                function="f",
                max_error=0.0,
                exponent=0,
                bits=8,
            )
        ),
        "table has an entry beyond 8 bits",
    ),
    "wide index": (
        lambda: between(
            fixed.Table(
                "y",
                ("x",),
                table=ints(0, 1, 2, dtype=np.int16),
                function="f",
                max_error=0.0,
                exponent=0,
                bits=8,
            ),
            x_bits=17,
        ),
        "it reads 17 bits, expected 1 to 16",
    ),
    "eps": (lambda: between(norm(2, 0, 0), width=2), "eps is 0, expected at least 1"),
    "great eps": (lambda: between(norm(2, 1, 31), width=2), "the sum of row 0 could reach"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_by_name(case):
    make, message = REFUSED[case]
    with pytest.raises(ValueError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)
