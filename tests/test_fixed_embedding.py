"""Rows of tokens in integers: exact on every engine; what is no token is refused before anything runs."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from fixed_cases import HAS_CORE, ints, trace
from hypothesis import given, settings
from hypothesis import strategies as st

from lrnn.program import Program
from lrnn.program.fixed import nodes as fixed
from lrnn.quant import largest_integer

ENGINES = ("numpy", "torch", "native") if HAS_CORE else ("numpy", "torch")


def table(weight: np.ndarray, **changes) -> Program:
    values = {"weight_exponent": np.zeros(len(weight), np.int8), "exponent": 0, **changes}
    node = fixed.Embedding("y", ("token",), weight=weight, **values)
    return Program("token", 1, (node, fixed.Dequantize("out", ("y",))), "out")


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32 - 1), st.sampled_from([8, 16]), st.integers(2, 24), st.integers(-6, 12))
def test_a_row_is_shifted_by_its_exponent(seed, bits, out_bits, exponent):
    rng = np.random.default_rng(seed)
    tokens, n = rng.integers(1, 40, 2)
    most = largest_integer(bits)
    weight = rng.choice([-most, -1, 0, 1, 77, most], (tokens, n)).astype(f"int{bits}")
    exponents = rng.integers(-5, 20, tokens).astype(np.int8)
    program = table(weight, weight_exponent=exponents, exponent=exponent, bits=out_bits)
    x = rng.integers(0, tokens, (20, 1))
    y = trace(program, x)[0]["y"]
    limit = largest_integer(out_bits)
    for (token,), row in zip(x, y, strict=True):
        scale = Fraction(2) ** (exponent - int(exponents[token]))
        expected = [max(-limit, min(limit, round(int(w) * scale))) for w in weight[token]]
        assert row.tolist() == expected


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("token", [-1, 3, 0.5, 2.0000002, 1e9, 3e38])
def test_what_is_no_token_is_refused(engine, token):
    weight = np.arange(6, dtype=np.int8).reshape(3, 2)
    stream = table(weight).stream(engine)
    stream.step([2.0])
    message = r"^node 'y' \(fixed_embedding\): \w+ has .*, expected a token's number, 0 to 2"
    with pytest.raises(ValueError, match=message):
        stream.step([token])
    with pytest.raises(ValueError, match=message):
        stream.run([[0.0], [token]])
    assert stream.step([1.0]).tolist() == [2.0, 3.0]


@pytest.mark.parametrize("engine", ENGINES)
def test_nothing_runs_where_a_later_frame_is_none(engine):
    """A mean of 0 and 2 afterwards, not of what stood before the wrong frame."""
    source = fixed.Embedding(
        "e", ("token",), weight=np.array([[0], [7], [2]], np.int8), weight_exponent=ints(0, 0, 0)
    )
    pool = fixed.MeanPool("y", ("e",), size=1)
    stream = Program("token", 1, (source, pool, fixed.Dequantize("out", ("y",))), "out").stream(engine)
    stream.step([0.0])
    with pytest.raises(ValueError, match="has 3, expected a token's number"):
        stream.run([[1.0], [3.0]])
    assert stream.step([2.0]).tolist() == [1.0]


REFUSED = {
    "integers": (
        lambda: Program(
            "in",
            1,
            (
                fixed.Quantize("x", ("in",)),
                fixed.Embedding("y", ("x",), weight=np.ones((2, 2), np.int8), weight_exponent=ints(0, 0)),
                fixed.Dequantize("out", ("y",)),
            ),
            "out",
        ),
        "it reads 'x', expected 'in', the program's input|it reads integers, expected floats",
    ),
    "least": (lambda: table(np.full((2, 2), -128, np.int8)), "weight has -128, expected at least -127"),
    "shift": (lambda: table(np.ones((2, 2), np.int8), exponent=-70), "row 0 is shifted by 70"),
    "rows": (
        lambda: table(np.ones((2, 2), np.int8), weight_exponent=ints(0)),
        r"weight_exponent has shape \(1,\), expected \(2,\)",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_by_name(case):
    make, message = REFUSED[case]
    with pytest.raises(ValueError, match=rf"^node 'y' \(fixed_embedding\): ({message})"):
        make()
