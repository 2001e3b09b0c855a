"""HGRN programs in fixed point: the same integers on every executor, near the floats; 16 bits for gates."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from fixed_cases import ranges_of, trace
from test_fixed_program import INTEGER_SCHEMES, noise, sqnr

import lrnn
from lrnn.nn import HGRNBlockConfig, HGRNOptions, HGRNStack
from lrnn.profile.noise import output_sqnr, value_formats
from lrnn.program import Program, calibrate, compile_fixed, nodes
from lrnn.program.fixed import nodes as fixed
from lrnn.quant import get_scheme

KINDS = {
    "real": HGRNOptions(),
    "complex": HGRNOptions("complex", norm="layer", bias=True, norm_eps=1e-5),
}
CASES = list(product(KINDS, ["none", "gates", "all"]))


def stack(
    kind: str = "real", relu: str = "none", seed: int = 0, density: float = 1.0, layers: int = 2, **sizes
):
    torch.manual_seed(seed)
    sizes = {"d_model": 12, "d_state": 9, "d_hidden": 15, **sizes}
    made = HGRNStack(HGRNBlockConfig(relu=relu, hgrn=KINDS[kind], **sizes), layers).eval()
    with torch.no_grad():
        made.lower_bounds.normal_()
        for name, p in made.named_parameters():
            if "proj" in name and p.ndim == 2:
                p.mul_(torch.rand_like(p) < density)
            elif name.endswith(("norm.weight", "bias")):
                p.add_(torch.randn_like(p) * 0.2)
    return made


def tokens(vocabulary: int = 11, **options) -> Program:
    """A stack between an embedding and a matrix, from a token's number to logits."""
    torch.manual_seed(1)
    made = lrnn.compile(stack(**options))
    rng = np.random.default_rng(0)
    n = made.input_width
    table = (rng.normal(size=(vocabulary, n)) * rng.uniform(0.01, 2, (vocabulary, 1))).astype(np.float32)
    table[3] = 0
    head = rng.normal(size=(vocabulary, n)).astype(np.float32)
    ends = nodes.Embedding(made.input, ("token",), table), nodes.Linear("head", (made.output,), head)
    return Program("token", 1, (ends[0], *made.nodes, ends[1]), "head")


@pytest.mark.parametrize(("kind", "relu"), CASES)
@pytest.mark.parametrize("scheme", INTEGER_SCHEMES)
def test_executors_agree(kind, relu, scheme):
    """Trained ranges, then frames far beyond them, then silence."""
    program = lrnn.compile(stack(kind, relu, density=0.5))
    x = noise(40, 12)
    made = compile_fixed(program, ranges_of(program, x), scheme)
    trace(made, np.concatenate((x[:20], noise(10, 12, 30, seed=1), np.zeros((10, 12), np.float32), x[:10])))


@pytest.mark.parametrize(("kind", "relu"), CASES)
def test_integers_are_near_the_floats(kind, relu):
    program = lrnn.compile(stack(kind, relu))
    x = noise(600, 12)
    ranges = calibrate(program, [x])
    expected = program.stream("torch").run(x)
    found = {scheme: sqnr(compile_fixed(program, ranges, scheme).stream("torch").run(x), expected)
             for scheme in ("w8a16", "w16a16", "loihi2")}  # fmt: skip
    assert found["w8a16"] > 30, found
    assert found["w16a16"] > 60, found
    assert found["loihi2"] > 25, found


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_weights_lose_is_all_but_a_little(kind):
    """Against the equations on the program's own weights, 16 bits of activations are as good as exact."""
    program = lrnn.compile(stack(kind))
    x = noise(500, 12)
    made = compile_fixed(program, calibrate(program, [x]), "w8a16")
    assert output_sqnr(value_formats(made, x)) > 58
    assert output_sqnr(value_formats(made, x, program)) > 30


def test_gates_keep_their_bits_in_every_scheme():
    program = lrnn.compile(stack())
    x = noise(50, 12)
    for scheme in INTEGER_SCHEMES:
        made = compile_fixed(program, ranges_of(program, x), scheme)
        assert made.formats["blocks.0.mixer.write"].bits == 16
        assert made.formats["blocks.1.mixer.bound"].bits == 16
        assert made.formats["blocks.1.mixer.bound"].exponent >= 15
        memory = next(n for n in made.nodes if n.name == "blocks.1.mixer.state")
        assert memory.gate_exponent == made.formats["blocks.1.mixer.bound"].exponent


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_spans_what_it_reads(kind):
    """However long inputs stay at their limits, it never saturates."""
    program = lrnn.compile(stack(kind))
    x = noise(50, 12)
    made = compile_fixed(program, ranges_of(program, x), "w8a16")
    for node in made.nodes:
        if isinstance(node, fixed.Gated):
            read = made.formats[node.inputs[1]]
            reach = (read.high << (node.state_exponent - read.exponent)) * (1 if kind == "real" else 2**0.5)
            assert reach < 2 ** (node.state_bits - 1)
            assert reach > 2 ** (node.state_bits - 3.1)


