"""Every engine, with every instruction set this machine has, computes what the numpy executor computes."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from isas import Library

import lrnn
from lrnn.engine import core as engine_core
from lrnn.engine import native, native_engine, open_stream
from lrnn.ops.libraries import core_library
from lrnn.program import Program, nodes

needs_core = pytest.mark.skipif(core_library()[0] is None, reason=f"no native engine: {core_library()[1]}")
ENGINES = [pytest.param("native", marks=needs_core), "numpy", "torch"]


LIBRARY = Library(core_library()[0])


@pytest.fixture(params=LIBRARY.isas or [pytest.param("none", marks=needs_core)])
def isa(request):
    """The test once for each instruction set."""
    with LIBRARY.running(request.param):
        yield request.param


def f32(rng, *shape, scale=1.0) -> np.ndarray:
    return (scale * rng.standard_normal(shape)).astype(np.float32)


def sparse(rng, rows, cols, density) -> np.ndarray:
    return f32(rng, rows, cols) * (rng.random((rows, cols)) < density)


def one_node(node, width) -> Program:
    return Program("x", width, (node,), node.name)


def model(seed=0, density=1.0, **changes) -> lrnn.SequenceModel:
    """A model with norms and biases that are not trivial and weights of a density."""
    config = lrnn.SequenceModelConfig(d_in=7, d_out=5, d_model=12, d_state=16, blocks=2, n_layers=2)
    torch.manual_seed(seed)
    made = lrnn.SequenceModel(replace(config, **changes)).eval()
    with torch.no_grad():
        for name, p in made.named_parameters():
            if name.endswith("bias") or ".norm." in name:
                p.add_(torch.randn_like(p) * 0.3)
            elif p.ndim >= 2:
                p.mul_((torch.rand(p.shape[:2]) < density).reshape(*p.shape[:2], *[1] * (p.ndim - 2)))
    return made


def check(program: Program, frames: np.ndarray, tolerance=1e-5, format="auto") -> None:
    """The native engine against the numpy executor, relative to the largest output."""
    expected = program.stream("numpy").run(frames)
    found = native.NativeStream(program, native.NativeEngine(program, format)).run(frames)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max(initial=0) <= tolerance * max(1, np.abs(expected).max(initial=0))


# --- what it computes


@pytest.mark.parametrize("format", native.FORMATS)
@pytest.mark.parametrize(
    ("rows", "cols", "density"),
    [
        (1, 1, 1.0),
        (1, 300, 0.1),
        (300, 1, 0.5),
        (15, 31, 0.3),
        (16, 32, 1.0),
        (17, 33, 0.0),
        (64, 64, 0.9),
        (65, 63, 0.02),
        (192, 257, 0.1),
        (257, 192, 0.1),
        (129, 1000, 0.01),
    ],
)
def test_linear(isa, format, rows, cols, density):
    rng = np.random.default_rng(rows * cols)
    node = nodes.Linear("y", ("x",), sparse(rng, rows, cols, density), f32(rng, rows))
    check(one_node(node, cols), f32(rng, 3, cols), 3e-6, format)


@needs_core
@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 300),
    st.integers(1, 300),
    st.floats(0, 1),
    st.booleans(),
    st.booleans(),
    st.sampled_from(LIBRARY.isas or [""]),
)
def test_linear_of_any_size_and_pattern(rows, cols, density, bias, lopsided, isa):
    rng = np.random.default_rng(rows * 1000 + cols)
    weight = sparse(rng, rows, cols, density)
    if lopsided:  # some rows full, most empty
        weight = np.where(
            rng.random((rows, 1)) < 0.1, f32(rng, rows, cols), weight * (rng.random((rows, 1)) < 0.3)
        )
    node = nodes.Linear("y", ("x",), weight.astype(np.float32), f32(rng, rows) if bias else None)
    with LIBRARY.running(isa):
        for format in native.FORMATS:
            check(one_node(node, cols), f32(rng, 2, cols), 3e-6, format)


NODES = {
    "affine": lambda rng, n: nodes.Affine("y", ("x",), f32(rng, n), f32(rng, n)),
    "diagonal": lambda rng, n: nodes.Diagonal("y", ("x",), f32(rng, n // 2, 2, scale=0.5)),
    "relu": lambda rng, n: nodes.Relu("y", ("x",)),
    "pair_relu": lambda rng, n: nodes.PairRelu("y", ("x",)),
    "sigmoid": lambda rng, n: nodes.Sigmoid("y", ("x",)),
    "silu": lambda rng, n: nodes.Silu("y", ("x",)),
    "gelu": lambda rng, n: nodes.Gelu("y", ("x",)),
    "layer_norm": lambda rng, n: nodes.LayerNorm("y", ("x",), f32(rng, n), f32(rng, n), 1e-5),
    "rms_norm": lambda rng, n: nodes.RmsNorm("y", ("x",), f32(rng, n), 1e-5),
    "add": lambda rng, n: nodes.Add("y", ("x", "x")),
    "product": lambda rng, n: nodes.Product("y", ("x", "x")),
    "round": lambda rng, n: nodes.Round("y", ("x",), 3),
    "mean_pool": lambda rng, n: nodes.MeanPool("y", ("x",), n),
    "log_softmax": lambda rng, n: nodes.LogSoftmax("y", ("x",)),
}


@pytest.mark.parametrize("n", [2, 16, 30, 34, 258])
@pytest.mark.parametrize("kind", NODES)
def test_node(isa, kind, n):
    rng = np.random.default_rng(n)
    frames = f32(rng, 5, n, scale=4)
    frames[0, :2] = 0, 1  # the edge of the pair rule
    check(one_node(NODES[kind](rng, n), n), frames, 2e-6)


@pytest.mark.parametrize("n", [2, 16, 30, 258])
@pytest.mark.parametrize("kind", NODES)
def test_node_in_tiles(isa, kind, n):
    """150 frames: two tiles and a part of one; the state stands where the last frame left it."""
    rng = np.random.default_rng(n)
    frames = f32(rng, 150, n, scale=4)
    frames[77, :2] = 0, 1
    program = one_node(NODES[kind](rng, n), n)
    streams = program.stream("numpy"), native.NativeStream(program, native.NativeEngine(program, "tiles"))
    for part in (frames[:149], frames[149:]):
        expected, found = (stream.run(part) for stream in streams)
        scale = max(1, np.abs(expected).max())
        assert np.abs(found - expected).max() <= 3e-6 * scale
    for name, value in streams[0].state.items():
        assert np.abs(streams[1].state[name] - value).max() <= 3e-6 * max(1, np.abs(value).max())


def test_every_node_is_tested():
    in_test_engine_hgrn = {"gated", "embedding"}
    assert {*NODES, "linear"} == set(nodes.NODES) - in_test_engine_hgrn


@pytest.mark.parametrize("kind", ["sigmoid", "silu", "gelu", "log_softmax"])
def test_tables_over_their_whole_range(isa, kind):
    x = np.concatenate([np.linspace(-20, 20, 4001), [-1e4, -150, -88, 88, 150, 1e4]]).astype(np.float32)
    program = one_node(NODES[kind](None, len(x)), len(x))
    expected = program.stream("numpy").step(x)
    found = native.NativeStream(program).step(x)
    assert np.all(np.abs(found - expected) <= 1e-6 * np.maximum(1, np.abs(expected)))


@pytest.mark.parametrize("density", [1.0, 0.1])
@pytest.mark.parametrize("head", ["regression", "classification"])
@pytest.mark.parametrize("prenorm", [True, False], ids=["prenorm", "postnorm"])
@pytest.mark.parametrize("norm", ["batch", "layer"])
@pytest.mark.parametrize("glu", ["half1", "half2", "full", "none"])
@pytest.mark.parametrize("relu", ["none", "parts", "pair"])
@needs_core
def test_every_model(relu, glu, norm, prenorm, head, density):
    program = lrnn.compile(model(density=density, relu=relu, glu=glu, norm=norm, prenorm=prenorm, head=head))
    frames = f32(np.random.default_rng(1), 70, 7)
    check(program, frames[:12])
    check(program, frames, format="tiles")


@settings(max_examples=25, deadline=None)
@given(st.data())
@needs_core
def test_random_graphs(data):
    """Fusion and the sharing of memory between values change no result: any value may be read again."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    widths = {"x": data.draw(st.sampled_from([2, 18, 40]))}
    made = []
    for i in range(data.draw(st.integers(1, 14))):
        kind = data.draw(
            st.sampled_from(
                [
                    "linear",
                    "linear",
                    "add",
                    "add",
                    "product",
                    "product",
                    "sigmoid",
                    "silu",
                    "relu",
                    "diagonal",
                    "affine",
                ]
            )
        )
        x = data.draw(st.sampled_from(list(widths)))
        n = widths[x]
        if kind in ("add", "product"):
            other = data.draw(st.sampled_from([name for name, width in widths.items() if width == n]))
            node = nodes.NODES[kind](f"v{i}", (x, other))
        elif kind == "linear":
            n = data.draw(st.sampled_from([2, 18, 40]))
            weight = sparse(rng, n, widths[x], 0.5) / np.float32(np.sqrt(widths[x]))
            node = nodes.Linear(f"v{i}", (x,), weight, f32(rng, n) if rng.random() < 0.5 else None)
        else:
            node = replace(NODES[kind](rng, n), name=f"v{i}", inputs=(x,))
        widths[f"v{i}"] = n
        made.append(node)
    output = data.draw(st.sampled_from(list(widths)))
    program = Program("x", widths["x"], tuple(made), output)
    check(program, f32(rng, 3, widths["x"], scale=0.5))
    check(program, f32(rng, 66, widths["x"], scale=0.5), format="tiles")


