"""The gated recurrence in integers: its equations in Python's numbers, and against float64 for ever."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from fixed_cases import HAS_CORE, ints, trace
from hypothesis import given, settings
from hypothesis import strategies as st
from isas import Library

from lrnn.ops.libraries import core_library
from lrnn.program import Program
from lrnn.program.fixed import nodes as fixed
from lrnn.program.fixed.weights import rotation_integers
from lrnn.program.nodes import Gated
from lrnn.quant import largest_integer, quantize_rotation

LIBRARY = Library(core_library()[0])
PHASES = np.array([0.0, 1e-4, 0.01, 0.7, 1.0, 3.0, np.pi])


@pytest.fixture(params=LIBRARY.isas)
def isa(request):
    """The test once for each instruction set."""
    with LIBRARY.running(request.param):
        yield request.param


def gated(size: int = 1, phases: np.ndarray | None = None, **changes) -> fixed.Gated:
    turned = {}
    if phases is not None:
        size = len(phases)
        rotation = np.stack((np.cos(phases), np.sin(phases)), 1).astype(np.float32)
        integers = rotation_integers(Gated("y", ("g", "x"), size, rotation), 16)
        turned = dict(zip(("decay", "decay_exponent"), integers, strict=True))
    values = {
        "gate_exponent": 15,
        "state_exponent": 8,
        "state_bits": 24,
        "exponent": 8,
        "bits": 24,
        **changes,
    }
    return fixed.Gated("y", ("g", "x"), size=size, **turned, **values)


def program(node: fixed.Gated, x_exponent: int = 0, bits: int = 16) -> Program:
    """Frames are g (N,) and x (N,) or (2 N,), whole numbers side by side: matrices tell them apart."""
    n, width = node.size, node.size * node.parts
    ends = [fixed.Quantize("in", ("frame",), exponent=0, bits=bits)]
    for name, start, rows, exponent in (("g", 0, n, node.gate_exponent), ("x", n, width, x_exponent)):
        weight = np.eye(rows, n + width, start, dtype=np.int8)
        made = {"exponent": exponent, "bits": bits, "weight_exponent": np.full(rows, exponent, np.int8)}
        ends.append(fixed.Linear(name, ("in",), weight=weight, bias=np.zeros(rows, np.int32), **made))
    return Program("frame", n + width, (*ends, node, fixed.Dequantize("out", ("y",))), "out")


def exact(node: fixed.Gated, x_shift: int, frames: list[list[int]]) -> list[list[int]]:
    """h after every frame, in Python's integers: the equations of lrnn.program.fixed.memory.Gated."""
    n, parts, e = node.size, node.parts, node.gate_exponent
    most = largest_integer(node.state_bits)
    h, turn, rest, out = [0] * n * parts, [0] * n * parts, [0] * n * parts, []
    for frame in frames:
        g, x = frame[:n], frame[n:]
        u = list(h)
        for i in range(n if parts == 2 else 0):
            re, im = (int(v) for v in node.decay[i])
            a, b = h[2 * i], h[2 * i + 1]
            s = int(node.decay_exponent[i])
            for k, product in ((2 * i, re * a - im * b), (2 * i + 1, re * b + im * a)):
                drop, turn[k] = divmod(product + turn[k], 1 << s)
                u[k] -= drop
        for k in range(n * parts):
            gate = min(max(g[k // parts], 0), 1 << e)
            there = round(Fraction(x[k]) / Fraction(2) ** x_shift)  # halves to even
            drop, rest[k] = divmod(gate * (u[k] - there) + rest[k], 1 << e)
            h[k] = min(max(u[k] - drop, -most), most)
        out.append(list(h))
    return out


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.booleans(), st.data())
def test_it_is_its_equations(seed, turned, data):
    """Any gates, also such as no sigmoid makes, extremes and saturation, any shift of x and of the value."""
    rng = np.random.default_rng(seed)
    e, shift = data.draw(st.integers(0, 20)), data.draw(st.integers(-10, 6))
    size = data.draw(st.sampled_from([1, 3, 8, 17, 33]))
    phases = rng.uniform(-np.pi, np.pi, size) if turned else None
    state_bits = data.draw(st.sampled_from([8, 16, 24, 28, 32]))
    node = gated(size, phases, gate_exponent=e, state_bits=state_bits)
    frames = rng.choice([-32767, -1, 0, 1, 2, 100, 32767], (30, size * (1 + node.parts)))
    frames[10:20, :size] = rng.integers(0, 1 << min(e, 14), (10, size), endpoint=True)
    values, state = trace(program(node, 8 + shift), frames)
    expected = exact(node, shift, frames.tolist())
    h = state["y"].reshape(-1, size * node.parts)[0]
    assert h.tolist() == expected[-1]
    most = largest_integer(24)
    assert np.array_equal(values["y"], np.clip(expected, -most, most))


@pytest.mark.parametrize("phases", [None, PHASES])
def test_every_instruction_set(isa, phases):
    """Long enough for saturation, silence and gates of one; `trace` compares the native engine as well."""
    rng = np.random.default_rng(1)
    node = gated(37, phases, exponent=4, bits=16)
    frames = rng.integers(-32767, 32768, (300, node.size * (1 + node.parts)))
    frames[:, : node.size] = rng.choice([0, 1, 30, 2000, 32767], (300, node.size))
    frames[100:150, node.size :] = 0
    frames[150:200, node.size :] = 32767
    trace(program(node), frames)
    trace(program(gated(37, phases, state_bits=32, state_exponent=16)), frames)  # sums of 64 bits


def long_run(node: fixed.Gated, gates: np.ndarray, x: np.ndarray) -> np.ndarray:
    """h (T, N) or (T, 2 N) of integers, in the torch executor."""
    from lrnn.program.torch_executor import TorchExecutor

    frames = np.concatenate((gates, x), 1).astype(np.float32)
    with torch.inference_mode():
        values, _ = TorchExecutor(program(node)).trace(torch.from_numpy(frames)[None])
    return values["y"][0].numpy()


def test_100_000_frames_of_real_memories():
    """Gates from 1 / 32768 to one, noise and silence: less than a last bit off in every frame, no drift."""
    rng = np.random.default_rng(0)
    slow = np.array([1, 3, 10, 100, 1000, 32767])
    steps = 100_000
    gates = np.maximum(rng.poisson(slow, (steps, len(slow))), 0).clip(0, 32767)
    x = np.rint(rng.normal(3, 4000, (steps, len(slow)))).clip(-32767, 32767)
    x[30_000:60_000] = 0
    node = gated(len(slow))
    found = long_run(node, gates, x)
    h, errors = np.zeros(len(slow)), np.empty((steps, len(slow)))
    for t in range(steps):
        h += gates[t] / 32768 * (256 * x[t] - h)
        errors[t] = found[t] - h
    assert abs(errors).max() < 1
    assert abs(errors.mean(0)).max() < 0.5


def test_silence_is_reached():
    """The slowest gate there is brings any state to zero, from both sides: nothing sticks."""
    node = gated(2, gate_exponent=12)
    gates = np.full((60_000, 2), 4)
    x = np.zeros((60_000, 2))
    gates[0], x[0] = 4096, (300, -300)
    h = long_run(node, gates, x)
    assert h[0].tolist() == [300 * 256, -300 * 256]
    assert h[-1].tolist() == [0, 0]
    assert (np.diff(h[1:, 0]) <= 0).all()
    assert (np.diff(h[1:, 1]) >= 0).all()


def test_a_closed_gate_holds_what_it_has():
    node = gated(3)
    gates = np.zeros((5000, 3))
    gates[0] = 32767
    x = np.full((5000, 3), 1234)
    h = long_run(node, gates, x)
    assert (h == h[0]).all()


def test_100_000_frames_of_complex_memories():
    """Against float64 with the rotations that the integers are; the bound is that of the geometric sum."""
    rng = np.random.default_rng(0)
    steps, n = 100_000, len(PHASES)
    node = gated(phases=PHASES)
    d = np.ldexp(node.decay.astype(float), -node.decay_exponent.astype(int)[:, None])
    rotation = 1 - (d[:, 0] + 1j * d[:, 1])
    least = 33
    gates = rng.integers(least, 3000, (steps, n))
    x = np.rint(rng.normal(0, 3000, (steps, 2 * n))).clip(-32767, 32767)
    x[30_000:60_000] = 0
    found = long_run(node, gates, x).reshape(steps, n, 2) @ np.array([1, 1j])
    inputs = 256 * (x.reshape(steps, n, 2) @ np.array([1, 1j]))
    h, worst = np.zeros(n, complex), np.zeros(n)
    for t in range(steps):
        h = rotation * h
        h += gates[t] / 32768 * (inputs[t] - h)
        worst = np.maximum(worst, abs(found[t] - h))
    # In each frame the two rests, below one in each part, are off: turned, and as far as the gate is open.
    assert (worst <= np.sqrt(2) * (2 + abs(1 - rotation) * 32768 / least)).all()
    assert (worst < 200).all()  # of 2 ** 23: as noise they nearly cancel


def test_a_turning_state_does_not_grow():
    """A closed gate for 100,000 frames: a rotation is rounded to the inside."""
    node = gated(phases=PHASES)
    n = len(PHASES)
    gates, x = np.zeros((100_000, n)), np.zeros((100_000, 2 * n))
    gates[0], x[0] = 32767, 10_000
    h = long_run(node, gates, x).reshape(-1, n, 2).astype(float)
    radius = np.hypot(h[..., 0], h[..., 1])
    assert (radius <= radius[0] + 200).all()


@settings(deadline=None, max_examples=100)
@given(st.floats(-10, 10), st.sampled_from([4, 8, 16, 24]))
def test_a_rotation_stays_inside_the_circle(phase, bits):
    rotation = np.array([[np.cos(phase), np.sin(phase)]], np.float32)
    decay, exponent = rotation_integers(Gated("y", ("g", "x"), 1, rotation), bits)
    s = int(exponent[0])
    re, im = (1 << s) - int(decay[0, 0]), -int(decay[0, 1])
    assert re**2 + im**2 <= 1 << 2 * s
    most = 1.51 * 2.0**-s + 1.2e-7  # float32 may hold a rotation outside
    assert abs(re / 2**s - rotation[0, 0]) <= most
    assert abs(im / 2**s - rotation[0, 1]) <= most


def test_a_real_state_lies_between_the_last_and_the_new():
    rng = np.random.default_rng(3)
    node = gated(16, state_bits=24, state_exponent=8)
    gates, x = rng.integers(0, 32768, (2000, 16)), rng.choice([-32767, 0, 32767], (2000, 16))
    h = long_run(node, gates, x)
    before = np.concatenate((np.zeros((1, 16)), h[:-1]))
    assert (h >= np.minimum(before, 256 * x)).all()
    assert (h <= np.maximum(before, 256 * x)).all()


REFUSED = {
    "gate exponent": (lambda: gated(gate_exponent=31), "gate_exponent is 31, expected 0 to 30"),
    "state bits": (lambda: gated(state_bits=33), "state_bits is 33, expected 2 to 32"),
    "one of two": (
        lambda: gated(decay=ints([1, 0], dtype=np.int16)),
        "it has one of decay and decay_exponent, expected both or none",
    ),
    "growth": (
        lambda: gated(decay=ints([-1, 0], dtype=np.int16), decay_exponent=ints(15)),
        r"state 0 grows: \|1 - decay\| is above 1",
    ),
    "rows": (
        lambda: gated(2, decay=ints([1, 0], dtype=np.int16), decay_exponent=ints(15)),
        "rows of decay is 1, expected 2",
    ),
    "other gate": (
        lambda: _read(gated(gate_exponent=14), gate_exponent=15),
        "exponent of the gate is 15, expected 14",
    ),
    "width": (lambda: _read(gated(2)), "width of the gate is 1, expected 2"),
    "pairs": (lambda: _read(gated(phases=np.ones(1))), "second input's width is 1, expected 2"),
    "overflow": (
        lambda: program(gated(gate_exponent=30, state_bits=32, state_exponent=40)),
        r"the sum of row 0 could reach \d+, expected less than 2 \*\* 63",
    ),
}


def _read(node: fixed.Gated, gate_exponent: int = 15) -> Program:
    ends = (
        fixed.Quantize("g", ("in",), exponent=gate_exponent, bits=16),
        fixed.Quantize("x", ("in",), exponent=0, bits=16),
    )
    return Program("in", 1, (*ends, node, fixed.Dequantize("out", ("y",))), "out")


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_by_name(case):
    make, message = REFUSED[case]
    with pytest.raises(ValueError, match=rf"^node 'y' \(fixed_gated\): {message}"):
        make()


def test_states_are_kept_and_given_back():
    node = gated(phases=PHASES)
    rng = np.random.default_rng(2)
    frames = rng.integers(0, 20_000, (40, 3 * len(PHASES))).astype(np.float32)
    engines = ("numpy", "torch", "native") if HAS_CORE else ("numpy", "torch")
    made = program(node)
    for i, engine in enumerate(engines):
        stream = made.stream(engine)
        whole = stream.run(frames)
        stream.reset()
        stream.run(frames[:13])
        kept = stream.state
        assert kept["y"].dtype == np.int32
        other = made.stream(engines[i - 1])
        other.state = kept
        assert np.array_equal(other.run(frames[13:]), whole[13:])
        kept["y"][-1] = 1 << 15
        with pytest.raises(ValueError, match=r"state\['y'\]\[41\] is 32768, expected 0 to 32767"):
            other.state = kept


def test_a_rotation_without_a_form_is_refused():
    with pytest.raises(ValueError, match=r"^\|rotation\| of state 1 is 0\.5, expected 1$"):
        quantize_rotation(np.array([1, 0.5j]), 16)
    with pytest.raises(ValueError, match=r"^3 bits do not hold 1 - rotation, whose parts reach 2$"):
        quantize_rotation(np.array([1, -1 + 0j]), 3)
    assert quantize_rotation(np.array([1, -1 + 0j]), 4)[0].tolist() == [[0, 0], [4, 0]]
