"""The integer recurrence against float64: slow states neither drift nor stick, however long they run."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fixed_cases import between, trace
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lrnn.program import nodes
from lrnn.program.fixed import nodes as fixed
from lrnn.program.fixed.torch_nodes import states
from lrnn.program.fixed.weights import decay_integers
from lrnn.program.torch_executor import TorchExecutor

# exp(dt (-1/2 + i w)) with dt = 1e-3, as in an S5 at its slowest, and poles at the edges.
SLOW = np.exp(1e-3 * (-0.5 + 1j * np.array([0, 1, 10, 100, 300])))
POLES = np.concatenate((SLOW, [np.exp(-1e-5), -0.9999, 0.9999j, 0.3 + 0.3j, 0, -0.99j]))


def recurrence(poles: np.ndarray, **changes) -> fixed.Diagonal:
    a = np.stack((poles.real, poles.imag), 1).astype(np.float32)
    decay, exponents = decay_integers(nodes.Diagonal("y", ("x",), a), 16)
    values = {"state_exponent": 0, "state_bits": 24, "exponent": 0, "bits": 24, **changes}
    return fixed.Diagonal("y", ("x",), decay=decay, decay_exponent=exponents, **values)


def held(node: fixed.Diagonal) -> np.ndarray:
    """The lambda that the integers are, exactly, in complex float64."""
    d = np.ldexp(node.decay.astype(float), -node.decay_exponent.astype(int)[:, None])
    return 1 - (d[:, 0] + 1j * d[:, 1])


def pairs(x: np.ndarray) -> np.ndarray:
    """Complex (T, P) as (T, 2 P)."""
    return np.stack((x.real, x.imag), -1).reshape(len(x), -1)


def float64(a: np.ndarray, x: np.ndarray) -> np.ndarray:
    """h = a h + x, complex (T, P), both parts within 24 bits."""
    h, out, most = np.zeros(len(a), complex), np.empty(x.shape, complex), 2.0**23 - 1
    for t, frame in enumerate(x):
        h = a * h + frame
        h.real.clip(-most, most, out=h.real)
        h.imag.clip(-most, most, out=h.imag)
        out[t] = h
    return out


def run(node: fixed.Diagonal, x: np.ndarray) -> np.ndarray:
    """h in the units of its last bit, complex (T, P), of integers x."""
    state = torch.zeros(1, node.state_width, dtype=torch.int32)
    w = {"decay": torch.tensor(node.decay), "decay_exponent": torch.tensor(node.decay_exponent)}
    form = between(node, x_bits=24, width=x.shape[1] * 2).formats["x"]
    h, _ = states(node, [form], torch.float64, w, torch.from_numpy(pairs(x).astype(np.int64))[None], state)
    return h[0].numpy().reshape(len(x), -1, 2) @ np.array([1, 1j])


def most_error(a: np.ndarray) -> np.ndarray:
    """What is kept for the next frame, below one bit in each part, is all that is ever off."""
    return np.sqrt(2) * (1 + abs(1 - a) / (1 - abs(a)))


@settings(deadline=None, max_examples=200)
@given(st.floats(0, 1 - 1e-7), st.floats(0, 2 * np.pi), st.sampled_from([4, 8, 16, 24]))
@example(1 - 6e-8, 0, 16)
@example(1 - 6e-8, np.pi / 2, 16)
@example(1 - 6e-8, np.pi, 16)
@example(1 - 6e-8, np.pi, 4)
@example(1 - 6e-8, 3 * np.pi / 2, 4)
@example(1 - 6e-8, 1e-4, 8)
def test_lambda_stays_inside_the_circle(radius, angle, bits):
    a = np.array([[radius * np.cos(angle), radius * np.sin(angle)]], np.float32)
    if np.hypot(*a[0].astype(float)) >= 1:
        return
    decay, exponent = decay_integers(nodes.Diagonal("y", ("x",), a), bits)
    s = int(exponent[0])
    re, im = ((1 << s) - int(decay[0, 0])), -int(decay[0, 1])
    assert re**2 + im**2 < 1 << 2 * s
    assert abs(re / 2**s - a[0, 0]) <= 1.51 * 2.0**-s
    assert abs(im / 2**s - a[0, 1]) <= 1.51 * 2.0**-s
    assert abs(decay.astype(int)).max() < 1 << (bits - 1)


def test_a_pole_outside_is_refused_by_name():
    a = np.array([[0.5, 0], [0.8, 0.8]], np.float32)
    with pytest.raises(ValueError, match=r"node 'y' \(diagonal\): \|lambda\| of state 1 is 1\.131"):
        decay_integers(nodes.Diagonal("y", ("x",), a), 16)


def test_slow_poles_keep_their_distance_from_one():
    """1 - lambda is held to its own last bits: at dt = 1e-3 the time constant is off by 1e-3 at most."""
    a = held(recurrence(SLOW[:2]))
    np.testing.assert_allclose(1 - a, 1 - SLOW[:2], rtol=1e-4)
    np.testing.assert_allclose(np.log(abs(a)), np.log(abs(SLOW[:2])), rtol=1e-3)


def test_an_impulse_rings_and_dies():
    node, a = recurrence(POLES), held(recurrence(POLES))
    x = np.zeros((60_000, len(POLES)), complex)
    x[0] = 3_000_000 - 2_000_000j
    h = run(node, x)
    assert (abs(h - float64(a, x)) <= most_error(a)).all()
    assert h[-1, 0] == 0  # a rounded product would stick at 1 / (2 * 5e-4) = 1000


@pytest.mark.parametrize("size", [1, 3, -7, 1000])
def test_a_step_of_single_bits_reaches_its_height(size):
    """The slowest state grows to 2000 times its input even where that is the last bit."""
    node, a = recurrence(SLOW), held(recurrence(SLOW))
    x = np.full((40_000, len(SLOW)), size + 0j)
    h = run(node, x)
    assert (abs(h - float64(a, x)) <= most_error(a)).all()
    assert abs(h[-1, 0] - size / (1 - a[0])) < 2


def test_100_000_frames_of_noise_and_silence():
    """Off by less than the bound at every frame, without bias, in both executors the same integers."""
    node, a = recurrence(POLES), held(recurrence(POLES))
    rng = np.random.default_rng(0)
    noise = np.rint(rng.normal(0, 40, (100_000, len(POLES), 2)) @ np.array([1, 1j]) + 0.3)
    noise[20_000:40_000] = 0
    noise[60_000:] = 0
    program = between(node, 0, 24, 2 * len(POLES))
    frames = pairs(noise).astype(np.float32)
    values, _ = trace(program, frames)
    h = values["y"].reshape(len(noise), -1, 2) @ np.array([1, 1j])
    expected = float64(a, noise)
    assert abs(expected).max() < 2**22  # no saturation here
    error = h - expected
    assert (abs(error) <= most_error(a)).all()
    assert abs(error[:20_000].mean(0)[:2]).max() < 1  # no drift
    assert h[-1, 0] == 0  # no sticking


def test_a_saturated_state_comes_back():
    """At the rails for long, and then as from any other state: nothing wraps."""
    node = recurrence(POLES)
    most = 2**23 - 1
    x = np.full((6000, len(POLES)), 8_000_000 * (1 + 1j))
    x[3000:] = 0
    h = run(node, x)
    assert abs(h.real).max() <= most
    assert abs(h.imag).max() <= most
    assert h[:3000, 0].real.max() == most
    a = held(node)
    silent = float64(a, np.concatenate((h[2999:3000], x[3000:])))
    assert (abs(h[2999:] - silent) <= np.sqrt(2) / (1 - abs(a))).all()


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["nearest_even", "nearest_up", "floor"]), st.data())
def test_executors_agree_on_any_shifts_and_extremes(seed, rounding, data):
    rng = np.random.default_rng(seed)
    radius, angle = 1 - 10 ** rng.uniform(-6, 0, 5), rng.uniform(-np.pi, np.pi, 5)
    shift, up = data.draw(st.integers(-8, 8)), data.draw(st.integers(-3, 12))
    node = recurrence(
        radius * np.exp(1j * angle), state_exponent=4, exponent=4 - up, bits=16, rounding=rounding
    )
    x = rng.choice([-32767, -1, 0, 1, 32767], (40, 10)) * rng.choice([1, 0.01], (40, 1))
    trace(between(node, 4 + shift, 16, 10), np.ldexp(np.rint(x), -4 - shift))


def test_a_state_can_be_kept_and_given_back():
    program = between(recurrence(POLES), 0, 16, 2 * len(POLES))
    x = np.random.default_rng(1).integers(-300, 300, (30, 2 * len(POLES))).astype(np.float32)
    for engine in ("numpy", "torch"):
        stream = program.stream(engine)
        whole = stream.run(x)
        stream.reset()
        stream.run(x[:11])
        kept = stream.state
        assert kept["y"].dtype == np.int32
        other = program.stream("torch" if engine == "numpy" else "numpy")
        other.state = kept
        assert np.array_equal(other.run(x[11:]), whole[11:])
        kept["y"][-1] = 1 << 29
        with pytest.raises(ValueError, match=r"state\['y'\]\[43\] is 536870912, expected 0 to 16383"):
            other.state = kept
        with pytest.raises(TypeError, match=r"state\['y'\] holds float64, expected int32"):
            other.state = {"y": np.zeros(4 * len(POLES))}


def test_float_states_of_the_batched_executor_are_refused_by_shape():
    executor = TorchExecutor(between(recurrence(SLOW), 0, 16, 10))
    with pytest.raises(ValueError, match=r"state\['y'\] is \(1, 10\), expected \(1, 20\)"):
        executor(torch.zeros(1, 2, 10), {"y": torch.zeros(1, 10)})
