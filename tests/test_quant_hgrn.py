"""Quantised training of HGRNs: rounded as their fixed-point programs round, bounds and rotations included."""

from __future__ import annotations

import copy
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from test_fixed_hgrn import CASES, KINDS, stack
from test_fixed_program import INTEGER_SCHEMES, sqnr
from torch import nn
from torch.nn.utils import parametrize

import lrnn
from lrnn.nn import (
    HGRN,
    HGRNBlock,
    HGRNBlockConfig,
    HGRNStack,
    LanguageModel,
    LanguageModelConfig,
    S5BlockConfig,
)
from lrnn.program import calibrate, compile_fixed
from lrnn.program import nodes as op
from lrnn.program.calibrate import messages, recurrences
from lrnn.program.rounded import rounded
from lrnn.program.torch_executor import TorchExecutor
from lrnn.prune import Pruner
from lrnn.quant import (
    calibrate_model,
    calibrated,
    convert,
    get_scheme,
    is_prepared,
    prepare,
    quantize_rotation,
    quantize_weight,
    set_ranges,
    strip,
)
from lrnn.quant.tap import named_taps, passing


def clips(width: int = 12) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(3, 30, width, generator=generator) for _ in range(3)]


def token_rows(vocabulary: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(vocabulary, (3, 30), generator=generator) for _ in range(3)]


def quantized(scheme: str, kind: str = "real", relu: str = "none", **options) -> HGRNStack:
    model = stack(kind, relu, **options)
    prepare(model, scheme)
    calibrate_model(model, clips())
    return model


def language(block, tied: bool = False) -> LanguageModel:
    torch.manual_seed(0)
    config = LanguageModelConfig(vocabulary=19, n_layers=2, block=block, tied=tied)
    return LanguageModel(config).eval()


LANGUAGE = {
    "hgrn": lambda: language(HGRNBlockConfig(d_model=12, d_state=9, d_hidden=15)),
    "hgrn tied": lambda: language(HGRNBlockConfig(d_model=12, d_state=9, d_hidden=15, relu="all"), tied=True),
    "s5 layer tied": lambda: language(
        S5BlockConfig(d_model=12, d_state=16, blocks=2, norm="layer"), tied=True
    ),
    "s5 batch": lambda: language(S5BlockConfig(d_model=12, d_state=16, blocks=2, relu="none")),
}


def rounded_values(program: lrnn.Program) -> set[str]:
    """Values of few bits: messages that more than sums and states read, states, what a table writes there."""
    wide = (op.Relu, op.PairRelu, op.Add, op.Diagonal, op.LogSoftmax)
    readers = {v: [n for n in program.nodes if v in n.inputs] for v in program.widths}
    kinds = {n.name: n for n in program.nodes}
    found = {v for v in messages(program) if any(not isinstance(n, wide) for n in readers[v])}
    found |= recurrences(program)
    gated = [n for n in program.nodes if isinstance(n, op.Gated)]
    found |= {n.inputs[1] for n in gated if isinstance(kinds[n.inputs[1]], op.Silu)}
    return found - {program.input} if program.reads_tokens else found


@pytest.mark.parametrize(("kind", "relu"), CASES)
def test_the_stack_and_its_program_round_the_same_values(kind, relu):
    model = quantized("w8a16", kind, relu)
    program = lrnn.compile(model)
    found = calibrated(model)
    assert set(found.values) == rounded_values(program)
    ranges = calibrate(program, clips())
    for name, value in found.values.items():
        assert value.max_abs == pytest.approx(ranges[name].max_abs, rel=1e-3), name
        assert value.count == ranges[name].count, name


@pytest.mark.parametrize("case", LANGUAGE)
def test_a_language_model_and_its_program_round_the_same_values(case):
    model, rows = LANGUAGE[case](), token_rows(19)
    model.train()
    for x in rows:
        model(x)  # statistics of batch norms
    prepare(model.eval(), "w8a16")
    calibrate_model(model, rows)
    found = calibrated(model)
    program = lrnn.compile(model)
    assert set(found.values) == rounded_values(program)
    ranges = calibrate(program, [x[..., None].float() for x in rows])
    for name, value in found.values.items():
        assert value.max_abs == pytest.approx(ranges[name].max_abs, rel=1e-3), name
    _, y = _simulated_and_fixed(model, "w8a16", rows)
    expected = model(rows[0])[0].detach().numpy()
    assert sqnr(y, expected) > 45


