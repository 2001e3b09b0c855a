"""Fake quantisation: gradients by rule, zeros that stay, the integers of the program, modules of others."""

from __future__ import annotations

import copy
from itertools import product

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

import lrnn
from lrnn.program.calibrate import calibrate, messages, recurrences
from lrnn.prune import Pruner
from lrnn.quant import (
    Range,
    Ranges,
    Scheme,
    calibrate_model,
    calibrated,
    convert,
    dequantize,
    fake_round,
    is_prepared,
    prepare,
    quantize_decay,
    quantize_weight,
    set_ranges,
    strip,
)
from lrnn.quant.fake import Grid
from lrnn.quant.tap import taps

SIZES = {"d_in": 6, "d_out": 4, "d_model": 12, "d_state": 16, "blocks": 2, "n_layers": 2}


def network(**options) -> lrnn.SequenceModel:
    """With norms that have seen data."""
    torch.manual_seed(0)
    model = lrnn.SequenceModel(lrnn.SequenceModelConfig(**{**SIZES, "relu": "parts", **options}))
    for x in clips():
        model(x)
    return model


def clips() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(3, 20, 6, generator=generator) for _ in range(4)]


def quantized(scheme="w8a8", **options) -> lrnn.SequenceModel:
    model = network(**options)
    prepare(model, scheme)
    calibrate_model(model, clips())
    return model


# Rounding


@pytest.mark.parametrize(
    ("rounding", "expected"),
    [
        ("nearest_even", [0.0, 0.5, 1.0, -0.5, 1.5, -1.5]),
        ("nearest_up", [0.5, 0.5, 1.0, -0.5, 1.5, -1.5]),
        ("floor", [0.0, 0.5, 1.0, -1.0, 1.5, -1.5]),
    ],
)
def test_values_and_gradients_follow_the_rule(rounding, expected):
    """3 bits at 2 ** -1: integers -3 to 3. The gradient is that of a clamp: 0 where it saturates."""
    x = torch.tensor([0.25, 0.5, 1.1, -0.6, 2.4, -9.0], requires_grad=True)
    y = fake_round(x, 1, 3, rounding)
    assert y.tolist() == expected
    weights = torch.arange(1.0, 7.0)
    (y * weights).sum().backward()
    assert x.grad.tolist() == [1.0, 2.0, 3.0, 4.0, 0.0, 0.0]


@pytest.mark.parametrize("scale", ["row", "tensor"])
@pytest.mark.parametrize("bits", [2, 4, 8, 16])
def test_a_grid_gives_the_integers_of_quantize_weight(bits, scale):
    matrix = torch.randn(7, 9) * torch.logspace(-3, 0, 7)[:, None]
    matrix[3] = 0.0
    matrix.requires_grad_()
    rounded = Grid(bits, scale)(matrix)
    expected = dequantize(*quantize_weight(matrix, bits, scale))
    np.testing.assert_array_equal(rounded.detach().double().numpy(), expected)
    gradient = torch.randn(7, 9)
    rounded.backward(gradient)
    assert torch.equal(matrix.grad, gradient)


def test_e4m3_rounds_to_the_nearest_of_the_format():
    torch.manual_seed(0)
    matrix = torch.randn(5, 300) * torch.tensor([1e-4, 1.0, 3.0, 448.0, 1e5])[:, None]
    matrix[0, 0] = 0.0
    rounded = Grid(None, "row")(matrix)
    codes = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn).float()
    codes = codes[codes.isfinite()]
    for row, got in zip(matrix, rounded, strict=True):
        step = 2.0 ** -np.floor(np.log2(448 / row.abs().max().item()))
        nearest = (codes[None] - row[:, None] / step).abs().min(1).values
        assert torch.equal((got / step - row / step).abs(), nearest)
        assert torch.isin(got / step, codes).all()
    assert rounded[0, 0] == 0
    assert torch.equal(Grid(None, "row")(rounded), rounded)


# lambda_bar


