"""lrnn.scan: its definition, its laws, and that every CPU kernel and every way of calling it agree."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from isas import Library
from lrnn.kernels.scan import reference
from scan_cases import C64, C128, F32, F64, OPTIONS, Problem, assert_same, make, problems

import lrnn
from lrnn.ops.libraries import load_op_library

few = settings(max_examples=30, deadline=None)
OPS = torch.ops.lrnn


LIBRARY = Library(load_op_library()[0])


@pytest.fixture(params=LIBRARY.isas, scope="module")
def isa(request):
    """Each instruction set of this machine in turn."""
    with LIBRARY.running(request.param):
        yield request.param


@pytest.mark.parametrize(("constant", "with_h0", "with_reset", "reverse"), OPTIONS)
def test_reference_is_the_recurrence_number_by_number(constant, with_h0, with_reset, reverse):
    p = make(0, (2, 6, 3), (C128, C128), constant, with_h0, with_reset, reverse)
    h, h_last = p.forward(reference.scan)
    for i in range(2):
        for n in range(3):
            state = p.h0[i, n].item() if with_h0 else 0
            for t in reversed(range(6)) if reverse else range(6):
                edge = t + 1 if reverse else t  # edge e lies between steps e - 1 and e
                cut = with_reset and edge < 6 and bool(p.reset[i, edge])
                a = p.a[n] if constant else p.a[i, t, n]
                state = (0 if cut else a.item() * state) + p.b[i, t, n].item()
                assert abs(h[i, t, n].item() - state) < 1e-12
            assert abs(h_last[i, n].item() - state) < 1e-12


@few
@given(problems(kinds=[(F64, F64), (C128, C128), (F64, C128)], min_length=1, max_length=5))
def test_reference_backward_is_the_derivative_of_the_reference(p: Problem):
    leaves = [None if x is None else x.clone().requires_grad_() for x in (p.a, p.b, p.h0)]
    h, h_last = reference.scan(*leaves, p.reset, p.reverse)
    want = torch.autograd.grad(
        (h, h_last),
        [x for x in leaves if x is not None],
        (p.grad_h, p.grad_last),
        allow_unused=True,
        materialize_grads=True,
    )
    found = p.backward(reference.scan_backward, h.detach())
    for x, y in zip(found, want, strict=False):
        torch.testing.assert_close(x, y, rtol=1e-11, atol=1e-11)


# Kernels


@few
@given(problem=problems())
def test_every_isa_equals_the_reference(isa, problem: Problem):
    h, h_last = problem.forward(reference.scan)
    for found, want in zip(problem.forward(OPS.scan), (h, h_last), strict=True):
        assert_same(found, want)
    gradients = problem.backward(OPS.scan_backward, h)
    for found, want in zip(gradients, problem.backward(reference.scan_backward, h), strict=True):
        assert_same(found, want)


@pytest.mark.parametrize("kind", [(F32, F32), (C64, C64), (F32, C64), (F64, F64)])
@pytest.mark.parametrize(("constant", "with_h0", "with_reset", "reverse"), OPTIONS)
def test_many_tiles_of_time_equal_the_reference(isa, kind, constant, with_h0, with_reset, reverse):
    p = make(13, (2, 131, 21), kind, constant, with_h0, with_reset, reverse)  # tiles have 64 steps at most
    h, h_last = p.forward(reference.scan)
    for found, want in zip(p.forward(OPS.scan), (h, h_last), strict=True):
        assert_same(found, want)
    for found, want in zip(
        p.backward(OPS.scan_backward, h), p.backward(reference.scan_backward, h), strict=True
    ):
        assert_same(found, want)


@pytest.mark.parametrize("constant", [False, True])
def test_walks_through_cache_and_through_memory_give_the_same_bits(isa, constant):
    whole = make(14, (1, 8300, 128), (C64, C64), constant, with_reset=False)  # past the caches
    h, h_last = whole.forward(OPS.scan)
    state = whole.h0
    for start, stop in ((0, 4150), (4150, 8300)):  # each in cache
        part, state = whole.part(start, stop, state).forward(OPS.scan)
        assert torch.equal(part, h[:, start:stop])
    assert torch.equal(state, h_last)


@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("width", [128, 129])  # whole cache lines are written past the caches, others are not
def test_sizes_that_no_cache_holds(isa, constant, width):
    p = make(1, (1, 8300, width), (C64, C64), constant)
    h, h_last = p.forward(reference.scan)
    for found, want in zip(p.forward(OPS.scan), (h, h_last), strict=True):
        assert_same(found, want)
    for found, want in zip(
        p.backward(OPS.scan_backward, h), p.backward(reference.scan_backward, h), strict=True
    ):
        assert_same(found, want)


@pytest.mark.parametrize("kind", [(F32, F32), (C64, C64)])
@pytest.mark.parametrize("batch", [1, 3])
def test_results_do_not_depend_on_the_number_of_threads(kind, batch):
    p = make(2, (batch, 700, 203), kind, constant=True)
    results = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3, 5):
            torch.set_num_threads(threads)
            h, h_last = p.forward(OPS.scan)
            results.append((h, h_last, *p.backward(OPS.scan_backward, h)))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(x, y) for x, y in zip(results[0], other, strict=True))


def test_unknown_isa_is_refused_by_name():
    if LIBRARY.handle is None:
        pytest.skip("no compiled op library")
    assert b"'sse9'" in LIBRARY.handle.lrnn_isa_select(b"sse9")
    run = _python("import lrnn", LRNN_ISA="sse9")
    assert run.returncode != 0
    assert "LRNN_ISA: found 'sse9', expected one of scalar" in run.stderr


def test_without_the_compiled_library_the_reference_serves():
    run = _python(
        "import torch\n"
        "def refuse(path): raise OSError('not built')\n"
        "torch.ops.load_library = refuse\n"
        "import lrnn\n"
        "assert lrnn.backends()['cpu'].startswith('off:'), lrnn.backends()\n"
        "a = torch.full((3,), 0.5, requires_grad=True)\n"
        "h, last = lrnn.scan(a, torch.ones(1, 2, 3))\n"
        "last.sum().backward()\n"
        "assert last.tolist() == [[1.5] * 3] and a.grad.tolist() == [1.0] * 3\n"
    )
    assert run.returncode == 0, run.stderr


def _python(code: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True
    )


def test_backends_say_what_is_live_and_why_not():
    found = lrnn.backends()
    assert set(found) == {"cpu", "engine", "cuda"}
    assert all(why.startswith(("live: ", "off: ")) for why in found.values())


# Laws


@few
@given(problems(min_length=1), st.data())
def test_any_split_with_the_state_carried_over_equals_the_whole(p: Problem, data):
    h, h_last = p.forward(lrnn.scan)
    length = p.b.shape[1]
    cuts = sorted({0, length, *data.draw(st.lists(st.integers(0, length), max_size=3))})
    pieces = list(itertools.pairwise(cuts))
    state, out = p.h0, {}
    for start, stop in reversed(pieces) if p.reverse else pieces:
        if p.reverse and p.reset is not None and stop < length:  # an edge between two pieces
            state = state.masked_fill(p.reset[:, stop, None], 0)
        out[start], state = p.part(start, stop, state).forward(lrnn.scan)
    assert_same(torch.cat([out[start] for start, _ in pieces], dim=1), h)
    assert_same(state, h_last)


@few
@given(problems(min_length=1))
def test_single_steps_equal_the_scan(p: Problem):
    p = make(3, tuple(p.b.shape), (p.a.dtype, p.b.dtype), constant=p.a.dim() == 1, with_reset=False)
    h, h_last = p.forward(lrnn.scan)
    state = p.h0
    for t in range(p.b.shape[1]):
        one, state = p.part(t, t + 1, state).forward(lrnn.scan)
        assert_same(one, h[:, t : t + 1].contiguous())
    assert_same(state, h_last)


@few
@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.booleans(), st.integers(0, 99))
def test_packed_sequences_equal_separate_ones(lengths, reverse, seed):
    apart = [
        make(seed + i, (1, n, 5), with_h0=False, with_reset=False, reverse=reverse)
        for i, n in enumerate(lengths)
    ]
    reset = torch.cat([torch.arange(n) == 0 for n in lengths]).unsqueeze(0)
    a, b = (torch.cat([getattr(p, name) for p in apart], dim=1) for name in ("a", "b"))
    h, _ = lrnn.scan(a, b, reset=reset, reverse=reverse)
    assert_same(h, torch.cat([p.forward(lrnn.scan)[0] for p in apart], dim=1))


@few
@given(problems(min_length=1))
def test_reverse_is_the_flipped_scan_with_the_same_edges_cut(p: Problem):
    reset = p.reset
    if reset is not None:  # the edge before t becomes the edge before T - t
        reset = torch.cat([torch.zeros_like(reset[:, :1]), reset[:, 1:].flip(1)], dim=1)
    a = p.a if p.a.dim() == 1 else p.a.flip(1)
    h, h_last = lrnn.scan(a, p.b.flip(1), p.h0, reset)
    found, found_last = lrnn.scan(p.a, p.b, p.h0, p.reset, reverse=True)
    assert_same(found, h.flip(1))
    assert_same(found_last, h_last)


def test_nothing_crosses_a_cut_edge_not_even_nan():
    a = torch.ones(1, 4, 3)
    a[:, 0] = a[:, 2] = float("inf")
    a.requires_grad_()
    b = torch.ones(1, 4, 3)
    b[:, 1] = float("nan")
    b.requires_grad_()
    reset = torch.tensor([[True, False, True, False]])
    h, h_last = lrnn.scan(a, b, torch.full((1, 3), float("nan")), reset)
    assert h[0, :, 0].isnan().tolist() == [False, True, False, False]
    assert h_last.tolist() == [[2.0] * 3]
    h[:, 2:].sum().backward()
    assert b.grad[0, :, 0].tolist() == [0, 0, 2, 1]
    assert a.grad[0, :, 0].tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_accumulated_in_float32(dtype):
    p = make(4, (2, 50, 8), (F32, dtype), with_reset=False)
    h, h_last = p.forward(lrnn.scan)
    wide, wide_last = lrnn.scan(p.a, p.b.float(), p.h0)
    assert (h.dtype, h_last.dtype) == (dtype, F32)
    assert torch.equal(h, wide.to(dtype))
    assert torch.equal(h_last, wide_last)


# Autograd


@pytest.mark.parametrize(("a_dtype", "b_dtype"), [(F64, F64), (C128, C128), (F64, C128)])
@pytest.mark.parametrize(("constant", "with_h0", "with_reset", "reverse"), OPTIONS)
def test_gradcheck(a_dtype, b_dtype, constant, with_h0, with_reset, reverse):
    p = make(5, (2, 4, 3), (a_dtype, b_dtype), constant, with_h0, with_reset, reverse)
    inputs = [x.requires_grad_() for x in (p.a, p.b, p.h0) if x is not None]

    def run(a, b, h0=None):
        return lrnn.scan(a, b, h0, p.reset, p.reverse)

    assert torch.autograd.gradcheck(run, inputs)


@pytest.mark.parametrize("used", [0, 1])
def test_either_output_may_go_unused(used):
    p = make(6, (2, 5, 3), (F64, F64))
    found, want = [], []
    for scan, gradients in ((lrnn.scan, found), (reference.scan, want)):
        leaves = [x.clone().requires_grad_() for x in (p.a, p.b, p.h0)]
        out = scan(*leaves, p.reset)[used]
        gradients += torch.autograd.grad(out.square().sum(), leaves)
    for x, y in zip(found, want, strict=True):
        assert_same(x, y)


def test_second_derivative_raises_instead_of_being_wrong():
    p = make(7, (1, 3, 2), (F64, F64))
    b = p.b.requires_grad_()
    (grad,) = torch.autograd.grad(lrnn.scan(p.a, b)[0].square().sum(), b, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        grad.sum().backward()


def test_a_constant_a_is_never_expanded():
    batch, length, width = 4, 64, 96
    a = torch.rand(width, requires_grad=True)
    b = torch.randn(batch, length, width, requires_grad=True)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x.shape) or x, lambda x: x):
        h, _ = lrnn.scan(a, b)
    assert sorted(saved, key=len) == [(width,), (batch, length, width)]
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        torch.autograd.grad(h, (a, b), torch.ones_like(h))
    (backward,) = [e for e in profile.events() if e.name == "lrnn::scan_backward"]
    assert 0 < backward.cpu_memory_usage < 1.5 * h.nbytes  # grad_b and vectors


# Ways of calling


@pytest.mark.parametrize("kind", [(F32, F32), (C64, C64), (F32, C64), (F32, torch.bfloat16)])
@pytest.mark.parametrize(("constant", "with_h0", "with_reset", "reverse"), [OPTIONS[0], OPTIONS[-1]])
def test_opcheck(kind, constant, with_h0, with_reset, reverse):
    p = make(8, (2, 5, 3), kind, constant, with_h0, with_reset, reverse)
    inputs = (p.a.requires_grad_(), p.b.requires_grad_(), p.h0, p.reset, p.reverse)
    torch.library.opcheck(OPS.scan, inputs)
    h = p.forward(lrnn.scan)[0].detach()
    torch.library.opcheck(
        OPS.scan_backward, (p.grad_h, p.grad_last, p.a.detach(), h, p.h0, p.reset, p.reverse)
    )


@pytest.fixture(scope="module")
def reference_op():
    """The reference's backward pass as the kernel of an op, as it is where no library is built."""
    name = "lrnn_reference::scan_backward"
    torch.library.define(
        name,
        "(Tensor grad_h, Tensor grad_last, Tensor a, Tensor h, Tensor? h0, Tensor? reset, bool reverse)"
        " -> (Tensor grad_a, Tensor grad_b, Tensor grad_h0)",
    )
    torch.library.impl(name, "default", reference.scan_backward)

    @torch.library.register_fake(name)
    def _(grad_h, grad_last, a, h, h0, reset, reverse):
        return a.new_empty(a.shape), h.new_empty(h.shape), grad_last.new_empty(grad_last.shape)

    return torch.ops.lrnn_reference.scan_backward.default