@needs_core
def test_a_product_is_not_written_over_its_own_input():
    rng = np.random.default_rng(0)
    layers = (
        nodes.Relu("r", ("x",)),
        nodes.Linear("l", ("r",), f32(rng, 40, 40)),
        nodes.Add("y", ("l", "r")),
    )
    check(Program("x", 40, layers, "y"), f32(rng, 3, 40))


# --- streams


@pytest.mark.parametrize("engine", ENGINES)
@settings(max_examples=15, deadline=None)
@given(cuts=st.lists(st.integers(0, 20), max_size=6), single=st.booleans())
def test_any_cutting_of_time(engine, cuts, single):
    program = lrnn.compile(model(density=0.3, head="classification"))
    frames = f32(np.random.default_rng(0), 20, 7)
    whole = program.stream(engine).run(frames)
    stream = program.stream(engine)
    edges = [0, *sorted(cuts), 20]
    parts = [stream.run(frames[a:b]) for a, b in pairwise(edges)]
    if single:
        stream.reset()
        parts = [stream.step(frame)[None] for frame in frames]
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-5, rtol=1e-5)


@needs_core
@settings(max_examples=15, deadline=None)
@given(cuts=st.lists(st.integers(0, 200), max_size=4))
def test_chunks_go_through_tiles(cuts):
    """Whichever frames go through tiles and whichever one by one: the same outputs, the same state."""
    program = lrnn.compile(model(density=0.3))
    frames = f32(np.random.default_rng(0), 200, 7)
    one_by_one = native.NativeStream(program, native.NativeEngine.of(program))
    expected, stream = one_by_one.run(frames), program.stream()
    found = [stream.run(frames[a:b]) for a, b in pairwise([0, *sorted(cuts), 200])]
    np.testing.assert_allclose(np.concatenate(found), expected, atol=1e-5, rtol=1e-5)
    for name, value in one_by_one.state.items():
        np.testing.assert_allclose(stream.state[name], value, atol=1e-5, rtol=1e-5)


