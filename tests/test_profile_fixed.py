"""`lrnn profile` in fixed point: counts, ranges, saturation, noise, and the node that loses most."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from fixed_cases import HAS_CORE, between, ints, ranges_of

import lrnn
from lrnn.cli import main
from lrnn.profile import count, noise
from lrnn.profile.noise import ValueFormat, loses_most, output_sqnr, value_formats
from lrnn.program import Program, compile_fixed
from lrnn.program import nodes as op
from lrnn.program.fixed import nodes as fixed
from lrnn.program.fixed.compiler import simplified
from lrnn.program.fixed.real import equations
from lrnn.program.numpy_executor import NumpyExecutor
from lrnn.program.rounded import rounded

CONFIG = lrnn.SequenceModelConfig(d_in=5, d_out=4, d_model=12, d_state=8, blocks=2, n_layers=2)


def make_float(density: float = 1.0, seed: int = 0, **options) -> Program:
    torch.manual_seed(seed)
    model = lrnn.SequenceModel(replace(CONFIG, **options)).eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.endswith("bias"):
                p.add_(torch.randn_like(p) * 0.3)
            if name.endswith("weight") and p.ndim == 2:
                p.mul_(torch.rand_like(p) < density)
    return lrnn.compile(model)


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((200, 5)).astype(np.float32)


@pytest.fixture(scope="module")
def floats() -> Program:
    return make_float()


@pytest.fixture(scope="module")
def program(floats, x) -> Program:
    return compile_fixed(floats, ranges_of(floats, x), "w8a16")


def run(program: Program, computes, x: np.ndarray) -> dict[str, np.ndarray]:
    """Every value of a fixed-point program's graph by these equations, (T, width)."""
    values = {program.input: torch.from_numpy(x).double()[None]}
    for node in program.nodes:
        values[node.name] = computes[node.name](*(values[name] for name in node.inputs))
    return {name: value[0].numpy() for name, value in values.items()}


def run_floats(program: Program, x: np.ndarray) -> dict[str, np.ndarray]:
    executor, seen = NumpyExecutor(program), []
    state = executor.zero_state()
    for frame in x:
        values, state = executor.trace(frame, state)
        seen.append(values)
    return {name: np.stack([values[name] for values in seen]) for name in seen[0]}