def test_a_rounded_decay_is_near_and_below_one():
    torch.manual_seed(0)
    radius, angle = 1 - torch.logspace(-4, -0.5, 200).double(), torch.randn(200).double()
    lambda_bar = torch.polar(radius, angle * 10 * (1 - radius))
    for bits in (6, 8, 16):
        integers, exponents = quantize_decay(lambda_bar, bits)
        decay = np.ldexp(integers.astype(float), -exponents[:, None])
        rounded = torch.complex(*(torch.from_numpy(part) for part in (1 - decay[:, 0], -decay[:, 1])))
        assert (rounded.abs() < 1).all()
        assert abs(integers).max() < 2 ** (bits - 1)
        far = (rounded - lambda_bar).abs() / (1 - lambda_bar).abs()
        assert far.max() < 2.0 ** (3 - bits)
    assert quantize_decay(torch.tensor([0.5 + 0j]), 8)[0].tolist() == [[64, 0]]


def test_a_decay_without_a_form_is_refused():
    with pytest.raises(ValueError, match=r"\|lambda_bar\| of state 1 is 1, expected less than 1"):
        quantize_decay(torch.tensor([0.5 + 0j, 1j]), 8)


@pytest.mark.parametrize("discretization", ["zoh", "bilinear"])
def test_the_lambda_bar_that_runs_is_rounded(discretization):
    torch.manual_seed(0)
    ssm = lrnn.S5(12, 64, 4, options=lrnn.S5Options(discretization=discretization))
    before = ssm.discretize()[0].detach()
    expected = quantize_decay(before, 8)
    prepare(ssm, Scheme("a8", a_bits=8))
    after = ssm.discretize()[0]
    got = quantize_decay(after, 8)
    assert not torch.allclose(before, after, atol=1e-4, rtol=0)
    np.testing.assert_array_equal(got[0], expected[0])
    np.testing.assert_array_equal(got[1], expected[1])
    decay = np.ldexp(got[0].astype(float), -got[1][:, None])
    assert np.abs(1 - after.detach().numpy() - decay @ [1, 1j]).max() < 1e-6
    after.abs().sum().backward()
    gradient = ssm.parametrizations.Lambda_re.original.grad
    ssm2 = lrnn.S5(12, 64, 4, options=lrnn.S5Options(discretization=discretization))
    assert (gradient != 0).all()
    assert ssm2.Lambda_re.shape == gradient.shape


# B_bar, C, D and the whole model


def test_b_bar_of_a_folded_norm_is_on_its_grid_and_its_gradient_is_that_of_float():
    model = network()
    block = model.blocks[0]
    scale = block.norm.scale_shift()[0].detach()
    plain = (block.ssm.input_matrix(block.ssm.discretize()[1]) * scale).detach()
    B, upstream = block.ssm.B, torch.randn(16, 12)
    (expected,) = torch.autograd.grad((block.ssm.input_matrix(block.ssm.discretize()[1]) * upstream).sum(), B)
    prepare(model, Scheme("w4", b_bits=4, a_bits=24))
    gain = block.ssm.discretize()[1]
    matrix = block.ssm.input_matrix(gain)
    on_grid = dequantize(*quantize_weight(plain, 4))
    np.testing.assert_allclose(
        (matrix * scale).detach().numpy(), on_grid, rtol=0, atol=2e-6 * abs(on_grid).max()
    )
    assert abs(plain.numpy() - on_grid).max() > 0.01 * abs(on_grid).max()
    (gradient,) = torch.autograd.grad((matrix * upstream).sum(), B)
    torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-6)


def test_a_column_that_the_norm_silences_breaks_nothing():
    model = network()
    with torch.no_grad():
        model.blocks[0].norm.weight[3] = 0.0
    prepare(model)
    calibrate_model(model, clips())
    y, _ = model(clips()[0])
    y.sum().backward()
    assert torch.isfinite(y).all()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


MODELS = [
    {"relu": relu, "glu": glu, "norm": norm, "prenorm": prenorm}
    for relu, glu, norm, prenorm in product(
        ("parts", "none"), ("half1", "half2", "full", "none"), ("batch", "layer"), (True, False)
    )
] + [
    {"relu": "pair"},
    {"head": "classification"},
    {"head": "classification", "pooling": "last"},
    {"input_exponent": 6},
]


