"""The native engine on fixed-point programs: the integers of the numpy executor, to the bit, on every ISA."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fixed_cases import between, ranges_of, same_in_native
from hypothesis import given, settings
from hypothesis import strategies as st
from isas import Library

import lrnn
from lrnn.engine import native
from lrnn.ops.libraries import core_library
from lrnn.program import Program, compile_fixed
from lrnn.program.fixed import nodes as fixed
from lrnn.quant import SCHEMES, Scheme

pytestmark = pytest.mark.skipif(core_library()[0] is None, reason="the native engine is not built here")

LIBRARY = Library(core_library()[0])
INTEGER_SCHEMES = [name for name, scheme in SCHEMES.items() if scheme.float_weights is None]


@pytest.fixture(params=LIBRARY.isas or ["none"])
def isa(request):
    """The test once for each instruction set."""
    with LIBRARY.running(request.param):
        yield request.param


def check(program: Program, x: np.ndarray) -> None:
    stream = program.stream("numpy")
    y = stream.run(x)
    same_in_native(program, x, y, stream.state)


def network(seed=0, density=0.3, **options) -> lrnn.SequenceModel:
    torch.manual_seed(seed)
    config = lrnn.SequenceModelConfig(
        d_in=7, d_out=5, d_model=24, d_state=32, n_layers=2, blocks=2, **options
    )
    made = lrnn.SequenceModel(config).eval()
    with torch.no_grad():
        for p in made.parameters():
            if p.ndim >= 2:
                p.mul_((torch.rand(p.shape[:2]) < density).reshape(*p.shape[:2], *[1] * (p.ndim - 2)))
    return made


def frames(seed, n, width=7, scale=1.0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal((n, width)) * scale).astype(np.float32)


@pytest.mark.parametrize("scheme", INTEGER_SCHEMES)
@pytest.mark.parametrize("norm", ["batch", "layer"])
@pytest.mark.parametrize("relu", ["parts", "pair", "none"])
def test_models(isa, relu, norm, scheme):
    """Trained ranges, then frames far beyond them: everything saturates somewhere."""
    program = lrnn.compile(network(relu=relu, norm=norm))
    x = frames(0, 40)
    made = compile_fixed(program, ranges_of(program, x), scheme)
    check(made, np.concatenate((x, frames(1, 20, scale=30), x[:20], frames(2, 5, scale=1e30))))


@pytest.mark.parametrize("rounding", ["nearest_even", "nearest_up", "floor"])
@pytest.mark.parametrize("scale", ["row", "tensor"])
def test_roundings_and_scales(isa, rounding, scale):
    program = lrnn.compile(network(head="classification"))
    x = frames(0, 40)
    scheme = Scheme("custom", rounding=rounding, weight_scale=scale, activation_bits=13, message_bits=9)
    check(compile_fixed(program, ranges_of(program, x), scheme), x)


@pytest.mark.parametrize(("rows", "cols"), [(1, 1), (1, 300), (300, 1), (17, 33), (192, 257), (65, 1000)])
@pytest.mark.parametrize("density", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("bits", [8, 16])
def test_matrices_at_their_extremes(isa, rows, cols, density, bits):
    rng = np.random.default_rng(rows + cols)
    most = 2 ** (bits - 1) - 1
    W = rng.choice([-most, -1, 1, most], (rows, cols)) * (rng.random((rows, cols)) < density)
    node = fixed.Linear(
        "y",
        ("x",),
        weight=W.astype(f"int{bits}"),
        weight_exponent=rng.integers(0, 20, rows).astype(np.int8),
        bias=rng.integers(-(2**31) + 1, 2**31, rows).astype(np.int32),
        exponent=3,
        bits=24,
        rounding="nearest_even",
    )
    x = rng.choice([-32767, -1, 0, 1, 32767], (4, cols))
    check(between(node, 0, 16, cols), x.astype(np.float32))


@pytest.mark.parametrize("n", [1, 3, 8, 15, 16, 17, 33, 70])
@pytest.mark.parametrize("rounding", ["nearest_even", "nearest_up", "floor"])
def test_norms_of_any_width(isa, n, rounding):
    """Centred and not, of 16 bits and of 24, all equal, all zero, at the limits."""
    rng = np.random.default_rng(n)
    for bits, centred in ((16, False), (16, True), (24, False)):
        node = fixed.Norm(
            "y",
            ("x",),
            scale=rng.choice([-32767, -1, 0, 500, 32767], n).astype(np.int16),
            scale_exponent=rng.integers(0, 20, n).astype(np.int8),
            bias=rng.integers(-(2**30), 2**30, n).astype(np.int32),
            eps=int(rng.integers(1, 10**6)),
            centred=centred,
            exponent=12,
            bits=20,
            rounding=rounding,
        )
        most = 2 ** (bits - 1) - 1
        x = rng.integers(-most, most + 1, (6, n))
        x[1], x[2], x[3], x[4] = most, 0, rng.choice([-most, most], n), rng.integers(-2, 3, n)
        check(between(node, 0, bits, n), x.astype(np.float32))


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32 - 1), st.integers(2, 16), st.integers(2, 24), st.sampled_from([1, 2, 64, 256]))
def test_any_table(seed, x_bits, bits, segments):
    """Also one that leaps from end to end, which no function's does: its slopes need more than a word."""
    segments = max(2, min(segments, 1 << x_bits))
    rng = np.random.default_rng(seed)
    most = 2 ** (bits - 1) - 1
    table = rng.choice([-most, 0, most], segments + 1).astype(np.int32)
    node = fixed.Table("y", ("x",), table=table, function="sigmoid", max_error=0.0, exponent=0, bits=bits)
    top = 2 ** (x_bits - 1) - 1
    x = np.append(rng.integers(-top, top + 1, 30), [-top, top])
    check(between(node, 0, x_bits), x[:, None].astype(np.float32))