# Equations


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"relu": "none", "glu": "full"},
        {"norm": "layer"},
        {"relu": "pair", "prenorm": False},
        {"input_exponent": 3},
        {"head": "classification"},
    ],
    ids=str,
)
def test_equations_of_a_float_program_are_its_own(options, x):
    floats = make_float(**options)
    made = compile_fixed(floats, ranges_of(floats, x), "w4a8")
    found, expected = run(made, equations(made, floats), x), run_floats(simplified(floats), x)
    for name, value in expected.items():
        if name not in made.widths:  # quantizing the input rounds it as the model does
            assert options == {"input_exponent": 3}
            assert name == "round"
            continue
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=2e-5, err_msg=name)
    output = simplified(floats).output  # before the log-softmax of a classifier
    np.testing.assert_allclose(found[made.output], run_floats(floats, x)[output], rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("options", [{}, {"relu": "none"}, {"norm": "layer"}], ids=str)
def test_equations_of_integers_have_the_weights_on_their_grids(options, x):
    """So that they are those of a float program whose weights alone are rounded."""
    floats = make_float(**options)
    made = compile_fixed(floats, ranges_of(floats, x), "w4a16")
    found = run(made, equations(made), x)
    expected = run_floats(rounded(floats, "w4a16"), x)
    exact = run_floats(floats, x)
    for name in ("encoder", "blocks.0.ssm.B", "blocks.1.ssm.state", floats.output):
        mine = made.output if name == floats.output else name
        cost = np.abs(exact[name] - expected[name]).mean()
        assert cost > 1e-4
        assert np.abs(found[mine] - expected[name]).mean() < 0.02 * cost, name


def test_equations_of_nodes_that_no_float_program_has(x):
    """An RMS norm and a SiLU, and a mean over time, against numpy and against their integers."""
    exponents = {
        "scale": ints(3, -2, 1),
        "scale_exponent": ints(1, 1, 0),
        "bias": ints(0, 0, 1 << 16, dtype=np.int32),
    }
    norm = fixed.Norm("y", ("x",), **exponents, eps=1, centred=False, exponent=12, bits=24)
    silu = np.rint((u := np.arange(-8, 9)) / (1 + np.exp(-u.astype(float))) * 2**8).astype(np.int16)
    table = fixed.Table("y", ("x",), table=silu, function="silu", max_error=0.1, exponent=8, bits=16)
    u = np.random.default_rng(1).integers(-3000, 3000, (20, 3)).astype(np.float32)
    root = np.sqrt((u.astype(np.float64) ** 2).mean(-1, keepdims=True) + 1 / 9)
    expected = {
        norm: u / root * [1.5, -1, 1] + [0, 0, 1],
        fixed.MeanPool("y", ("x",), size=3): np.cumsum(u, 0) / np.arange(1, 21)[:, None],
    }
    for node, values in expected.items():
        made = between(node, width=3)
        np.testing.assert_allclose(run(made, equations(made), u)["y"], values, atol=1e-9)
        scale = 2.0 ** -made.formats["y"].exponent
        integers = np.stack([v["y"] for v in [run_floats(made, u)]])[0] * scale
        np.testing.assert_allclose(integers, values, atol=0.6 if scale == 1 else 2e-3)
    made = between(table, x_exponent=12, width=3)
    v = u / 2**12
    np.testing.assert_allclose(
        run(made, equations(made), v)["y"], v / (1 + np.exp(-v.astype(float))), atol=1e-9
    )


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (lambda: make_float(d_in=6), "reads 6 numbers per frame, expected 5"),
        (lambda: make_float(n_layers=1), "has no node 'blocks.1"),
        (
            lambda: make_float(d_model=10),
            "node 'encoder' is linear of widths .5, 10., expected linear of .5, 12.",
        ),
        (lambda: make_float(relu="none"), "node 'blocks.0.activation' is gelu|has no node|expected"),
    ],
    ids=["input", "layers", "width", "function"],
)
def test_another_float_program_is_refused(program, x, other, message):
    with pytest.raises(ValueError, match=message):
        value_formats(program, x, other())


# Ranges, saturation and noise


def test_ranges_and_saturation_by_hand():
    node = fixed.Rescale("y", ("x",), exponent=0, bits=4)
    made = between(node, x_exponent=1, x_bits=8, width=2)  # x in halves, up to 63.5; y whole, up to 7
    frames = np.array([[0.5, -7.0], [100.0, 3.0], [6.0, -9.0]], np.float32)
    x, y = value_formats(made, frames)
    assert (x.bits, x.exponent, x.accumulator_bits) == (8, 1, None)
    assert (y.bits, y.exponent, y.accumulator_bits) == (4, 0, 32)
    assert (x.saturated, x.bits_used, x.range_used) == (1, 8, 1.0)  # 100
    assert (y.saturated, y.saturated_share, y.bits_used) == (3, 0.5, 4)  # -7 is at the limit, 100, -9 beyond
    assert value_formats(made, np.ones((1, 2), np.float32))[0].bits_used == 3  # 2, with a sign
    assert value_formats(made)[1] == ValueFormat("y", 4, 0, 32)


def test_noise_by_hand():
    """x is off by 36.5 where it saturates; y by 0.5 where it rounds, and by what it cuts off."""
    node = fixed.Rescale("y", ("x",), exponent=0, bits=4)
    made = between(node, x_exponent=1, x_bits=8, width=2)
    frames = np.array([[0.5, -7.0], [100.0, 3.0], [6.0, -9.0]], np.float32)
    power = (frames.astype(float) ** 2).sum()
    x, y = value_formats(made, frames)
    assert x.sqnr == x.alone
    assert x.sqnr == pytest.approx(10 * math.log10(power / 36.5**2))
    assert y.sqnr == pytest.approx(10 * math.log10(power / (0.5**2 + 93**2 + 2**2)))
    assert y.alone == pytest.approx(10 * math.log10(power / (0.5**2 + 56.5**2 + 2**2)))
    assert loses_most([x, y]) is y
    assert output_sqnr([x, y]) == y.sqnr


