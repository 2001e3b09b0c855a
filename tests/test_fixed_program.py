"""Programs in fixed point: the same integers on every executor, near those in float, exact in a file."""

from __future__ import annotations

import json
import math
import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from fixed_cases import between, ints, ranges_of, trace
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import lrnn
from lrnn.program import Program, compile_fixed, nodes
from lrnn.program.fixed import nodes as fixed
from lrnn.program.program import attributes, tensors
from lrnn.quant import SCHEMES, Range, Ranges, Scheme, get_scheme

SMALL = lrnn.SequenceModelConfig(d_in=5, d_out=4, d_model=6, d_state=8, blocks=2, n_layers=2)
INTEGER_SCHEMES = [name for name, scheme in SCHEMES.items() if scheme.float_weights is None]


def make_program(config=SMALL, seed: int = 0, scale: float = 1.0, density: float = 1.0) -> Program:
    """A compiled network of random weights for inputs of about this scale."""
    torch.manual_seed(seed)
    model = lrnn.SequenceModel(config).eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.endswith("bias") or ".norm." in name:
                p.add_(torch.randn_like(p) * 0.3)
            if name.endswith("weight") and p.ndim == 2:
                p.mul_(torch.rand_like(p) < density)
        model.encoder.weight.div_(scale)
        for block in model.blocks:
            if config.norm != "layer":
                block.norm.running_mean.normal_()
                block.norm.running_var.uniform_(0.5, 2)
    return lrnn.compile(model)


def noise(frames: int, width: int = 5, scale: float = 1.0, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=(frames, width)) * scale).astype(np.float32)


def sqnr(found: np.ndarray, expected: np.ndarray) -> float:
    """Signal to quantisation noise in dB."""
    return 10 * math.log10((expected**2).sum() / max(((found - expected) ** 2).sum(), 1e-30))


EXTREMES = np.array([0, -0.0, 1e-45, -1e-40, 1, -1, 100, -3e38, 3e38], np.float32)