@needs_core
@pytest.mark.parametrize("at", [3, 70, 129])
def test_a_refused_chunk_leaves_the_state(at):
    """A number that is not finite, in a tile or in the frames after the last one."""
    stream = lrnn.compile(model()).stream()
    frames = f32(np.random.default_rng(0), 130, 7)
    stream.run(frames)
    before = stream.state
    frames[at, 2] = np.nan
    with pytest.raises(ValueError, match=r"^frames has NaN or infinite"):
        stream.run(frames)
    assert all(np.array_equal(stream.state[name], value) for name, value in before.items())


@pytest.mark.parametrize("engine", ENGINES)
def test_reset_and_state(engine):
    program = lrnn.compile(model())
    frames = f32(np.random.default_rng(0), 12, 7)
    stream = program.stream(engine)
    first = stream.run(frames[:6])
    kept = stream.state
    rest = stream.run(frames[6:])
    assert {name: len(value) for name, value in kept.items()} == program.state_widths
    stream.state = kept
    np.testing.assert_array_equal(stream.run(frames[6:]), rest)
    stream.reset()
    assert all(np.all(value == 0) for value in stream.state.values())
    np.testing.assert_array_equal(stream.run(frames[:6]), first)


@needs_core
def test_state_moves_between_engines():
    program = lrnn.compile(model(head="classification"))
    frames = f32(np.random.default_rng(0), 12, 7)
    expected = program.stream("numpy").run(frames)[6:]
    for before, after in [("native", "numpy"), ("numpy", "torch"), ("torch", "native")]:
        first, second = program.stream(before), program.stream(after)
        first.run(frames[:6])
        second.state = first.state
        np.testing.assert_allclose(second.run(frames[6:]), expected, atol=1e-5)