def test_a_long_memory_is_that_of_the_floats():
    """Bounds near one: gates of 1 / 1000, time constants of a thousand frames; 4000 frames of silence."""
    made = stack(layers=3)
    with torch.no_grad():
        made.lower_bounds.zero_()
        made.lower_bounds[1] = 7.0  # 1 - gamma is 9e-4 from the second layer on
    program = lrnn.compile(made)
    x = np.concatenate((noise(2000, 12), np.zeros((4000, 12), np.float32)))
    ranges = calibrate(program, [x])
    integers = compile_fixed(program, ranges, "w16a16")
    name = "blocks.2.mixer.state"
    expected = _values(program, x)[name]
    form = integers.formats[name]
    found = _values(integers, x)[name] * 2.0**-form.exponent
    assert abs(expected[-1]).max() > 5 * 2.0**-form.exponent  # it remembers
    peak = abs(expected).max(0)
    assert (abs(found - expected).max(0) < 0.02 * peak + 2 * 2.0**-form.exponent).all()


def _values(program: Program, x: np.ndarray) -> dict[str, np.ndarray]:
    from lrnn.program.torch_executor import TorchExecutor

    with torch.inference_mode():
        values, _ = TorchExecutor(program).trace(torch.from_numpy(x)[None])
    return {name: value[0].double().numpy() for name, value in values.items()}


@pytest.mark.parametrize("scheme", INTEGER_SCHEMES)
def test_tokens_go_in_as_they_are(scheme):
    program = tokens()
    rng = np.random.default_rng(0)
    x = rng.integers(0, 5, (200, 1)).astype(np.float32)
    made = compile_fixed(program, calibrate(program, [x]), scheme)
    assert isinstance(made.nodes[0], fixed.Embedding)
    assert made.reads_tokens
    every = rng.integers(0, 11, (40, 1)).astype(np.float32)
    values, _ = trace(made, every)
    table, form = made.nodes[0], made.formats[made.nodes[0].name]
    row = every[:, 0].astype(int)
    held = np.ldexp(table.weight[row].astype(float), -table.weight_exponent[row].astype(int)[:, None])
    found = np.ldexp(values[table.name].astype(float), -form.exponent)
    # Rows that calibration never saw as well; a peak that is a power of two saturates by the last bit.
    assert abs(found - held).max() <= 2.0**-form.exponent
    if get_scheme(scheme).weight_bits >= 8:
        expected = program.nodes[0].weight[row]
        assert sqnr(found, expected) > 30


def test_a_row_that_has_all_but_decayed_is_zeros():
    """As weight decay leaves that of a token that no text holds: its own scale would be out of reach."""
    program = tokens()
    table = program.nodes[0].weight.copy()
    table[5] *= 1e-25
    program = replace(program, nodes=(replace(program.nodes[0], weight=table), *program.nodes[1:]))
    x = np.arange(11, dtype=np.float32)[:, None]
    for scheme in INTEGER_SCHEMES:
        made = compile_fixed(program, calibrate(program, [x]), scheme)
        values, _ = trace(made, x)
        rows = values[made.nodes[0].name]
        assert not rows[[3, 5]].any()
        assert rows[4].any()


def test_pruned_bare_to_single_states():
    """What dropping dead numbers leaves of a stack of almost no weights still has an integer form."""
    program = lrnn.compile(stack(density=0.02))
    x = noise(40, 12)
    for scheme in INTEGER_SCHEMES:
        trace(compile_fixed(program, ranges_of(program, x), scheme), x)


def test_files_keep_every_integer(tmp_path):
    program = tokens(kind="complex")
    x = np.arange(11, dtype=np.float32)[:, None]
    made = compile_fixed(program, calibrate(program, [x]), "w8a16")
    made.save(tmp_path / "m.lrnn")
    read = lrnn.load(tmp_path / "m.lrnn")
    assert np.array_equal(read.stream("numpy").run(x), made.stream("numpy").run(x))
    assert [type(n) for n in read.nodes] == [type(n) for n in made.nodes]