def test_exact_and_silent_programs_have_no_noise():
    made = between(fixed.Relu("y", ("x",)), x_exponent=1, width=2)
    for frames in (np.array([[0.5, -7.0]], np.float32), np.zeros((3, 2), np.float32)):
        found = value_formats(made, frames)
        assert all(v.sqnr is None and v.alone is None for v in found)
        assert loses_most(found) is None


def test_what_a_relu_drops_is_no_loss():
    """y saturates far below zero: its own SQNR is poor, and nothing of it reaches the output."""
    node = fixed.Rescale("y", ("x",), exponent=1, bits=6)
    source = fixed.Quantize("x", ("in",), exponent=1, bits=16)
    made = Program("in", 1, (source, node, fixed.Relu("z", ("y",)), fixed.Dequantize("out", ("z",))), "out")
    _, y, z = value_formats(made, np.array([[3.0], [-500.0], [7.5]], np.float32))
    assert y.saturated == 1
    assert y.sqnr < 1
    assert y.alone is None
    assert z.sqnr is None


@pytest.mark.parametrize("scheme", ["w8a16", "w8a8", "w4a16", "loihi2"])
@pytest.mark.parametrize("against", [True, False], ids=["floats", "own weights"])
def test_errors_of_single_nodes_add_up(floats, x, scheme, against):
    made = compile_fixed(floats, ranges_of(floats, x), scheme)
    found = value_formats(made, x, floats if against else None)
    together = -10 * math.log10(sum(10 ** (-v.alone / 10) for v in found if v.alone is not None))
    assert together == pytest.approx(output_sqnr(found), abs=1.5)


def test_weights_are_the_noise_that_a_float_program_shows(floats, x):
    """At 4 bits they are most of it; against the integers' own weights there is none of it."""
    made = compile_fixed(floats, ranges_of(floats, x), "w4a16")
    own, against = (output_sqnr(value_formats(made, x, other)) for other in (None, floats))
    assert against < own - 20
    assert 5 < against < 40


@pytest.mark.parametrize("name", ["encoder", "blocks.0.ssm.state", "blocks.1.out2", "blocks.1.residual"])
def test_a_node_that_was_made_coarse_is_named(program, x, name):
    """Its value goes through a format that lacks nine bits, and back."""
    exponent = program.formats[name].exponent
    nodes: list[op.Node] = []
    for node in program.nodes:
        nodes.append(replace(node, inputs=tuple("back" if i == name else i for i in node.inputs)))
        if node.name == name:
            nodes.append(fixed.Rescale("bad", (name,), exponent=exponent - 9, bits=24))
            nodes.append(fixed.Rescale("back", ("bad",), exponent=exponent, bits=program.formats[name].bits))
    found = value_formats(replace(program, nodes=tuple(nodes)), x)
    assert loses_most(found).name == "bad"
    assert loses_most(found).alone < output_sqnr(value_formats(program, x)) - 6
    assert loses_most(found).alone == pytest.approx(output_sqnr(found), abs=1)


def test_pieces_of_the_data_count_as_the_whole(program, x, monkeypatch):
    whole = value_formats(program, x)
    monkeypatch.setattr(sys.modules[count.__module__], "_CHUNK", 37)
    assert value_formats(program, x) == whole
    monkeypatch.setattr(noise, "MOST_FRAMES", 50)
    short = value_formats(program, x)
    assert [v.range_used for v in short] == [v.range_used for v in whole]
    assert [v.sqnr for v in short] == [v.sqnr for v in value_formats(program, x[:50])]


# Counts