@pytest.mark.parametrize("kind", [(F32, F32), (C64, C64), (F32, C64)])
@pytest.mark.parametrize(("constant", "with_h0", "with_reset", "reverse"), [OPTIONS[0], OPTIONS[-1]])
def test_opcheck_of_the_reference(reference_op, kind, constant, with_h0, with_reset, reverse):
    p = make(8, (2, 5, 3), kind, constant, with_h0, with_reset, reverse)
    h = p.forward(lrnn.scan)[0].detach()
    torch.library.opcheck(reference_op, (p.grad_h, p.grad_last, p.a.detach(), h, p.h0, p.reset, p.reverse))


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.parametrize("dtype", [F32, C64])
def test_compiles_as_one_graph(backend, dtype):
    p = make(9, (2, 5, 3), (dtype, dtype))

    def loss(a, b):
        h, h_last = lrnn.scan(a, 2 * b, p.h0, p.reset)
        return h.abs().square().sum() + h_last.abs().sum()

    compiled = torch.compile(loss, fullgraph=True, backend=backend)
    gradients = []
    for f in (compiled, loss):
        leaves = p.a.clone().requires_grad_(), p.b.clone().requires_grad_()
        gradients.append(torch.autograd.grad(f(*leaves), leaves))
    for found, want in zip(*gradients, strict=True):
        assert_same(found, want)