@pytest.mark.parametrize("options", MODELS, ids=lambda options: "-".join(map(str, options.values())))
def test_the_model_and_its_program_agree(options):
    """Where values are rounded, their ranges, the integers of the weights, before and after converting."""
    model = quantized(**options)
    program = lrnn.compile(model)
    readers = {v: [n.op for n in program.nodes if v in n.inputs] for v in program.widths}
    wide = ("relu", "pair_relu", "add", "diagonal", "round", "log_softmax")
    expected = {v for v in messages(program) if any(op not in wide for op in readers[v])}
    found = calibrated(model)
    assert set(found.values) == (expected | recurrences(program)) - {"pool"}
    ranges = calibrate(program, clips())
    for name, value in found.values.items():
        assert value.max_abs == pytest.approx(ranges[name].max_abs, rel=1e-4)
        assert value.count == ranges[name].count
    kept = calibrate(program, clips()[:1], known=found)
    assert all(kept[name] == value for name, value in found.values.items())

    integers = {n.name: quantize_weight(n.weight, 8) for n in program.nodes if n.op == "linear"}
    diagonal = {n.name: quantize_weight(n.scale, 8) for n in program.nodes if n.op == "affine"}
    convert(model)
    assert not is_prepared(model)
    assert not any("parametrizations" in key or "quantize" in key for key in model.state_dict())
    for node in lrnn.compile(model).nodes:
        if node.op == "linear":
            again = quantize_weight(node.weight, 8)
            np.testing.assert_array_equal(again[0], integers[node.name][0])
            np.testing.assert_array_equal(again[1], integers[node.name][1])
            grid = dequantize(*again)
            assert abs(grid - node.weight).max() <= 1e-6 * abs(grid).max()
        if node.op == "affine":
            np.testing.assert_array_equal(quantize_weight(node.scale, 8)[0], diagonal[node.name][0])


def test_in_evaluation_a_rounded_model_equals_its_converted_self_with_rounded_activations():
    model = quantized().eval()
    twin = copy.deepcopy(model)
    ranges = calibrated(model)
    x = clips()[0]
    y = model(x)[0]
    assert torch.equal(twin(x)[0], y)
    convert(twin)
    assert torch.equal(model(x)[0], y)  # nothing is shared
    prepare(twin, "w16a16")
    set_ranges(twin, ranges)
    assert (twin(x)[0] - y).abs().max() < 0.5 * y.abs().max()


def test_strip_gives_the_float_model_back():
    model = network()
    state = {k: v.clone() for k, v in model.state_dict().items()}
    x = clips()[0]
    y = model.eval()(x)[0]
    prepare(model, "w2a8")
    calibrate_model(model, clips())
    assert not torch.equal(model(x)[0], y)
    assert model.blocks[0].norm.frozen
    strip(model)
    assert torch.equal(model(x)[0], y)
    assert not model.blocks[0].norm.frozen
    assert model.state_dict().keys() == state.keys()
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize("scheme", ["w8a16", "w2a8", "loihi2", "fp8"])
def test_training_learns_and_zeros_stay_zeros(scheme):
    model = network()
    pruner = Pruner(model, 0.8).attach()
    pruner.step(0)
    prepare(model, scheme)
    calibrate_model(model, clips())
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    target = [x.roll(1, 1)[..., :4] for x in clips()]
    losses = []
    for step in range(30):
        optimizer.zero_grad()
        loss = (model(clips()[step % 4])[0] - target[step % 4]).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-4:]) < 0.9 * sum(losses[:4])
    for module in model.modules():
        if parametrize.is_parametrized(module):
            for name, stack in module.parametrizations.items():
                if hasattr(stack[0], "mask"):
                    kept = stack[0].mask.expand_as(getattr(module, name))
                    assert (~kept).any()
                    assert (getattr(module, name)[~kept] == 0).all()
                    assert (stack.original[~kept] != 0).any()  # the shadow lives on
    assert pruner.total_sparsity() >= 0.79
    convert(model)
    pruner.finalize()
    program = lrnn.compile(model)
    dense = lrnn.compile(network())
    kept, whole = (sum((n.weight != 0).sum() for n in p.nodes if n.op == "linear") for p in (program, dense))
    assert kept < 0.25 * whole


def test_the_state_is_bounded_and_not_rounded():
    model = quantized("w8a8").eval()
    ssm = model.blocks[0].ssm
    tap = ssm.state_relu.quantize_input
    bound = tap._grid[1]
    parts = torch.tensor([[[[0.123456, -3 * bound]]]], requires_grad=True)
    y = tap(parts)
    assert y.flatten().tolist() == [parts[0, 0, 0, 0].item(), -bound]
    y.sum().backward()
    assert parts.grad.flatten().tolist() == [1.0, 0.0]