@pytest.mark.parametrize("engine", ENGINES)
def test_streams_are_independent(engine):
    program = lrnn.compile(model())
    rng = np.random.default_rng(0)
    inputs = [f32(rng, 10, 7) for _ in range(3)]
    expected = [program.stream(engine).run(frames) for frames in inputs]
    streams = [program.stream(engine) for _ in inputs]
    found = [[s.step(frames[t]) for s, frames in zip(streams, inputs, strict=True)] for t in range(10)]
    for i, want in enumerate(expected):
        np.testing.assert_allclose(np.stack([row[i] for row in found]), want, atol=1e-6)


@needs_core
def test_streams_in_threads():
    program = lrnn.compile(model(density=0.2))
    rng = np.random.default_rng(0)
    inputs = [f32(rng, 300, 7) for _ in range(4)]
    expected = [program.stream().run(frames) for frames in inputs]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda frames: program.stream().run(frames), inputs))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


@needs_core
def test_streams_share_one_engine_that_dies_with_the_program():
    program = lrnn.compile(model())
    first, second = program.stream(), program.stream()
    assert first.engine is second.engine
    count = len(native_engine._engines)
    del first, second, program
    gc.collect()
    assert len(native_engine._engines) == count - 1


@pytest.mark.parametrize("engine", ENGINES)
def test_what_comes_back_is_fresh(engine):
    program = one_node(nodes.Relu("y", ("x",)), 3)
    stream = program.stream(engine)
    frame = np.ones(3, np.float32)
    first = stream.step(frame)
    stream.step(2 * frame)
    np.testing.assert_array_equal(first, frame)
    first[:] = 7
    np.testing.assert_array_equal(stream.step(frame), frame)


@pytest.mark.parametrize("engine", ENGINES)
def test_accepts_what_holds_real_numbers(engine):
    program = lrnn.compile(model())
    frames = f32(np.random.default_rng(0), 6, 7)
    expected = program.stream(engine).run(frames)
    doubled = np.zeros((6, 14), np.float32)
    doubled[:, ::2] = frames
    for same in (
        frames.astype(np.float64),
        torch.tensor(frames, requires_grad=True),
        doubled[:, ::2],
        frames.tolist(),
    ):
        np.testing.assert_array_equal(program.stream(engine).run(same), expected)
    stream = program.stream(engine)
    np.testing.assert_allclose(stream.step(torch.tensor(frames[0])), expected[0], atol=1e-6)
    assert stream.run(np.zeros((0, 7))).shape == (0, 5)


@pytest.mark.parametrize("engine", ENGINES)
def test_bad_input_is_refused_and_the_state_kept(engine):
    stream = lrnn.compile(model()).stream(engine)
    frames = f32(np.random.default_rng(0), 6, 7)
    stream.run(frames)
    before = stream.state
    for bad in (np.nan, np.inf, -np.inf):
        broken = frames.copy()
        broken[5, 6] = bad
        with pytest.raises(ValueError, match=r"^frames has NaN or infinite"):
            stream.run(broken)
        with pytest.raises(ValueError, match=r"^frame has NaN or infinite"):
            stream.step(broken[5])
    with pytest.raises(ValueError, match=r"^frame has shape \(6,\), expected \(7,\)"):
        stream.step(np.zeros(6, np.float32))
    with pytest.raises(ValueError, match=r"^frames has shape \(7,\), expected \(T, 7\)"):
        stream.run(np.zeros(7, np.float32))
    with pytest.raises(TypeError, match=r"^frame holds complex64, expected real numbers"):
        stream.step(np.zeros(7, np.complex64))
    assert all(np.array_equal(stream.state[name], value) for name, value in before.items())
    for wrong in ({}, {**before, "more": np.zeros(1)}, {name: value[:-1] for name, value in before.items()}):
        with pytest.raises(ValueError, match="state"):
            stream.state = wrong
    with pytest.raises(ValueError, match="NaN"):
        stream.state = {name: value * np.nan for name, value in before.items()}