def test_exports_with_dynamic_batch_and_time():
    class Layer(torch.nn.Module):
        def forward(self, a, b, h0, reset):
            return lrnn.scan(a, b, h0, reset)

    batch, time = torch.export.Dim("batch"), torch.export.Dim("time")
    p = make(10, (2, 5, 3), constant=True)
    exported = torch.export.export(
        Layer(),
        (p.a, p.b, p.h0, p.reset),
        dynamic_shapes=(None, {0: batch, 1: time}, {0: batch}, {0: batch, 1: time}),
    )
    assert [n.target for n in exported.graph.nodes].count(OPS.scan.default) == 1
    q = make(11, (4, 9, 3), constant=True)
    for found, want in zip(
        exported.module()(p.a, q.b, q.h0, q.reset), lrnn.scan(p.a, q.b, q.h0, q.reset), strict=True
    ):
        assert_same(found, want)


def test_autocast_runs_it_in_float32():
    a = torch.rand(4, requires_grad=True)
    linear = torch.nn.Linear(4, 4)
    with torch.autocast("cpu", torch.bfloat16):
        b = linear(torch.randn(2, 6, 4))
        h, h_last = lrnn.scan(a, b)
        assert (b.dtype, h.dtype, h_last.dtype) == (torch.bfloat16, F32, F32)
    h.sum().backward()
    assert a.grad.dtype == linear.weight.grad.dtype == F32