def test_a_program_in_fixed_point_counts_as_in_float(x):
    floats = make_float(density=0.5)
    made = compile_fixed(floats, ranges_of(floats, x), "w16a16")
    costs = {cost.name: cost for cost in count(made, x)}
    for cost in count(simplified(floats), x):
        mine = costs[cost.name]
        assert (mine.macs, mine.macs_weights) == (cost.macs, cost.macs_weights), cost.name
        assert mine.macs_effective == pytest.approx(cost.macs_effective, rel=0.02, abs=1), cost.name
    assert sum(c.macs for c in costs.values()) > 0
    encoder = next(n for n in made.nodes if n.name == "encoder")
    assert costs["encoder"].parameters == encoder.weight.size + encoder.bias.size
    tables = [n for n in made.nodes if isinstance(n, fixed.Table)]
    assert tables
    assert all(costs[n.name].parameters == 0 for n in tables)


def test_effective_macs_of_integers_are_counted_exactly():
    """Each weight counts as often as its input is not zero; 0.2 rounds to zero."""
    weight = ints([1, 0, 2], [0, 0, 3])
    node = fixed.Linear(
        "y", ("x",), weight=weight, weight_exponent=ints(0, 0), bias=ints(0, 5, dtype=np.int32)
    )
    frames = np.array([[1, 1, 0.2], [0.2, 1, 5]], np.float32)
    _, cost, _ = count(between(node, width=3), frames)
    assert (cost.macs, cost.macs_weights, cost.parameters, cost.nonzero) == (6, 3, 8, 4)
    assert cost.macs_effective == pytest.approx((1 + 2) / 2)
    assert cost.activity == pytest.approx(4 / 6)


# The command


@pytest.fixture
def files(tmp_path, program, floats, x):
    """Names of a program in fixed point, the one in float, and frames."""
    program.save(tmp_path / "q.lrnn")
    floats.save(tmp_path / "f.lrnn")
    np.save(tmp_path / "x.npy", x)
    return [str(tmp_path / name) for name in ("q.lrnn", "f.lrnn", "x.npy")]


def strict_json(text: str) -> dict:
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} in the JSON"))


def test_the_command_tells_it_in_json_and_in_words(files, program, floats, x, capsys):
    q, f, frames = files
    assert main(["profile", q, "--data", frames, "--float", f, "--json"]) == 0
    found = strict_json(capsys.readouterr().out)
    expected = value_formats(program, x, floats)
    assert [v["name"] for v in found["values"]] == [n.name for n in program.nodes][:-1]
    assert found["output_sqnr"] == output_sqnr(expected)
    assert found["loses_most"] == loses_most(expected).name
    assert found["noise_reference"].startswith(f"{f} in float64")
    assert main(["profile", q, "--data", frames, "--float", f]) == 0
    text = capsys.readouterr().out
    assert f"noise against {f} in float64" in text
    assert f"{loses_most(expected).name} loses most: {loses_most(expected).alone:.1f} dB alone" in text
    assert f"SQNR of the output: {output_sqnr(expected):.1f} dB" in text
    assert main(["profile", q, "--data", frames]) == 0
    assert "noise against its own integers' weights" in capsys.readouterr().out


def test_without_data_formats_stand_alone(files, capsys):
    assert main(["profile", files[0], "--json"]) == 0
    found = strict_json(capsys.readouterr().out)
    assert found["loses_most"] is found["output_sqnr"] is found["noise_reference"] is None
    assert all(v["bits"] in (16, 24) and v["sqnr"] is None for v in found["values"])
    assert main(["profile", files[0]]) == 0
    assert "ranges and noise: unmeasured, no data" in capsys.readouterr().out


def test_the_shipped_denoiser_stands_against_the_one_in_float_beside_it(capsys):
    pytest.importorskip("soundfile")
    assert main(["profile", "--json"]) == 0
    found = strict_json(capsys.readouterr().out)
    assert "denoiser-float.lrnn in float64" in found["noise_reference"]
    assert found["loses_most"] in {v["name"] for v in found["values"]}
    assert 15 < found["output_sqnr"] < min(v["alone"] for v in found["values"] if v["alone"]) + 3