@needs_core
def test_memory_does_not_grow():
    resource = pytest.importorskip("resource")
    stream = lrnn.compile(model()).stream()
    frame = np.ones(7, np.float32)
    for _ in range(200):
        stream.step(frame)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB on Linux, bytes on macOS
    for _ in range(10_000):
        stream.step(frame)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < (1 << 20 if sys.platform == "darwin" else 1 << 10)


@needs_core
def test_a_state_that_fades_out_does_not_linger_in_denormals():
    program = one_node(nodes.Diagonal("y", ("x",), np.full((8, 2), [0.5, 0], np.float32)), 16)
    stream = program.stream()
    stream.step(np.ones(16, np.float32))
    assert np.all(stream.run(np.zeros((140, 16), np.float32))[-1] == 0)


# --- the engine itself


@needs_core
def test_rows_of_uneven_density_are_sorted():
    """Where most rows are empty, groups of full rows take a fraction of the room; results are put back."""
    rng = np.random.default_rng(0)
    full = rng.permutation(256) < 64
    weight = sparse(rng, 256, 192, 0.3) * full[:, None]
    other = sparse(rng, 256, 192, 0.3) * (rng.permutation(256) < 64)[:, None]
    both = Program(
        "x",
        192,
        (nodes.Linear("a", ("x",), weight), nodes.Linear("b", ("x",), other), nodes.Add("y", ("a", "b"))),
        "y",
    )
    check(both, f32(rng, 3, 192), 3e-6, "sparse")
    if LIBRARY.isa != "scalar":
        packed = native.NativeEngine(one_node(nodes.Linear("y", ("x",), weight), 192), "sparse").bytes()["y"]
        assert packed < 2 * 5 * np.count_nonzero(weight)


@needs_core
def test_formats_follow_density():
    rng = np.random.default_rng(0)
    full, thin = sparse(rng, 192, 192, 1.0), sparse(rng, 192, 192, 0.05)
    program = Program("x", 192, (nodes.Linear("a", ("x",), full), nodes.Linear("b", ("a",), thin)), "b")
    auto = native.NativeEngine(program)
    assert auto.kernels()["a"] == "dense"
    assert auto.kernels()["b"] != "dense"
    assert auto.bytes()["a"] >= full.nbytes > 2 * auto.bytes()["b"]
    assert set(native.NativeEngine(program, "dense").kernels().values()) == {"dense"}
    with pytest.raises(ValueError, match=r"^format is 'csr', expected one of auto, dense, sparse, tiles"):
        native.NativeEngine(program, "csr")


@needs_core
def test_profile_names_every_node():
    program = lrnn.compile(model())
    stream = program.stream()
    stream.run(f32(np.random.default_rng(0), 4, 7))
    before = stream.state
    seconds = stream.profile(2)
    assert list(seconds) == [n.name for n in program.nodes]
    assert all(s >= 0 for s in seconds.values())
    assert sum(seconds.values()) > 0
    assert all(np.array_equal(stream.state[name], value) for name, value in before.items())
    with pytest.raises(ValueError, match="repeats is 0"):
        stream.profile(0)


WEIGHT = np.ones((4, 3), np.float32)