def test_strided_and_lazily_conjugated_inputs():
    p = make(12, (3, 5, 7))
    want = lrnn.scan(p.a.conj().resolve_conj(), p.b, p.h0, p.reset)
    strided = p.b.transpose(0, 2).contiguous().transpose(0, 2)
    reset = p.reset.t().contiguous().t()
    assert not strided.is_contiguous()
    for found, expected in zip(lrnn.scan(p.a.conj(), strided, p.h0, reset), want, strict=True):
        assert_same(found, expected)


def test_last_state_is_no_view_of_an_argument():
    h0 = torch.ones(2, 3)
    _, h_last = lrnn.scan(torch.ones(3), torch.ones(2, 0, 3), h0)
    h_last += 1
    assert h0.eq(1).all()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"b": torch.ones(5, 3)}, ValueError, r"b: shape is \(5, 3\), expected \(batch, time, channels\)"),
        ({"a": torch.ones(4)}, ValueError, r"a: shape is \(4,\), expected \(2, 5, 3\) or \(3,\)"),
        ({"a": torch.ones(2, 1, 3)}, ValueError, r"a: shape is \(2, 1, 3\)"),
        ({"a": torch.ones(3, dtype=C64)}, TypeError, "a: dtype is torch.complex64 but b is real"),
        (
            {"a": torch.ones(3, dtype=F64)},
            TypeError,
            "a: dtype is torch.float64, expected at most the precision",
        ),
        ({"a": torch.ones(3, dtype=torch.int64)}, TypeError, "a: dtype is torch.int64, expected a floating"),
        ({"h0": torch.ones(3)}, ValueError, r"h0: shape is \(3,\), expected \(2, 3\)"),
        ({"h0": torch.ones(2, 3, dtype=C64)}, TypeError, "h0: dtype is torch.complex64 but b is real"),
        ({"reset": torch.ones(2, 5)}, TypeError, "reset: dtype is torch.float32, expected torch.bool"),
        (
            {"reset": torch.ones(5, 2, dtype=torch.bool)},
            ValueError,
            r"reset: shape is \(5, 2\), expected \(2, 5\)",
        ),
        ({"a": torch.ones(3, device="meta")}, ValueError, "a: device is meta, expected b's"),
    ],
)
def test_errors_name_the_argument(change, error, message):
    arguments = {"a": torch.ones(3), "b": torch.ones(2, 5, 3), **change}
    with pytest.raises(error, match=message):
        lrnn.scan(**arguments)