def test_a_hundred_thousand_steps():
    """Slow states, noise, silence, noise again: nothing drifts apart."""
    torch.manual_seed(0)
    config = lrnn.SequenceModelConfig(d_in=3, d_out=3, d_model=8, d_state=16, n_layers=1, blocks=1)
    program = lrnn.compile(lrnn.SequenceModel(config).eval())
    made = compile_fixed(program, ranges_of(program, frames(0, 200, 3)), "w8a16")
    x = np.concatenate((frames(1, 30_000, 3), np.zeros((40_000, 3), np.float32), frames(2, 30_000, 3)))
    expected, found = made.stream("torch"), made.stream("native")
    assert np.array_equal(expected.run(x), found.run(x))
    for name, value in expected.state.items():
        assert np.array_equal(found.state[name], value)


def test_denormal_input():
    node = fixed.Rescale("y", ("x",), exponent=120, bits=16, rounding="nearest_even")
    x = np.array([1e-45, -1e-45, 1.1e-38, 3e-39, 0.0], np.float32)[:, None]
    check(between(node, 126, 16), x)


def test_chunks_of_any_length_go_frame_by_frame():
    program = lrnn.compile(network())
    x = frames(0, 130)
    made = compile_fixed(program, ranges_of(program, x), "w8a16")
    whole = made.stream().run(x)
    stream = made.stream()
    assert np.array_equal(np.concatenate([stream.run(part) for part in np.split(x, [1, 64, 100])]), whole)
    with pytest.raises(ValueError, match=r"^node 'x' .* format is 3 \(tiles\)"):
        native.NativeEngine(between(fixed.Relu("y", ("x",))), "tiles")


def test_bad_frames_are_refused_and_the_state_kept():
    program = lrnn.compile(network())
    x = frames(0, 20)
    stream = compile_fixed(program, ranges_of(program, x), "w8a16").stream()
    stream.run(x)
    before = stream.state
    broken = x.copy()
    broken[7, 3] = np.nan
    with pytest.raises(ValueError, match=r"^frames has NaN"):
        stream.run(broken)
    assert all(np.array_equal(stream.state[name], value) for name, value in before.items())
    name = next(iter(before))
    with pytest.raises(ValueError, match=r"^state\['.*'\]\[0\] is"):
        stream.state = {**before, name: np.full_like(before[name], 2**30)}
    with pytest.raises(TypeError, match="holds float32, expected int32"):
        stream.state = {**before, name: before[name].astype(np.float32)}


def test_what_is_reported():
    program = lrnn.compile(network())
    made = compile_fixed(program, ranges_of(program, frames(0, 20)), "w8a16")
    stream = made.stream()
    kernels, held = stream.engine.kernels(), stream.engine.bytes()
    matrices = [n for n in made.nodes if isinstance(n, fixed.Linear)]
    assert set(kernels) == {n.name for n in matrices}
    assert all(held[n.name] >= np.count_nonzero(n.weight) for n in matrices)
    seconds = stream.profile(10)
    assert set(seconds) == {n.name for n in made.nodes}
    assert all(s > 0 for s in seconds.values())


def test_ints_and_floats_do_not_mix():
    core = native.engine_core()
    handle = core.lrnn_engine_new(4, 0)
    try:
        assert core.lrnn_engine_fixed_relu(handle, 0) < 0
        assert core.lrnn_engine_error(handle).decode() == "x is 0, a value of floats, expected integers"
    finally:
        core.lrnn_engine_free(handle)
