"""A program that rounds: the same as the model that was prepared, on the grids, and what row scales gain."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import lrnn
from lrnn.models import DENOISER_FLOAT
from lrnn.program import compile_fixed
from lrnn.program.calibrate import calibrate
from lrnn.program.rounded import rounded
from lrnn.program.torch_executor import TorchExecutor
from lrnn.quant import Scheme, dequantize, get_scheme, prepare, quantize_weight, set_ranges
from lrnn.quant.tap import passing

SIZES = {"d_in": 6, "d_out": 4, "d_model": 12, "d_state": 16, "blocks": 2, "n_layers": 2}


def network(**options) -> lrnn.SequenceModel:
    torch.manual_seed(0)
    model = lrnn.SequenceModel(lrnn.SequenceModelConfig(**{**SIZES, "relu": "parts", **options}))
    for _ in range(4):
        model(torch.randn(3, 20, 6))
    return model.eval()


MODELS = [
    {},
    {"relu": "none", "glu": "full"},
    {"norm": "layer", "glu": "half2"},
    {"prenorm": False},
    {"prenorm": False, "relu": "none"},
    {"glu": "none", "relu": "pair"},
]


def test_the_matrices_of_an_s5_have_their_own_widths():
    """The same for integers and for what rounds like them."""
    program, scheme = lrnn.compile(network()), Scheme("own", b_bits=4, c_bits=5, weight_bits=6)
    x = torch.randn(1, 50, 6, generator=torch.Generator().manual_seed(1))
    made = {n.name: n for n in compile_fixed(program, calibrate(program, [x]), scheme).nodes}
    checked = 0
    for node, whole in zip(rounded(program, scheme).nodes, program.nodes, strict=True):
        if whole.op == "linear":
            bits = {"B": 4, "C": 5}.get(node.name.rpartition(".")[2], 6)
            assert np.array_equal(node.weight, dequantize(*quantize_weight(whole.weight, bits)))
            integers = made[node.name]
            assert np.array_equal(dequantize(integers.weight, integers.weight_exponent), node.weight)
            checked += 1
    assert checked == 8


@pytest.mark.parametrize("scheme", ["w8a8", "w4a8", "w2a8", "fp8"])
@pytest.mark.parametrize("options", MODELS, ids=str)
def test_weights_are_rounded_as_in_a_prepared_model(options, scheme):
    """A bias that a folded norm adds is that of the rounded matrix there, and of the exact one here."""
    model = network(**options)
    x = torch.randn(2, 30, 6)
    plain = model(x)[0]
    expected = rounded(lrnn.compile(model), scheme)
    prepare(model, scheme)
    program = lrnn.compile(model)
    for node, other in zip(program.nodes, expected.nodes, strict=True):
        for field in ("weight", "scale", "a"):
            if hasattr(node, field):
                want = getattr(other, field)
                np.testing.assert_allclose(getattr(node, field), want, rtol=0, atol=2e-6 * abs(want).max())
    with passing(model):
        got = model(x)[0]
    assert (got - plain).abs().mean() > 1e-3
    torch.testing.assert_close(TorchExecutor(rounded(program, scheme))(x)[0], got, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("options", MODELS, ids=str)
def test_activations_are_rounded_as_in_a_prepared_model(options):
    """Weights of 16 bits: sums of few bits often lie half way between two numbers, and float32 decides."""
    scheme = replace(get_scheme("w16a16"), activation_bits=8)
    model = network(**options)
    program, x = lrnn.compile(model), torch.randn(2, 30, 6)
    ranges = calibrate(program, [x])
    expected = TorchExecutor(rounded(program, scheme, ranges))(x)[0]
    cost = (expected - model(x)[0]).abs().mean()
    prepare(model, scheme)
    set_ranges(model, ranges)
    assert cost > 1e-3
    assert (model(x)[0] - expected).abs().mean() < 0.05 * cost


def test_weights_and_activations_lie_on_their_grids():
    program, x = lrnn.compile(network()), torch.randn(2, 30, 6)
    made = rounded(program, "w4a8", calibrate(program, [x]))
    before = {node.name: node for node in program.nodes}
    for node in made.nodes:
        if node.op == "linear":
            grid = dequantize(*quantize_weight(before[node.name].weight, 4))
            np.testing.assert_array_equal(node.weight, grid)
    values, _ = TorchExecutor(made).trace(x)
    rounds = [node for node in made.nodes if node.op == "round"]
    assert {"input", "relu", "blocks.0.ssm.relu", "blocks.1.sigmoid"} <= {n.inputs[0] for n in rounds}
    for node in rounds:
        integers = values[node.name] * 2.0**node.exponent
        assert torch.equal(integers, integers.round())
        assert integers.abs().max() <= 128
    assert "blocks.0.gate" not in {n.inputs[0] for n in rounds}  # only a sum reads it
    weights_only = rounded(program, "w4a8")
    assert [n.name for n in weights_only.nodes] == [n.name for n in program.nodes]


def test_a_silent_value_is_named():
    program = lrnn.compile(network())
    with pytest.raises(ValueError, match="value 'input' is zero on all calibration data"):
        rounded(program, "w8a8", calibrate(program, [np.zeros((3, 6))]))


def losses(weight: np.ndarray, x: np.ndarray, bits: int, scale: str) -> tuple[float, float]:
    """Share of the nonzero weights that round to zero, and 10 log10 of signal over error of weight @ x."""
    integers, exponents = quantize_weight(weight, bits, scale)
    y = x @ weight.T.astype(np.float64)
    error = x @ dequantize(integers, exponents).T - y
    lost = ((integers == 0) & (weight != 0)).sum() / (weight != 0).sum()
    return lost, 10 * np.log10(np.square(y).sum() / np.square(error).sum())


def test_a_row_scale_saves_the_slow_states_of_the_shipped_denoiser():
    """The paper's 8 bits per tensor against 8 bits per row, on B_bar: rows scale with their time step."""
    program = lrnn.load(DENOISER_FLOAT)
    rng = np.random.default_rng(0)
    x = np.maximum(rng.standard_normal((1000, 192)), 0)
    for i in range(3):
        weight = next(n.weight for n in program.nodes if n.name == f"blocks.{i}.ssm.B")
        by_row, by_tensor = (losses(weight, x, 8, scale) for scale in ("row", "tensor"))
        assert by_row[0] < 0.19
        assert by_tensor[0] > 2 * by_row[0]
        assert by_row[1] > by_tensor[1] + 4


def test_schemes_differ_only_by_their_scale():
    program = lrnn.compile(network())
    tensor = replace(get_scheme("w4a8"), weight_scale="tensor")
    assert isinstance(tensor, Scheme)
    a, b = (rounded(program, scheme) for scheme in ("w4a8", tensor))
    assert any(
        (x.weight != y.weight).any() for x, y in zip(a.nodes, b.nodes, strict=True) if x.op == "linear"
    )
    assert all((x.scale == y.scale).all() for x, y in zip(a.nodes, b.nodes, strict=True) if x.op == "affine")