@st.composite
def integer_programs(draw) -> Program:
    """Any nodes with any exponents, weights and widths that are not refused."""
    width, rng = 4, np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    names = ["q"]
    made: list = [
        fixed.Quantize("q", ("in",), exponent=draw(st.integers(-4, 20)), bits=draw(st.integers(2, 16)))
    ]

    def weights(*shape):
        kind = draw(st.sampled_from(["any", "great", "empty rows", "pruned"]))
        w = rng.choice([-127, 127], shape) if kind == "great" else rng.integers(-127, 128, shape)
        if kind == "empty rows":
            w[rng.random(shape[0]) < 0.5] = 0
        return (w * (kind != "pruned")).astype(np.int8)

    def tensors_of(key, *shape):
        n = shape[0]
        return {
            key: weights(*shape),
            f"{key}_exponent": rng.integers(0, 9, n).astype(np.int8),
            "bias": (rng.integers(-(2**20), 2**20, n) * (rng.random() < 0.7)).astype(np.int32),
        }

    def any_table():
        n = 1 << draw(st.integers(1, 2))
        return rng.integers(-127, 128, n + 1).astype(np.int16)

    decay = {"decay": rng.integers(1, 2000, (2, 2)).astype(np.int16), "decay_exponent": ints(12, 14)}
    makers = {
        "linear": lambda n, i, o: fixed.Linear(n, i, **tensors_of("weight", width, width), **o),
        "affine": lambda n, i, o: fixed.Affine(n, i, **tensors_of("scale", width), **o),
        "diagonal": lambda n, i, o: fixed.Diagonal(
            n, i, **decay, state_exponent=draw(st.integers(0, 20)), state_bits=24, **o
        ),
        "relu": lambda n, i, o: fixed.Relu(n, i),
        "pair": lambda n, i, o: fixed.PairRelu(n, i),
        "table": lambda n, i, o: fixed.Table(
            n, i, table=any_table(), function="f", max_error=0.0, exponent=o["exponent"], bits=16
        ),
        "norm": lambda n, i, o: fixed.Norm(
            n, i, **tensors_of("scale", width), eps=draw(st.integers(1, 99)), centred=draw(st.booleans()), **o
        ),
        "rescale": lambda n, i, o: fixed.Rescale(n, i, **o),
        "mean": lambda n, i, o: fixed.MeanPool(n, i, size=width),
        "add": lambda n, i, o: fixed.Add(n, i, **o),
        "product": lambda n, i, o: fixed.Product(n, i, **o),
        "gated": lambda n, i, o: fixed.Gated(
            n,
            i,
            size=width,
            gate_exponent=formats[i[0]].exponent,
            state_exponent=draw(st.integers(0, 20)),
            state_bits=24,
            **o,
        ),
    }
    two = ("add", "product", "gated")
    formats = {"q": made[0].format((None,))}
    for number in range(draw(st.integers(1, 8))):
        kind = draw(st.sampled_from(sorted(makers)))
        inputs = tuple(draw(st.sampled_from(names)) for _ in range(2 if kind in two else 1))
        reads = [formats[i] for i in inputs]
        exponent = max(-20, min(40, sum(f.exponent for f in reads) // len(reads) + draw(st.integers(-9, 9))))
        out = {"exponent": exponent, "bits": draw(st.integers(2, 25)), "rounding": draw(roundings)}
        try:
            node = makers[kind](f"{kind}{number}", inputs, out)
            formats[node.name] = node.format(tuple(reads))
        except ValueError:  # a sum could overflow, or a table cannot read so many bits
            continue
        made.append(node)
        names.append(node.name)
    return Program("in", width, (*made, fixed.Dequantize("out", (names[-1],))), "out")


roundings = st.sampled_from(["nearest_even", "nearest_up", "floor"])


@settings(deadline=None, max_examples=150)
@given(integer_programs(), st.integers(0, 2**32 - 1), st.integers(0, 9))
def test_executors_agree_on_any_program_and_input(program, seed, frames):
    rng = np.random.default_rng(seed)
    kinds = [
        rng.choice(EXTREMES, (frames, 4)),
        rng.normal(0, 10 ** rng.uniform(-3, 4), (frames, 4)),
        np.full((frames, 4), rng.choice(EXTREMES)),
    ]
    x = np.concatenate(kinds, dtype=np.float32)
    rng.shuffle(x)
    if len(x):
        trace(program, x)


@settings(deadline=None, max_examples=40)
@given(
    relu=st.sampled_from(["none", "parts", "pair"]),
    glu=st.sampled_from(["half1", "half2", "full", "none"]),
    norm=st.sampled_from(["batch", "layer"]),
    prenorm=st.booleans(),
    head=st.sampled_from([("regression", "last"), ("classification", "mean"), ("classification", "last")]),
    scheme=st.sampled_from([s for s in INTEGER_SCHEMES if s != "loihi2"]),
    rounding=roundings,
    scale=st.sampled_from([1e-38, 1e-6, 1.0, 1e4]),
    density=st.sampled_from([1.0, 0.1, 0.0]),
    seed=st.integers(0, 99),
)
def test_executors_agree_on_any_network(
    relu, glu, norm, prenorm, head, scheme, rounding, scale, density, seed
):
    config = replace(SMALL, relu=relu, glu=glu, norm=norm, prenorm=prenorm, head=head[0], pooling=head[1])
    program = make_program(config, seed, min(scale, 1e30) if scale > 1e-30 else 1.0, density)
    ranges = ranges_of(program, noise(12, scale=scale, seed=seed))
    found = compile_fixed(program, ranges, replace(get_scheme(scheme), rounding=rounding))
    x = np.concatenate([noise(9, scale=scale, seed=seed + 1), np.zeros((2, 5)), np.full((3, 5), 1e38)])
    values, _ = trace(found, x.astype(np.float32))
    assert np.isfinite(values[found.output]).all()


@pytest.mark.parametrize("norm", ["batch", "layer"])
@pytest.mark.parametrize("glu", ["half1", "full", "none"])
@pytest.mark.parametrize("relu", ["none", "parts", "pair"])
@pytest.mark.parametrize("scale", [1e-4, 1.0, 300.0])
def test_sixteen_bits_are_near_float(relu, glu, norm, scale):
    config = replace(SMALL, relu=relu, glu=glu, norm=norm)
    program, x = make_program(config, 3, scale), noise(60, scale=scale)
    expected = program.stream("numpy").run(x)
    found = compile_fixed(program, ranges_of(program, x), "w16a16").stream("numpy").run(x)
    assert sqnr(found, expected) > 50
    coarse = compile_fixed(program, ranges_of(program, x), "w8a16").stream("numpy").run(x)
    assert 20 < sqnr(coarse, expected) < sqnr(found, expected)


def test_frames_go_in_and_out_as_floats_and_any_cutting_is_the_same():
    program = make_program()
    found = compile_fixed(program, ranges_of(program, noise(40)))
    x = noise(20)
    streams = [found.stream(engine) for engine in ("numpy", "torch")]
    whole = [stream.run(x) for stream in streams]
    assert whole[0].dtype == np.float32
    assert np.array_equal(*whole)
    for stream in streams:
        stream.reset()  # in the middle of nothing
        assert np.array_equal(stream.run(x[:7]), whole[0][:7])
        stream.reset()
        steps = np.stack([stream.step(frame) for frame in x])
        assert np.array_equal(steps, whole[0])
        assert stream.run(x[:0]).shape == (0, 4)
    assert not program.is_fixed
    assert found.is_fixed
    assert (found.input_width, found.output_width) == (5, 4)
    assert set(program.widths) <= {name.removesuffix(".integers") for name in found.widths}


def test_what_is_rounded_to_integers_passes_rectifiers_as_it_is():
    """A rectifier makes the very integers it reads; messages have the bits of the scheme."""
    program = make_program()
    formats = compile_fixed(program, ranges_of(program, noise(40))).formats
    assert formats["relu"].exponent == formats["encoder"].exponent
    assert formats["relu"].bits == formats["encoder"].bits == 16
    assert formats["blocks.0.ssm.relu"].exponent == formats["blocks.0.ssm.state"].exponent
    assert formats["blocks.0.ssm.C"].bits == 24
    assert formats["blocks.0.sigmoid"].low >= 0


def test_matrices_read_narrow_messages_where_the_scheme_says_so():
    program, narrow = make_program(), Scheme("narrow", message_bits=9)
    found = compile_fixed(program, ranges_of(program, noise(40)), narrow)
    for node in found.nodes:
        if isinstance(node, fixed.Linear):
            assert found.formats[node.inputs[0]].bits == 9
    assert found.formats["relu"].bits == 16  # the residual keeps all
    trace(found, noise(10))


def test_more_bits_than_a_table_reads():
    """Tables and norms read 16 bits whatever the scheme; a sum after a table keeps all a table makes."""
    wide = Scheme("wide", b_bits=16, c_bits=16, d_bits=16, weight_bits=16, activation_bits=22)
    for config in (replace(SMALL, norm="layer"), replace(SMALL, relu="none", glu="none")):
        program, x = make_program(config), noise(40)
        found = compile_fixed(program, ranges_of(program, x), wide)
        trace(found, x)
        assert sqnr(found.stream("numpy").run(x), program.stream("numpy").run(x)) > 50


@pytest.mark.parametrize("scale", [1e-8, 1e-3, 1e8])
def test_a_norm_of_values_below_its_eps(scale):
    node = nodes.LayerNorm("y", ("x",), np.ones(6, np.float32), np.zeros(6, np.float32))
    program, x = Program("x", 6, (node,), "y"), noise(30, 6, scale)
    found = compile_fixed(program, ranges_of(program, x), "w16a16")
    expected = program.stream("numpy").run(x)
    y = trace(found, x)[0][found.output]
    np.testing.assert_allclose(y, expected, atol=abs(expected).max() * 1e-3 + 2.0**-16)


def test_a_value_that_never_moves_is_legal():
    program = make_program()
    ranges = ranges_of(program, noise(40))
    still = Range(0.0, 0.0, 0.0, 10)
    for name in program.widths:
        if name != program.input:
            dead = replace(ranges, values={**ranges.values, name: still})
            trace(compile_fixed(program, dead), noise(5))
    dead = replace(ranges, values={n: still if n != program.input else r for n, r in ranges.values.items()})
    trace(compile_fixed(program, dead), noise(5))


def test_a_classifier_ends_at_its_logits():
    program = make_program(replace(SMALL, head="classification", pooling="mean"))
    found = compile_fixed(program, ranges_of(program, noise(40)))
    assert found.meta["output"] == "logits"
    assert isinstance(program.nodes[-1], nodes.LogSoftmax)
    x = noise(40)
    logits, log_probs = found.stream("numpy").run(x), program.stream("numpy").run(x)
    assert (logits[-1].argmax() == log_probs[-1].argmax()).all()
    np.testing.assert_allclose(np.log(np.exp(logits).sum(1))[:, None] + log_probs, logits, atol=0.1)
    assert "output" not in compile_fixed(make_program(), ranges_of(make_program(), noise(9))).meta


def test_what_it_is_made_with_travels_along():
    program = make_program()
    program = replace(program, meta={"frontend": {"hop": 128}})
    found = compile_fixed(program, ranges_of(program, noise(40)), "w4a8")
    assert found.meta["frontend"] == {"hop": 128}
    assert Scheme.from_json(found.meta["scheme"]) == get_scheme("w4a8")
    assert found.meta["calibration"] == {"observer": "minmax", "clips": 1}
    assert program.meta == {"frontend": {"hop": 128}}


def _ranges(program, **changes):
    values = {name: Range(1.0, -1.0, 1.0, 9) for name in program.widths}
    return Ranges({name: r for name, r in {**values, **changes}.items() if r is not None}, "minmax", 1)


def test_compile_refuses_by_name():
    program = make_program()
    with pytest.raises(ValueError, match=r"^input 'input': its range is zero on the calibration data"):
        compile_fixed(program, _ranges(program, input=Range(0.0, 0.0, 0.0, 9)))
    with pytest.raises(ValueError, match=r"^ranges: value 'blocks\.1\.gate' was not calibrated"):
        compile_fixed(program, _ranges(program, **{"blocks.1.gate": None}))
    with pytest.raises(ValueError, match=r"scheme 'fp8' runs in float, expected one of integers"):
        compile_fixed(program, _ranges(program), "fp8")
    with pytest.raises(ValueError, match=r"scheme is 'w3', expected one of w8a16"):
        compile_fixed(program, _ranges(program), "w3")
    with pytest.raises(ValueError, match="program is in fixed point already"):
        compile_fixed(compile_fixed(program, _ranges(program)), _ranges(program))
    small = Scheme("tiny", accumulator_bits=20)
    with pytest.raises(
        ValueError,
        match=r"^node 'encoder' \(fixed_linear\): the sum of row 0 could reach \d+, expected less than "
        r"2 \*\* 19 \(scheme 'tiny': accumulator_bits is 20\)$",
    ):
        compile_fixed(program, _ranges(program), small)
    soft = Program("x", 2, (nodes.LogSoftmax("s", ("x",)), nodes.Relu("y", ("s",))), "y")
    with pytest.raises(ValueError, match=r"^node 's' \(log_softmax\): it has no integer form"):
        compile_fixed(soft, _ranges(soft))
    one = nodes.Diagonal("h", ("x",), np.array([[1, 0]], np.float32))
    alive = Program("x", 2, (one,), "h")
    with pytest.raises(
        ValueError, match=r"^node 'h' \(diagonal\): \|lambda\| of state 0 is 1, expected less"
    ):
        compile_fixed(alive, _ranges(alive))


def assert_same(found: Program, expected: Program) -> None:
    assert (found.input, found.input_width, found.output) == (
        expected.input,
        expected.input_width,
        expected.output,
    )
    assert (found.meta, found.formats) == (expected.meta, expected.formats)
    for node, other in zip(found.nodes, expected.nodes, strict=True):
        assert (type(node), node.name, node.inputs) == (type(other), other.name, other.inputs)
        assert attributes(node) == attributes(other)
        for name, value in tensors(node).items():
            assert value.dtype == tensors(other)[name].dtype
            assert np.array_equal(value, tensors(other)[name])


@settings(deadline=None, max_examples=30)
@given(program=integer_programs())
def test_round_trip_of_any_program(program, tmp_path_factory):
    path = tmp_path_factory.mktemp("file") / "m.lrnn"
    program.save(path)
    assert_same(lrnn.load(path), program)


@pytest.mark.parametrize("norm", ["batch", "layer"])
@pytest.mark.parametrize("scheme", INTEGER_SCHEMES)
def test_round_trip_of_every_node(norm, scheme, tmp_path):
    config = replace(SMALL, norm=norm, relu="pair", prenorm=False, head="classification", glu="full")
    program = make_program(config)
    found = compile_fixed(program, ranges_of(program, noise(9)), scheme)
    found.save(tmp_path / "m.lrnn")
    loaded = lrnn.load(tmp_path / "m.lrnn")
    assert_same(loaded, found)
    assert np.array_equal(loaded.stream("numpy").run(noise(5)), found.stream("numpy").run(noise(5)))


def header_of(path) -> dict:
    with safe_open(path, framework="np") as file:
        return json.loads(file.metadata()["lrnn"])


def test_versions_say_who_can_read_a_file(tmp_path):
    program = make_program()
    program.save(tmp_path / "float.lrnn")
    compile_fixed(program, ranges_of(program, noise(9))).save(tmp_path / "fixed.lrnn")
    assert header_of(tmp_path / "float.lrnn")["version"] == 1
    assert header_of(tmp_path / "fixed.lrnn")["version"] == 2


def test_a_sparse_matrix_of_int8_takes_2_3_bytes_for_each_weight(tmp_path):
    """The paper's network at 90 %: a bit for each element, a byte for each weight, and 24 KB for all else."""
    config = lrnn.SequenceModelConfig(d_in=257, d_out=257)
    torch.manual_seed(0)
    model = lrnn.SequenceModel(config)
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim == 2:
                p *= torch.rand_like(p) < 0.1
            elif p.ndim == 3:
                p *= torch.rand(*p.shape[:2], 1) < 0.1
    program = lrnn.compile(model)
    found = compile_fixed(program, _ranges(program))
    found.save(path := tmp_path / "m.lrnn")
    stored = load_file(path)
    matrices = {
        k: v for k, v in stored.items() if ".weight." in k and k.rsplit(".", 1)[1] in ("mask", "values")
    }
    kept = sum(v.size for k, v in matrices.items() if k.endswith("values"))
    assert kept == sum((n.weight != 0).sum() for n in found.nodes if isinstance(n, fixed.Linear))
    assert len(matrices) == 2 * sum(isinstance(n, fixed.Linear) for n in found.nodes)
    packed = sum(v.nbytes for v in matrices.values())
    assert packed <= 2.3 * kept
    others = sum(v.nbytes for v in stored.values()) - packed
    header = os.path.getsize(path) - packed - others
    assert others < 12_000
    assert header < 24_000


DAMAGE = {
    "weight of floats": (
        lambda h, s: s.update({"y.weight": np.ones((2, 2), np.float32)}),
        r"node 'y' \(fixed_linear\): weight is float32, expected int8 or int16",
    ),
    "weight of another shape": (
        lambda h, s: s.update({"y.weight": np.ones((2, 3), np.int8)}),
        r"node 'y' \(fixed_linear\): input width is 2, expected 3",
    ),
    "bias of int16": (
        lambda h, s: s.update({"y.bias": np.ones(2, np.int16)}),
        "bias is int16, expected int32 or int64",
    ),
    "bias that overflows": (
        lambda h, s: s.update({"y.bias": np.full(2, -(2**63), np.int64)}),
        "the sum of row 0 could reach 9223372036854972411, expected less than 2",
    ),
    "exponents of another shape": (
        lambda h, s: s.update({"y.weight_exponent": np.ones(3, np.int8)}),
        r"weight_exponent has shape \(3,\), expected \(2,\)",
    ),
    "exponent out of range": (
        lambda h, s: h["nodes"][1]["attributes"].update(exponent=999),
        r"node 'y' \(fixed_linear\): exponent is 999, expected -126 to 126",
    ),
    "exponent of text": (
        lambda h, s: h["nodes"][1]["attributes"].update(exponent="4"),
        "attribute 'exponent' is '4', expected int",
    ),
    "bits out of range": (
        lambda h, s: h["nodes"][1]["attributes"].update(bits=40),
        "bits is 40, expected 2 to 32",
    ),
    "no rounding": (
        lambda h, s: h["nodes"][1]["attributes"].pop("rounding"),
        r"fixed_linear has attributes \['bits', 'exponent'\], expected \['bits', 'exponent', 'rounding'\]",
    ),
    "table of another size": (
        lambda h, s: s.update({"z.table": np.zeros(6, np.int16)}),
        r"node 'z' \(fixed_table\): table has 6 entries, expected a power of two and one more",
    ),
    "table beyond its bits": (
        lambda h, s: s.update({"z.table": np.array([0, 1, 999], np.int16)}),
        "table has an entry beyond 8 bits",
    ),
    "no table": (lambda h, s: s.pop("z.table"), "tensor 'z.table' is missing"),
    "a float node inside": (
        lambda h, s: h["nodes"][2].update(op="sigmoid", attributes={}, tensors={}) or s.pop("z.table"),
        r"node 'z' \(sigmoid\): it reads integers, expected floats",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_named(damage, tmp_path):
    values = {"weight_exponent": ints(1, 2), "bias": np.ones(2, np.int32)}
    first = fixed.Linear("y", ("x",), weight=np.full((2, 2), 3, np.int8), **values)
    table = fixed.Table(
        "z", ("y",), table=np.array([5, 1, 9], np.int16), function="f", max_error=0.5, exponent=3, bits=8
    )
    ends = between(first, width=2).nodes[0], fixed.Dequantize("out", ("z",))
    path = tmp_path / "broken.lrnn"
    Program("in", 2, (ends[0], first, table, ends[1]), "out").save(path)
    header, stored = header_of(path), load_file(path)
    change, message = DAMAGE[damage]
    change(header, stored)
    save_file(stored, path, metadata={"lrnn": json.dumps(header)})
    with pytest.raises(ValueError, match=message) as caught:
        lrnn.load(path)
    assert str(caught.value).startswith(f"{path}: ")