def _simulated_and_fixed(model: nn.Module, scheme: str, inputs: list[torch.Tensor]):
    """The fixed program of a prepared model, converted, and what it makes of the first batch."""
    ranges, twin = calibrated(model), copy.deepcopy(model)
    convert(twin)
    program = lrnn.compile(twin)
    frames = [x if x.is_floating_point() else x[..., None].float() for x in inputs]
    made = compile_fixed(program, calibrate(program, frames, known=ranges), scheme)
    y, _ = TorchExecutor(made)(frames[0])
    return made, y.numpy()


@pytest.mark.parametrize("scheme", INTEGER_SCHEMES)
@pytest.mark.parametrize(("kind", "relu"), [("real", "none"), ("complex", "gates")])
def test_simulated_and_fixed_agree(kind, relu, scheme):
    """The same exponents everywhere, nearly the same integers; the output far nearer than to the floats."""
    model = quantized(scheme, kind, relu)
    seen = {}
    for name, tap in named_taps(model):
        tap.register_forward_hook(lambda m, _, y, name=name: seen.update({name: (y.detach(), m._grid[0])}))
    y = model(clips()[0])[0].detach().numpy()
    made, found = _simulated_and_fixed(model, scheme, clips())
    values, _ = TorchExecutor(made).trace(clips()[0])
    checked = 0
    for node in made.nodes:
        name = "input" if node.name == "input.integers" else node.name
        if name in seen:
            value, exponent = seen[name]
            form = made.formats[node.name]
            narrow = any(f"{node.name}.bits" in n.name for n in made.nodes)
            assert exponent == form.exponent, name
            if name in ("input", "blocks.0.mixer.write", "blocks.0.mixer.state") and not narrow:
                expected = value * 2.0**form.exponent
                error = abs(values[node.name] - expected).double()
                assert error.median() <= 2
                assert error.mean() < 0.05 * expected.abs().mean()
            checked += 1
    assert checked == len(seen)
    plain = stack(kind, relu)(clips()[0])[0].detach().numpy()
    if scheme == "w16a16":  # as near to the floats as to what simulates it
        assert sqnr(found, y) > 65
    else:
        assert sqnr(found, y) > sqnr(found, plain) + 2
    if scheme == "w8a16":
        assert sqnr(found, y) > 55


@pytest.mark.parametrize("scheme", ["w8a16", "w4a8"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_exported_are_the_integers_that_were_trained(kind, scheme):
    """Of matrices, bounds and rotations; converting leaves nothing of the quantisation behind."""
    model = quantized(scheme, kind)
    bits = 8 if scheme == "w8a16" else 4
    program = lrnn.compile(model)
    linear = {n.name: quantize_weight(n.weight, bits)[0] for n in program.nodes if isinstance(n, op.Linear)}
    convert(model)
    assert not is_prepared(model)
    assert not any("parametrizations" in key or "quantize" in key for key in model.state_dict())
    made, _ = _simulated_and_fixed(quantized(scheme, kind), scheme, clips())
    nodes = {n.name: n for n in made.nodes}
    for name, integers in linear.items() if kind == "real" else ():  # a bias may make a row coarser
        assert np.array_equal(nodes[name].weight, integers)
    twin = quantized(scheme, kind)
    share = twin.blocks[1].mixer.share(1 - twin.bounds()[1]).detach().numpy()
    bound = nodes["blocks.1.mixer.bound"]
    assert np.array_equal(np.ldexp(bound.scale.astype(float), -bound.scale_exponent.astype(int)), share)
    if kind == "complex":
        layer = twin.blocks[1].mixer
        theta = layer.theta.detach()
        turn = layer.rotation(torch.stack((theta.cos(), theta.sin()), -1)).numpy()
        integers, exponents = quantize_rotation(torch.polar(torch.ones_like(theta), theta), 16)
        assert abs(turn - ([1, 0] - np.ldexp(integers.astype(float), -exponents[:, None]))).max() < 2e-7
        assert np.array_equal(nodes["blocks.1.mixer.state"].decay, integers)


def test_strip_gives_the_float_model_back():
    for kind in KINDS:
        model = stack(kind)
        state = {k: v.clone() for k, v in model.state_dict().items()}
        x = clips()[0]
        y = model(x)[0]
        prepare(model, "w4a8")
        calibrate_model(model, clips())
        assert not torch.equal(model(x)[0], y)
        strip(model)
        assert torch.equal(model(x)[0], y)
        assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize(("kind", "scheme"), [*product(KINDS, ["w8a16", "w4a8"]), ("real", "fp8")])
def test_training_learns_and_zeros_stay_zeros(kind, scheme):
    model = stack(kind, "gates")
    pruner = Pruner(model, 0.7).attach()
    pruner.step(0)
    prepare(model, scheme)
    calibrate_model(model, clips())
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    losses = []
    for step in range(40):
        x = clips()[step % 3]
        optimizer.zero_grad()
        loss = (model(x)[0] - x.roll(1, 1)).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-4:]) < 0.9 * sum(losses[:4])
    assert model.lower_bounds.grad.abs().max() > 0
    for module in model.modules():
        if parametrize.is_parametrized(module):
            for name, masked in module.parametrizations.items():
                kept = masked[0].mask.expand_as(getattr(module, name))
                assert (getattr(module, name)[~kept] == 0).all()
    convert(model)
    pruner.finalize()
    weights = [n.weight for n in lrnn.compile(model).nodes if isinstance(n, op.Linear)]
    whole = sum(p.numel() for name, p in stack(kind).named_parameters() if "proj.weight" in name)
    assert sum((w != 0).sum() for w in weights) <= 0.31 * whole


