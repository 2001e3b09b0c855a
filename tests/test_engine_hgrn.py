"""The native engine on the nodes of an HGRN and on whole stacks, on every instruction set, against numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_engine import ENGINES, LIBRARY, check, f32, isa, needs_core, sparse  # noqa: F401
from test_program_hgrn import AUTHORS, make_stack

import lrnn
from lrnn import HGRNOptions
from lrnn.engine import native
from lrnn.program import Program, nodes
from lrnn.prune import prune_once

KINDS = {"real": HGRNOptions(), "complex": HGRNOptions("complex"), "authors": AUTHORS}


def gated(rng, size: int, turned: bool, width: int = 6) -> Program:
    """A gate of sigmoids and what is written, from an input of `width` numbers."""
    rotation = None
    if turned:
        theta = rng.uniform(0, np.pi, size)
        rotation = np.stack([np.cos(theta), np.sin(theta)], -1).astype(np.float32)
    return Program(
        "x",
        width,
        (
            nodes.Linear("z", ("x",), f32(rng, size, width), f32(rng, size)),
            nodes.Sigmoid("g", ("z",)),
            nodes.Linear("i", ("x",), f32(rng, (1 + turned) * size, width)),
            nodes.Gated("h", ("g", "i"), size, rotation),
        ),
        "h",
    )


@pytest.mark.parametrize("turned", [False, True], ids=["real", "complex"])
@pytest.mark.parametrize("size", [1, 5, 8, 16, 17, 33, 64, 129])
def test_gated(isa, size, turned):  # noqa: F811
    rng = np.random.default_rng(size)
    program, frames = gated(rng, size, turned), f32(rng, 150, 6)
    check(program, frames, 2e-6)
    check(program, frames, 2e-6, "tiles")


@pytest.mark.parametrize("turned", [False, True], ids=["real", "complex"])
def test_gated_is_the_same_to_the_bit_step_by_step_and_in_tiles(isa, turned):  # noqa: F811
    """The recurrence alone: products and functions before it may round otherwise in a tile."""
    size = 21
    program = gated(np.random.default_rng(3), size, turned)
    rng, width = np.random.default_rng(4), (1 + turned) * size
    state = program.nodes[-1]
    pick = (np.eye(size, size + width), np.eye(width, size + width, size))
    program = Program(
        "x",
        size + width,
        (
            nodes.Linear("g", ("x",), pick[0].astype(np.float32)),
            nodes.Linear("i", ("x",), pick[1].astype(np.float32)),
            state,
        ),
        "h",
    )
    frames = np.concatenate([rng.random((200, size)), rng.standard_normal((200, width))], 1)
    streams = [native.NativeStream(program, native.NativeEngine(program, f)) for f in ("auto", "tiles")]
    whole = streams[0].run(frames)
    assert np.array_equal(streams[1].run(frames), whole)
    assert all(np.array_equal(streams[1].state["h"], s) for s in (streams[0].state["h"], whole[-1]))


def test_gated_comes_to_rest_however_small_the_gate(isa):  # noqa: F811
    """Where 1 - g rounds to 1, f h + g x would grow for ever."""
    g = nodes.Affine("g", ("x",), np.zeros(1, np.float32), np.full(1, 2.0**-26, np.float32))
    program = Program("x", 1, (g, nodes.Gated("h", ("g", "x"), 1)), "h")
    for format in ("auto", "tiles"):
        stream = native.NativeStream(program, native.NativeEngine(program, format))
        stream.state = {"h": np.ones(1)}
        assert (stream.run(np.ones((1000, 1))) == 1).all()


@pytest.mark.parametrize("n", [1, 3, 16, 40])
def test_embedding(isa, n):  # noqa: F811
    rng = np.random.default_rng(n)
    tokens = rng.integers(0, 9, (150, 1)).astype(np.float32)
    table = nodes.Embedding("e", ("x",), f32(rng, 9, n))
    for program in (
        Program("x", 1, (table,), "e"),
        Program("x", 1, (table, nodes.Silu("s", ("e",)), nodes.Add("y", ("s", "e"))), "y"),
        Program("x", 1, (table, nodes.Linear("y", ("e",), f32(rng, 7, n))), "y"),
    ):
        check(program, tokens, 2e-6)
        check(program, tokens, 2e-6, "tiles")


@pytest.mark.parametrize("function", ["sigmoid", "silu", "relu"])
@pytest.mark.parametrize("first", [True, False])
def test_gates_that_are_fused(isa, function, first):  # noqa: F811
    rng = np.random.default_rng(0)
    for n in (2, 33):
        gate = nodes.NODES[function]("f", ("x",))
        other = nodes.Linear("l", ("x",), f32(rng, n, n))
        for reader in (("f", "l"), ("f", "f"), ("f", "x")):
            inputs = reader if first else reader[::-1]
            program = Program("x", n, (gate, other, nodes.Product("y", inputs)), "y")
            check(program, f32(rng, 70, n, scale=4), 2e-6)
            check(program, f32(rng, 70, n, scale=4), 2e-6, "tiles")


@pytest.mark.parametrize("density", [1.0, 0.1])
@pytest.mark.parametrize("relu", ["none", "gates", "all"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_stack(isa, kind, relu, density):  # noqa: F811
    stack = make_stack(d_model=40, d_state=33, d_hidden=70, hgrn=KINDS[kind], relu=relu)
    if density < 1:
        prune_once(stack, 1 - density)
    program, frames = lrnn.compile(stack), f32(np.random.default_rng(0), 100, 40)
    check(program, frames)
    check(program, frames, format="tiles")


@pytest.mark.parametrize("kind", KINDS)
def test_smallest_sizes(isa, kind):  # noqa: F811
    program = lrnn.compile(make_stack(1, d_model=1, d_state=1, d_hidden=1, hgrn=KINDS[kind]))
    frames = f32(np.random.default_rng(0), 70, 1)
    check(program, frames)
    check(program, frames, format="tiles")


@settings(max_examples=25, deadline=None)
@given(st.data())
@needs_core
def test_random_graphs(data):
    """Fusion and the sharing of memory between values change no result: any value may be read again."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    widths, gates = {"x": 8}, []
    made = []
    for i in range(data.draw(st.integers(2, 14))):
        kind = data.draw(
            st.sampled_from(["linear", "sigmoid", "silu", "product", "rms_norm", "gated", "gated"])
        )
        x, name = data.draw(st.sampled_from(list(widths))), f"v{i}"
        n = widths[x]
        if kind == "gated":
            size = [g for g in gates if widths[g] in (n, n // 2)]
            if not size:
                continue
            g = data.draw(st.sampled_from(size))
            turned = gated(rng, widths[g], widths[g] < n).nodes[-1].rotation
            node = nodes.Gated(name, (g, x), widths[g], turned)
        elif kind == "linear":
            n = data.draw(st.sampled_from([4, 8, 16, 32]))
            node = nodes.Linear(name, (x,), sparse(rng, n, widths[x], 0.5) / np.float32(np.sqrt(widths[x])))
        elif kind == "product":
            node = nodes.Product(name, (x, data.draw(st.sampled_from([v for v in widths if widths[v] == n]))))
        elif kind == "rms_norm":
            node = nodes.RmsNorm(name, (x,), f32(rng, n), 0.1)
        else:
            node = nodes.NODES[kind](name, (x,))
            gates += [name] if kind == "sigmoid" else []
        widths[name] = n
        made.append(node)
    program = Program("x", 8, tuple(made), data.draw(st.sampled_from(list(widths))))
    check(program, f32(rng, 5, 8, scale=0.5), 2e-5)
    check(program, f32(rng, 70, 8, scale=0.5), 2e-5, format="tiles")


# --- streams


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", ["real", "complex"])
def test_any_cutting_of_time_and_reset(engine, kind):
    program = lrnn.compile(make_stack(hgrn=KINDS[kind]))
    stream, frames = program.stream(engine), f32(np.random.default_rng(0), 140, 6)
    whole = stream.run(frames)
    stream.reset()
    parts = [stream.run(frames[:70]), *(stream.step(f)[None] for f in frames[70:75])]
    kept = stream.state
    parts.append(stream.run(frames[75:]))
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-5, rtol=1e-5)
    stream.state = kept
    np.testing.assert_allclose(stream.run(frames[75:]), whole[75:], atol=1e-5, rtol=1e-5)


@needs_core
def test_state_moves_between_engines():
    program = lrnn.compile(make_stack(hgrn=KINDS["complex"]))
    frames = f32(np.random.default_rng(0), 40, 6)
    expected = program.stream("numpy").run(frames)
    first = program.stream("native")
    first.run(frames[:15])
    for engine in ("native", "numpy", "torch"):
        second = program.stream(engine)
        second.state = first.state
        np.testing.assert_allclose(second.run(frames[15:]), expected[15:], atol=1e-5, rtol=1e-5)


def tokens_program() -> Program:
    rng = np.random.default_rng(0)
    return Program(
        "x",
        1,
        (
            nodes.Embedding("table", ("x",), f32(rng, 5, 3)),
            nodes.Sigmoid("g", ("table",)),
            nodes.Gated("h", ("g", "table"), 3),
        ),
        "h",
    )


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("bad", [-1, 5, 1.5, 2**25])
def test_what_is_no_token_is_refused_by_name_and_the_state_kept(engine, bad):
    stream = tokens_program().stream(engine)
    stream.run(np.arange(4)[:, None])
    before = stream.state
    tokens = np.zeros((100, 1))
    for at in (3, 99):
        frames = tokens.copy()
        frames[at] = bad
        with pytest.raises(ValueError, match=r"'table' \(embedding\): frames has .*, expected .* 0 to 4"):
            stream.run(frames)
    with pytest.raises(ValueError, match=r"'table' \(embedding\): frame has .*, expected .* 0 to 4"):
        stream.step([bad])
    assert all(np.array_equal(stream.state[name], value) for name, value in before.items())
    with pytest.raises(ValueError, match="frame has NaN"):
        stream.step([np.nan])


@pytest.mark.parametrize("engine", ENGINES)
def test_the_least_of_two_tables_counts(engine):
    rng = np.random.default_rng(0)
    tables = (nodes.Embedding("a", ("x",), f32(rng, 9, 3)), nodes.Embedding("b", ("x",), f32(rng, 5, 3)))
    stream = Program("x", 1, (*tables, nodes.Add("y", ("a", "b"))), "y").stream(engine)
    stream.step([4])
    with pytest.raises(ValueError, match=r"'b' \(embedding\): frame has 7, expected .* 0 to 4"):
        stream.step([7])


@needs_core
def test_integer_tokens_are_taken():
    stream = tokens_program().stream()
    expected = stream.run(np.array([[1.0], [4.0]], np.float32))
    stream.reset()
    assert np.array_equal(stream.run(np.array([[1], [4]])), expected)


ROTATION = np.ones((4, 2), np.float32).ctypes


@needs_core
@pytest.mark.parametrize(
    ("width", "call", "message"),
    [
        (3, lambda c, e: c.lrnn_engine_gated(e, 0, 0, 4, None), "width of x is 3, expected 4"),
        (4, lambda c, e: c.lrnn_engine_gated(e, 0, 0, 4, ROTATION.data), "width of x is 4, expected 8"),
        (4, lambda c, e: c.lrnn_engine_gated(e, 0, 0, 2, ROTATION.data), "width of g is 4, expected 2"),
        (4, lambda c, e: c.lrnn_engine_gated(e, 7, 0, 4, None), "g is 7, expected the id"),
        (3, lambda c, e: c.lrnn_engine_embedding(e, 0, 4, 2, ROTATION.data), "x is no frame of one number"),
        (1, lambda c, e: c.lrnn_engine_embedding(e, 0, 0, 2, ROTATION.data), "tokens is 0"),
        (1, lambda c, e: c.lrnn_engine_embedding(e, 0, 4, 2, None), "weight is null"),
        (
            1,
            lambda c, e: c.lrnn_engine_embedding(e, c.lrnn_engine_relu(e, 0), 4, 2, ROTATION.data),
            "x is no frame of one number",
        ),
        (4, lambda c, e: c.lrnn_engine_rms_norm(e, 0, 3, ROTATION.data, 0.1), "n is 3, expected 4"),
        (4, lambda c, e: c.lrnn_engine_rms_norm(e, 0, 4, ROTATION.data, -1.0), "eps is -1"),
    ],
)
def test_bad_graphs_are_refused_in_words(width, call, message):
    library = native.engine_core()
    engine = library.lrnn_engine_new(width, 0)
    try:
        assert call(library, engine) < 0
        assert message in library.lrnn_engine_error(engine).decode()
    finally:
        library.lrnn_engine_free(engine)


@pytest.mark.parametrize("kind", ["real", "complex"])
@needs_core
def test_pruned_wide_stack(kind):
    """90 % of the weights gone at sizes where every kernel has full panels; every executor to 1e-5."""
    torch.manual_seed(0)
    stack = make_stack(2, d_model=256, d_state=256, d_hidden=704, hgrn=KINDS[kind], relu="gates")
    with torch.no_grad():
        for p in stack.parameters():
            p.mul_(0.3 if p.ndim == 2 else 1)
    prune_once(stack, 0.9)
    program, frames = lrnn.compile(stack), f32(np.random.default_rng(0), 70, 256)
    expected = program.stream("numpy").run(frames)
    for engine in ("native", "torch"):
        found = program.stream(engine).run(frames)
        assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()