@needs_core
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c, e: c.lrnn_engine_relu(e, 1), "x is 1, expected the id of one of the 1 values"),
        (lambda c, e: c.lrnn_engine_relu(e, -1), "x is -1"),
        (lambda c, e: c.lrnn_engine_linear(e, 0, 4, 4, WEIGHT.ctypes.data, None), "cols is 4, expected 3"),
        (
            lambda c, e: c.lrnn_engine_linear(e, 0, -1, 3, WEIGHT.ctypes.data, None),
            "rows is -1, expected 0 to",
        ),
        (lambda c, e: c.lrnn_engine_linear(e, 0, 2**30, 3, WEIGHT.ctypes.data, None), "rows is 1073741824"),
        (lambda c, e: c.lrnn_engine_linear(e, 0, 4, 3, None, None), "weight is null"),
        (
            lambda c, e: c.lrnn_engine_affine(e, 0, 3, (WEIGHT * np.nan).ctypes.data, WEIGHT.ctypes.data),
            "scale has NaN",
        ),
        (
            lambda c, e: c.lrnn_engine_affine(e, 0, 2, WEIGHT.ctypes.data, WEIGHT.ctypes.data),
            "n is 2, expected 3",
        ),
        (lambda c, e: c.lrnn_engine_diagonal(e, 0, 1, WEIGHT.ctypes.data), "width of x is 3, expected 2"),
        (lambda c, e: c.lrnn_engine_diagonal(e, 0, 2**30, WEIGHT.ctypes.data), "width of x is 3"),
        (lambda c, e: c.lrnn_engine_pair_relu(e, 0), "modulo 2"),
        (
            lambda c, e: c.lrnn_engine_layer_norm(e, 0, 3, WEIGHT.ctypes.data, WEIGHT.ctypes.data, -1.0),
            "eps is -1",
        ),
        (lambda c, e: c.lrnn_engine_round(e, 0, 1000), "exponent is 1000"),
        (
            lambda c, e: c.lrnn_engine_add(e, 0, c.lrnn_engine_linear(e, 0, 4, 3, WEIGHT.ctypes.data, None)),
            "width of x1 is 4",
        ),
        (lambda c, e: c.lrnn_engine_finish(e, 5), "output is 5"),
    ],
)
def test_bad_graphs_are_refused_in_words(call, message):
    library = native.engine_core()
    engine = library.lrnn_engine_new(3, 0)
    try:
        assert call(library, engine) < 0
        assert message in library.lrnn_engine_error(engine).decode()
        assert library.lrnn_engine_relu(engine, 0) < 0  # the first error sticks
        assert library.lrnn_engine_finish(engine, 0) < 0
        assert library.lrnn_stream_new(engine) is None
    finally:
        library.lrnn_engine_free(engine)


@needs_core
def test_a_finished_engine_takes_no_more_nodes():
    library = native.engine_core()
    engine = library.lrnn_engine_new(3, 0)
    assert library.lrnn_engine_finish(engine, 0) == 0
    assert library.lrnn_engine_relu(engine, 0) < 0
    assert [library.lrnn_engine_width(engine, value) for value in (0, 1, -1)] == [3, -1, -1]
    assert library.lrnn_engine_state_width(engine) == 0
    stream = library.lrnn_stream_new(engine)
    x, y = np.arange(3, dtype=np.float32), np.zeros(3, np.float32)
    assert library.lrnn_stream_step(stream, x.ctypes.data, y.ctypes.data) == 0
    assert library.lrnn_stream_run(stream, -1, x.ctypes.data, y.ctypes.data) < 0
    np.testing.assert_array_equal(y, x)
    library.lrnn_stream_free(stream)
    library.lrnn_engine_free(engine)


@needs_core
def test_isa_of_the_environment():
    code = "from lrnn.engine import native; print(native.engine_core().lrnn_isa().decode())"
    for name in LIBRARY.isas:
        run = [sys.executable, "-c", code]
        found = subprocess.run(
            run, env={**os.environ, "LRNN_ISA": name}, capture_output=True, text=True, check=True
        )
        assert found.stdout.strip() == name


def test_without_the_core(monkeypatch):
    monkeypatch.setattr(engine_core, "core_library", lambda: (None, "no compiled engine here"))
    native.engine_core.cache_clear()
    try:
        with pytest.raises(RuntimeError, match=r"engine='numpy' runs without it.*no compiled engine here"):
            one_node(nodes.Relu("y", ("x",)), 3).stream()
    finally:
        native.engine_core.cache_clear()


def test_unknown_engine():
    with pytest.raises(ValueError, match=r"^engine is 'gpu', expected one of native, numpy, torch"):
        open_stream(one_node(nodes.Relu("y", ("x",)), 3), "gpu")