def test_narrow_messages_are_as_fine_as_their_bits():
    scheme = Scheme("narrow", activation_bits=12, message_bits=5)
    model = network()
    prepare(model, scheme)
    calibrate_model(model, clips())
    seen = []
    model.blocks[0].out2.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    model.eval()(clips()[0])
    (x,) = seen
    assert len(x.unique()) <= 16  # what follows a ReLU has no sign
    exponent = model.blocks[0].activation.quantize_output._grid[0] - 7
    assert torch.equal((x * 2.0**exponent).round(), x * 2.0**exponent)


# Refusals and modules of others


def test_what_was_not_calibrated_does_not_run():
    model = network()
    prepare(model)
    with pytest.raises(RuntimeError, match="value 'input' was not calibrated"):
        model(clips()[0])
    with pytest.raises(ValueError, match=r"value '.*' was not calibrated"):
        calibrated(model)
    with pytest.raises(ValueError, match="inputs is empty"):
        calibrate_model(model, [])
    with pytest.raises(ValueError, match="value 'input' has NaN or infinite numbers"):
        calibrate_model(model, [torch.full((1, 3, 6), torch.nan)])
    with pytest.raises(RuntimeError, match="was not calibrated"):
        model(clips()[0])
    with pytest.raises(KeyError, match="value 'input' was not calibrated"):
        set_ranges(model, Ranges({"x": Range(1.0, 0.0, 1.0, 1)}, "minmax", 1))


def test_a_silent_value_is_named():
    model = network()
    prepare(model)
    with pytest.raises(ValueError, match="value 'input' is zero on all calibration data"):
        calibrate_model(model, [torch.zeros(1, 3, 6)])


def test_twice_prepared_is_refused():
    model = quantized()
    with pytest.raises(ValueError, match="model is prepared already"):
        prepare(model)
    with pytest.raises(ValueError, match="model is not prepared"):
        calibrate_model(network(), clips())


class Foreign(nn.Module):
    """Linear layers, a norm and an LSTM."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.LayerNorm(8), nn.Linear(8, 5))
        self.lstm = nn.LSTM(5, 4, batch_first=True)

    def forward(self, x):
        return self.lstm(self.body(x))[0]


def test_linear_layers_of_any_model_and_an_lstm_left_alone():
    torch.manual_seed(0)
    model = Foreign()
    with pytest.raises(
        ValueError, match=r"lstm\.weight_ih_l0 belongs to a LSTM, which has no quantised form"
    ):
        prepare(model)
    assert not is_prepared(model)
    with pytest.raises(ValueError, match="exclude has the pattern 'gru', which matches no parameter"):
        prepare(model, exclude=["gru"])
    prepare(model, "w4a8", exclude=["lstm"])
    ranges = calibrate_model(model, clips())
    assert list(ranges.values) == ["body.0.input", "body.3.input"]
    assert ranges.clips == 12
    assert ranges["body.0.input"].max_abs == max(x.abs().max().item() for x in clips())
    weight = model.body[0].weight.detach()
    np.testing.assert_array_equal(weight.double(), dequantize(*quantize_weight(weight, 4)))
    assert not parametrize.is_parametrized(model.lstm)
    model(clips()[0]).sum().backward()
    assert model.body[0].parametrizations.weight.original.grad is not None


def test_an_excluded_part_stays_in_float():
    model = network()
    prepare(model, exclude=["decoder", "blocks.0.ssm.Lambda_*"])
    assert not parametrize.is_parametrized(model.decoder)
    assert set(model.blocks[0].ssm.parametrizations) == {"B", "C", "D"}
    assert not list(taps(model.decoder))


def test_a_state_dict_goes_into_a_prepared_twin(tmp_path):
    model = quantized().eval()
    torch.save(model.state_dict(), tmp_path / "state")
    twin = network()
    prepare(twin, "w8a8")
    twin.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
    assert calibrated(twin) == calibrated(model)
    assert torch.equal(twin.eval()(clips()[0])[0], model(clips()[0])[0])
