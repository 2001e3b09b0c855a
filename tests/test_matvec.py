"""Packed matrices: integers exact, floats to rounding, on every instruction set, in any format and shape."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from isas import Library

from lrnn.engine.packed import FORMATS, PackedMatrix
from lrnn.ops.libraries import core_library

pytestmark = pytest.mark.skipif(core_library()[0] is None, reason=f"no core: {core_library()[1]}")

SHAPES = [
    (1, 1),
    (5, 3),
    (17, 65),
    (33, 200),
    (64, 64),
    (100, 257),
    (192, 192),
    (70, 513),
    (0, 5),
    (5, 0),
    (129, 1030),
]


LIBRARY = Library(core_library()[0])


@pytest.fixture(params=LIBRARY.isas)
def isa(request):
    with LIBRARY.running(request.param):
        yield request.param


def bernoulli(rng, shape, density) -> np.ndarray:
    return (rng.standard_normal(shape) * (rng.random(shape) < density)).astype(np.float32)


def whole_numbers(weight: np.ndarray) -> np.ndarray:
    return np.clip(np.round(weight * 60), -128, 127).astype(np.int8)


@pytest.mark.parametrize("density", [0, 0.05, 0.3, 1])
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-5), ("bfloat16", 2e-2)])
def test_floats(isa, precision, tolerance, format, density):
    rng = np.random.default_rng(0)
    for shape in SHAPES:
        weight, x = bernoulli(rng, shape, density), rng.standard_normal(shape[1]).astype(np.float32)
        expected = weight.astype(np.float64) @ x
        error = np.abs(PackedMatrix(weight, precision, format)(x) - expected).max(initial=0)
        assert error <= tolerance * max(1, np.abs(expected).max(initial=0)), shape


@pytest.mark.parametrize("density", [0, 0.05, 0.3, 1])
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(("precision", "most"), [("w8a16", 32768), ("w8a8", 128)])
def test_integers_are_exact(isa, precision, most, format, density):
    rng = np.random.default_rng(0)
    for rows, cols in SHAPES:
        weight = whole_numbers(bernoulli(rng, (rows, cols), density))
        packed = PackedMatrix(weight, precision, format)
        for x in (rng.integers(-most, most, cols), np.full(cols, -most), np.full(cols, most - 1)):
            assert (packed(x) == weight.astype(np.int64) @ x).all(), (rows, cols)


@pytest.mark.parametrize("weight", [-128, 127])
@pytest.mark.parametrize("format", FORMATS)
def test_sums_beyond_32_bits(isa, format, weight):
    """8,192 extreme products need 35 bits: partial sums must not wrap."""
    matrix = np.full((3, 8192), weight, np.int8)
    for x in (-32768, 32767):
        assert (PackedMatrix(matrix, "w8a16", format)(np.full(8192, x)) == 8192 * weight * x).all()


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 150),
    st.integers(1, 400),
    st.floats(0, 1),
    st.integers(0, 2**31),
    st.sampled_from(LIBRARY.isas or ["none"]),
)
def test_any_pattern_is_exact_on_every_isa(rows, cols, density, seed, name):
    """Rows of unlike fullness: lanes run ahead and fall behind, windows stand anywhere."""
    rng = np.random.default_rng(seed)
    fullness = rng.random((rows, 1)) ** 3 * 2 * density
    weight = rng.integers(-128, 128, (rows, cols)) * (rng.random((rows, cols)) < fullness)
    x = rng.integers(-32768, 32768, cols)
    with LIBRARY.running(name):
        found = PackedMatrix(weight.astype(np.int8), "w8a16", "sparse")(x)
    assert (found == weight.astype(np.int64) @ x).all()


BYTES = {  # of a weight: float32, w8a16
    "avx512vnni": (8.0, 3.0),
    "avx512": (8.0, 3.5),
    "avx2": (11.5, 3.5),
    "neon": (8.1, 3.5),
    "scalar": (8.1, 5.1),
}


def test_room_that_weights_take(isa):
    """At 90 % zeros, indices and padding included; windows are as wide as the ISA's registers have it."""
    weight = bernoulli(np.random.default_rng(0), (1024, 1024), 0.1)
    small = whole_numbers(weight)
    floats, integers = BYTES[isa]
    assert PackedMatrix(weight, format="sparse").nbytes <= floats * np.count_nonzero(weight)
    assert PackedMatrix(small, "w8a16", "sparse").nbytes <= integers * np.count_nonzero(small)


def test_rows_of_unlike_fullness_are_sorted_and_put_back(isa):
    """As in a pruned S5's B, where two rows in three are empty."""
    rng = np.random.default_rng(0)
    weight = bernoulli(rng, (256, 192), 0.08)
    weight[rng.random(256) < 0.6] = 0
    x = rng.standard_normal(192).astype(np.float32)
    packed = PackedMatrix(weight, format="sparse")
    for _ in range(2):  # nothing of the first product is left for the second
        assert np.abs(packed(x) - weight.astype(np.float64) @ x).max() < 1e-5
    assert packed.nbytes < 20 * np.count_nonzero(weight)


def test_the_choice_follows_density():
    rng = np.random.default_rng(0)
    for precision in ("float32", "w8a16"):
        full, thin = (bernoulli(rng, (256, 256), density) for density in (1, 0.1))
        if precision == "w8a16":
            full, thin = whole_numbers(full), whole_numbers(thin)
        assert PackedMatrix(full, precision).kernel == "dense"
        sparse = PackedMatrix(thin, precision)
        assert sparse.kernel != "dense"
        assert sparse.costs["sparse"] < sparse.costs["dense"]


def test_bad_input():
    with pytest.raises(TypeError, match="weight holds float64, expected float32"):
        PackedMatrix(np.zeros((2, 2)))
    with pytest.raises(ValueError, match="NaN or infinite"):
        PackedMatrix(np.full((2, 2), np.nan, np.float32))
    with pytest.raises(ValueError, match="precision is 'int4'"):
        PackedMatrix(np.zeros((2, 2), np.float32), "int4")
    with pytest.raises(ValueError, match=r"rows is 65537, expected 0 to 65536"):
        PackedMatrix(np.zeros((65537, 1), np.float32))
    packed = PackedMatrix(np.ones((2, 3), np.int8), "w8a8")
    with pytest.raises(ValueError, match="x holds 0 to 128, expected -128 to 127"):
        packed(np.array([0, 0, 128]))
    with pytest.raises(ValueError, match=r"x has shape \(2,\)"):
        packed(np.zeros(2, np.int64))
    with pytest.raises(TypeError, match="x holds float64"):
        packed(np.zeros(3))