def test_the_bare_op_refuses_what_would_read_out_of_bounds():
    with pytest.raises(RuntimeError):
        OPS.scan(torch.ones(4), torch.ones(2, 5, 3), None, None, False)


# The benchmark


def test_bench_times_only_forms_that_agree_and_leaves_none_out():
    from lrnn.profile.bench import scan as bench

    result = bench.run(2, 37, 5, rounds=2, budget=0.1)
    cases = {(case["a"], case["pass"]): case for case in result["cases"]}
    assert set(cases) == {(a, way) for a in ("constant", "varying") for way in ("forward", "backward")}
    assert not any(case["left_out"] for case in cases.values())
    assert set(cases["constant", "forward"]["seconds"]) == {"copy", "lrnn", *bench.FORMS}
    for case in cases.values():
        ours, best = case["seconds"]["lrnn"], case["seconds"][case["best_form"]]
        assert case["ratio_median"] == best["median"] / ours["median"]
    assert {"layer", "products", "scan", "tiles"} == set(result["s5"]["seconds"]["forward"])
    assert result["s5"]["most_gain"]["training"] > 0
    assert "best pure torch" in bench.table(result)
    assert "in tiles of 512 steps" in bench.table(result)


@pytest.mark.parametrize("tile", [1, 7, 37, 64])
@pytest.mark.parametrize("relu", ["none", "parts"])
def test_an_s5_layer_in_tiles_of_time_equals_the_layer(tile, relu):
    from lrnn.profile.bench.s5_tiles import in_tiles

    torch.manual_seed(15)
    layer, x = lrnn.S5(6, 8, relu=relu), torch.randn(2, 37, 6)
    with torch.no_grad():
        assert_same(in_tiles(layer, x, tile), layer(x)[0])