def test_a_float_program_has_no_such_table(files, capsys):
    assert main(["profile", files[1], "--data", files[2], "--json"]) == 0
    assert set(strict_json(capsys.readouterr().out)) == {"nodes", "total", "matrices"}


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["FLOAT", "--data", "X", "--float", "FIXED"], "the profiled program is in float itself"),
        (["FIXED", "--float", "FLOAT"], "expected --data FILE"),
        (
            ["FIXED", "--data", "X", "--float", "FIXED"],
            "FIXED: it is in fixed point, expected a program in float",
        ),
        (["FIXED", "--data", "X", "--float", "none.lrnn"], "none.lrnn"),
    ],
)
def test_what_noise_cannot_be_measured_against(files, argv, message, capsys):
    names = dict(zip(("FIXED", "FLOAT", "X"), files, strict=True))
    assert main(["profile", *(names.get(word, word) for word in argv)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert message.replace("FIXED", files[0]) in err


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (np.zeros((0, 5)), "shape (0, 5), expected (frames, 5)"),
        (np.zeros((2, 9, 5)), "shape (2, 9, 5), expected (frames, 5)"),
        (np.full((9, 5), np.inf), "NaN or infinite values"),
    ],
    ids=["empty", "clips", "infinite"],
)
def test_frames_that_are_none(files, frames, message, capsys):
    np.save(files[2], frames)
    assert main(["profile", files[0], "--data", files[2]]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"lrnn: error: {files[2]}: ")
    assert message in err


@pytest.mark.parametrize("data", [True, False])
def test_the_picture(files, data, tmp_path):
    pytest.importorskip("matplotlib")
    argv = ["profile", files[0], "--plot", str(tmp_path / "p.png"), *(["--data", files[2]] if data else [])]
    assert main(argv) == 0
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.skipif(not HAS_CORE, reason="no core")
@pytest.mark.parametrize("scheme", ["w8a16", "w8a8", "w16a16"])
def test_kernels_of_integers_and_why(scheme, floats, x, tmp_path, capsys):
    """Weights of 16 bits run in compressed rows, whatever the density."""
    made = compile_fixed(floats, ranges_of(floats, x), scheme)
    made.save(tmp_path / "q.lrnn")
    assert main(["profile", str(tmp_path / "q.lrnn"), "--json"]) == 0
    found = strict_json(capsys.readouterr().out)
    costs = {n["name"]: n for n in found["nodes"]}
    assert [m["name"] for m in found["matrices"]] == [
        n.name for n in made.nodes if isinstance(n, fixed.Linear)
    ]
    for m in found["matrices"]:
        assert costs[m["name"]]["bytes"] > 0
        if scheme == "w16a16":
            assert m["kernel"] == "csr"
            assert m["dense_cycles"] is m["sparse_bytes"] is None
            assert m["why"].endswith("above 8 bits: compressed rows")
        else:
            better = "dense" if m["dense_cycles"] <= m["sparse_cycles"] else "sparse"
            assert (m["kernel"] == "dense") == (better == "dense")
    assert main(["profile", str(tmp_path / "q.lrnn")]) == 0
    assert found["matrices"][0]["why"] in capsys.readouterr().out


@pytest.mark.skipif(not HAS_CORE, reason="no core")
def test_a_matrix_without_weights_is_not_called_fast():
    from lrnn.profile.choice import explain

    weights = {"weight_exponent": ints(0, 0), "bias": ints(0, 0, dtype=np.int32)}
    node = fixed.Linear("y", ("x",), weight=np.zeros((2, 3), np.int8), **weights)
    made = between(node, width=3)
    (choice,) = explain(made, count(made, np.zeros((4, 3), np.float32)), {"y": "windows"})
    assert choice.why == "no weight is left"


def test_a_matrix_that_reads_many_bits():
    from lrnn.profile.choice import explain

    node = fixed.Linear("y", ("x",), weight=ints([3]), weight_exponent=ints(0), bias=ints(0, dtype=np.int32))
    made = between(node, x_bits=24)
    (choice,) = explain(made, count(made), {"y": "csr"})
    assert choice.why == "inputs of 24 bits, above 16: compressed rows"
    assert choice.dense_cycles is None