def test_layers_and_blocks_of_any_model():
    """Outside of a stack an HGRN reads a value of its own, and a bound that it is given is left in float."""
    torch.manual_seed(0)
    layers = {
        "layer": HGRN(12, 9),
        "block": HGRNBlock(HGRNBlockConfig(d_model=12, d_state=9, d_hidden=15, hgrn=KINDS["complex"])),
    }
    for name, part in layers.items():
        model = nn.ModuleDict({name: part})
        x = clips()[0]
        y = part(x)[0]
        prepare(model, "w8a16")
        with pytest.raises(RuntimeError, match="was not calibrated"):
            part(x)
        calibrate_model_of(model, name)
        assert not torch.equal(part(x)[0], y)
        torch.testing.assert_close(part(x)[0], y, atol=0.1, rtol=0.1)
        assert part(x, lower_bound=torch.full((9,), 0.5))[0].isfinite().all()
        strip(model)
        assert torch.equal(part(x)[0], y)


def calibrate_model_of(model: nn.ModuleDict, name: str) -> None:
    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            self.parts = model

        def forward(self, x):
            return self.parts[name](x)

    calibrate_model(Whole(), clips())


def test_bounds_may_be_left_in_float():
    model = stack()
    prepare(model, exclude=("lower_bounds",))
    assert isinstance(model.blocks[1].mixer.share, nn.Identity)
    calibrate_model(model, clips())
    assert model(clips()[0])[0].isfinite().all()


def test_a_tied_matrix_behind_a_batch_norm_is_refused():
    model = language(S5BlockConfig(d_model=12, d_state=16, blocks=2), tied=True)
    with pytest.raises(ValueError, match="a tied embedding behind a batch norm needs two grids"):
        prepare(model)


@pytest.mark.parametrize(("kind", "relu"), CASES)
def test_a_program_that_rounds_in_float_does_as_the_prepared_stack(kind, relu):
    """Weights of 16 bits, so that float32 decides few ties; and weights alone, on their grids."""
    scheme = replace(get_scheme("w16a16"), activation_bits=8)
    plain = stack(kind, relu)
    program, x = lrnn.compile(plain), clips()[0]
    ranges = calibrate(program, clips())
    expected = TorchExecutor(rounded(program, scheme, ranges))(x)[0]
    cost = (expected - plain(x)[0]).abs().mean()
    assert cost > 1e-3
    prepare(plain, scheme)
    set_ranges(plain, ranges)
    assert (plain(x)[0] - expected).abs().mean() < 0.15 * cost
    weights = stack(kind, relu)
    expected = TorchExecutor(rounded(program, "w4a8"))(x)[0]
    prepare(weights, "w4a8")
    with passing(weights):
        torch.testing.assert_close(weights(x)[0], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("scheme", ["w8a8", "w8a16", "fp8"])
def test_a_language_program_that_rounds_reads_tokens_as_they_are(scheme):
    program = lrnn.compile(LANGUAGE["hgrn"]())
    frames = [x[..., None].float() for x in token_rows(19)]
    made = rounded(program, scheme, calibrate(program, frames))
    assert made.reads_tokens
    expected = TorchExecutor(program)(frames[0])[0].numpy()
    assert sqnr(TorchExecutor(made)(frames[0])[0].numpy(), expected) > 12
