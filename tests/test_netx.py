"""lrnn.export.netx without Lava: a stack's integers are the program's, and what netx cannot do is named."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from netx_cases import frames, integers, mlp, program, stack, two_branches
from torch import nn

import lrnn
from lrnn.cli import main
from lrnn.export.netx import (
    compile_netx,
    find_segments,
    program_integers,
    read_net,
    verify_nets,
    whole_stack,
    write_net,
    write_segments,
)
from lrnn.models import DENOISER
from lrnn.program import Program
from lrnn.program.fixed import nodes as fixed
from lrnn.program.torch_executor import TorchExecutor
from lrnn.quant import get_scheme

DEEP = (16, 24, 24, 24, 24, 4)
WIDTHS = [(5, 7, 3), (9, 4), (12, 20, 16, 8), DEEP]


# A Sequential compiles


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("widths", WIDTHS)
def test_a_sequential_compiles_and_computes_the_same(widths, relu):
    model, x = mlp(*widths, relu=relu), frames(widths[0])
    y = lrnn.compile(model).stream().run(x)
    np.testing.assert_allclose(y, model(torch.from_numpy(x)).numpy(), rtol=1e-4, atol=1e-5)


def test_a_nested_sequential_names_its_nodes_by_their_paths():
    compiled = lrnn.compile(nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.ReLU(), nn.Linear(3, 1))))
    assert [(n.name, n.inputs) for n in compiled.nodes] == [
        ("0", ("input",)),
        ("1.0", ("0",)),
        ("1.1", ("1.0",)),
    ]


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (nn.Linear(3, 2), r"model is a Linear, expected an lrnn\..* torch\.nn\.Sequential"),
        (nn.Sequential(nn.ReLU()), "model begins with a ReLU, expected a torch.nn.Linear"),
        (nn.Sequential(), "model begins with a NoneType, expected a torch.nn.Linear"),
    ],
)
def test_another_model_is_refused(model, words):
    with pytest.raises(TypeError, match=words):
        lrnn.compile(model)


# Lowering


@pytest.mark.parametrize("density", [1.0, 0.3])
@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("widths", WIDTHS)
def test_a_stack_makes_the_integers_of_its_program(widths, relu, density):
    made = program(*widths, relu=relu, density=density)
    found = whole_stack(made)
    x = np.concatenate([frames(widths[0]), 100 * frames(widths[0], 5)])  # the last ones saturate the input
    read, expected = program_integers(made, found, x)
    np.testing.assert_array_equal(found.run(read), expected)
    traced, _ = TorchExecutor(made).trace(torch.from_numpy(x)[None])
    np.testing.assert_array_equal(traced[found.value][0].numpy(), expected)
    floats = expected * 2.0**-found.exponent
    np.testing.assert_array_equal(made.stream().run(x), floats.astype(np.float32))


def test_what_is_lowered_is_near_to_the_program_in_float():
    model, x = mlp(12, 20, 16, 8, relu=False), frames(12, 200)
    floats = lrnn.compile(model)
    ranges = lrnn.calibrate(floats, [x])
    y = model(torch.from_numpy(x)).numpy()
    errors = [
        np.square(made.stream().run(x) - y).mean()
        for made in (compile_netx(floats, ranges), lrnn.compile_fixed(floats, ranges, "w8a16"))
    ]
    assert errors[0] < 1e-3 * np.square(y).mean()
    assert errors[0] < 8 * errors[1]  # a scale for each row is worth something


def test_the_mean_of_rounding_down_is_in_the_biases():
    floats = lrnn.compile(mlp(12, 20, 16, 8))
    made = compile_netx(floats, lrnn.calibrate(floats, [frames(12)]))
    for node in made.nodes:
        if isinstance(node, fixed.Linear):
            bias = next(n for n in floats.nodes if n.name == node.name).bias
            units = (node.bias >> 6) - np.ldexp(bias.astype(float), node.exponent)
            assert (np.abs(units - 0.5) <= 0.5).all()


def test_nothing_saturates_whatever_goes_in():
    """The worst frame of every row of the first layer, and random extremes, in integers without limits."""
    made = program(20, 30, 12, relu=False)
    found = whole_stack(made)
    signs = np.sign(found.layers[0].weight.astype(int))
    most = found.input.high
    x = np.concatenate([most * signs, -most * signs, integers(found)])
    values = np.ldexp(x.astype(np.float32), -found.input.exponent)
    read, expected = program_integers(made, found, values)
    np.testing.assert_array_equal(read, x)
    np.testing.assert_array_equal(found.run(x), expected)
    assert (found.run(x) + found.offset >= 0).all()


def test_a_wide_network_gets_fewer_bits_of_input():
    bits = [whole_stack(program(*widths)).input.bits for widths in ((8, 8, 8), (200, 200, 200))]
    assert bits[0] > bits[1]


def test_a_deep_network_is_shifted_between_its_layers():
    model, x = mlp(*DEEP), frames(16, 200)
    floats = lrnn.compile(model)
    ranges = lrnn.calibrate(floats, [x])
    made = compile_netx(floats, ranges)
    shifts = [n.name for n in made.nodes if isinstance(n, fixed.Rescale)]
    assert shifts
    assert set(shifts) < {layer.node for layer in whole_stack(made).layers}
    y = model(torch.from_numpy(x)).numpy()
    tensor = replace(get_scheme("w8a16"), weight_scale="tensor")
    errors = [
        np.square(p.stream().run(x) - y).mean() for p in (made, lrnn.compile_fixed(floats, ranges, tensor))
    ]
    assert errors[0] < 1.5 * errors[1]


def test_lowering_refuses_integers_and_two_layers_without_a_relu():
    floats = lrnn.compile(mlp(4, 4, 4))
    ranges = lrnn.calibrate(floats, [frames(4)])
    with pytest.raises(ValueError, match="in fixed point already"):
        compile_netx(lrnn.compile_fixed(floats, ranges), ranges)
    first, _, second, _ = floats.nodes
    linear_twice = replace(floats, nodes=(first, replace(second, inputs=("0",))), output="2")
    with pytest.raises(ValueError, match=r"'2'.*it is linear, expected relu"):
        compile_netx(linear_twice, ranges)


def test_lowering_names_the_node_that_netx_lacks():
    config = lrnn.SequenceModelConfig(d_in=5, d_out=4, d_model=6, d_state=8, blocks=2, n_layers=1)
    floats = lrnn.compile(lrnn.SequenceModel(config))
    with pytest.raises(ValueError, match=r"blocks.0.*expected"):
        compile_netx(floats, lrnn.calibrate(floats, [frames(5)]))


def test_lowering_names_a_matrix_of_zeros():
    model = mlp(4, 4, 4)
    model[2].weight.data.zero_()
    floats = lrnn.compile(model)
    with pytest.raises(ValueError, match=r"'2'.*all zeros"):
        compile_netx(floats, lrnn.calibrate(floats, [frames(4)]))


# Segments


def changed(made: Program, name: str, **fields) -> Program:
    return replace(made, nodes=tuple(replace(n, **fields) if n.name == name else n for n in made.nodes))


def linear(made: Program, name: str) -> fixed.Linear:
    return next(n for n in made.nodes if n.name == name)


def one_more(values: np.ndarray, by: int) -> np.ndarray:
    values = values.copy()
    values[1] += by
    return values


REFUSALS = {
    "rounding is nearest_even": lambda n: {"rounding": "nearest_even"},
    "row 1 is shifted by 7": lambda n: {"weight_exponent": one_more(n.weight_exponent, 1)},
    "bias of row 1": lambda n: {"bias": one_more(n.bias, 32)},
    "all zeros": lambda n: {"weight": np.zeros_like(n.weight)},
    "weight reaches 500": lambda n: {"weight": np.full_like(n.weight, 500, np.int16)},
    "saturates at 127": lambda n: {"bits": 8},
}


@pytest.mark.parametrize("words", REFUSALS)
def test_a_layer_that_netx_would_compute_otherwise_is_left_out(words):
    """And what stands before it is carried all the same."""
    made = program(6, 8, 8, 5)
    found = find_segments(changed(made, "2", **REFUSALS[words](linear(made, "2"))))
    assert words in found.left_out["2"]
    assert found.stacks[0].value == "1"
    assert {"0", "1"} <= set(found.carried)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"rounding": "nearest_up"}, "rounding is nearest_up"),
        ({"bits": 8}, "saturates at 127"),
        ({"exponent": -3}, "expected 0 to 6"),
    ],
)
def test_a_shift_that_netx_would_compute_otherwise_is_left_out(fields, words):
    made = program(*DEEP)
    first = next(n for n in made.nodes if isinstance(n, fixed.Rescale))
    small = fixed.Dequantize("out", (first.name,))
    ending = (*made.nodes[: made.nodes.index(first) + 1], small)
    found = find_segments(changed(replace(made, nodes=ending, output="out"), first.name, **fields))
    assert words in found.left_out[first.name]
    assert found.stacks[0].value == first.inputs[0]
    whole = whole_stack(replace(made, nodes=ending, output="out"))
    assert whole.value == first.name


def test_small_weights_make_the_greatest_sums_for_netx_shifts_them():
    weight = np.resize(np.int8([1, -1]), (6, 300))
    layer = fixed.Linear(
        "w",
        ("q",),
        exponent=0,
        bits=24,
        rounding="floor",
        weight=weight,
        weight_exponent=np.full(6, 6, np.int8),
        bias=np.zeros(6, np.int32),
    )
    made = Program(
        "x",
        300,
        (fixed.Quantize("q", ("x",), exponent=0, bits=20), layer, fixed.Dequantize("y", ("w",))),
        "y",
    )
    assert "in netx, expected less than 2 ** 31" in find_segments(made).left_out["w"]
    large = changed(
        changed(made, "w", weight=64 * weight, weight_exponent=np.full(6, 6, np.int8)), "q", bits=12
    )
    assert not find_segments(large).left_out.keys() & {"w"}


def test_a_last_layer_may_saturate_below_where_the_relu_of_netx_ends_too():
    weight = np.int8([[-100, -100], [60, -100]])
    layer = fixed.Linear(
        "w",
        ("q",),
        exponent=0,
        bits=8,
        rounding="floor",
        weight=weight,
        weight_exponent=np.full(2, 6, np.int8),
        bias=np.int32([64 * 90, 0]),
    )
    quantize = fixed.Quantize("q", ("x",), exponent=0, bits=7)
    made = Program("x", 2, (quantize, layer, fixed.Dequantize("y", ("w",))), "y")
    assert "could reach 286 and saturates at 127" in find_segments(made).left_out["w"]
    low = replace(made, nodes=(fixed.Quantize("q", ("x",), exponent=0, bits=6), *made.nodes[1:]))
    assert "could reach 186" in find_segments(low).left_out["w"]
    fits = changed(low, "w", bias=np.int32([64 * 20, -64 * 110]))
    found = whole_stack(fits)
    assert found.offset == 127
    x = integers(found)
    read, expected = program_integers(fits, found, x.astype(np.float32))
    np.testing.assert_array_equal(found.run(read), expected)
    assert expected.min() == -127


def test_segments_of_a_graph_that_is_no_chain():
    made = two_branches()
    found = find_segments(made)
    assert [(s.source, s.value) for s in found.stacks] == [
        ("input.integers", "3"),
        ("3", "left.relu"),
        ("3", "right.relu"),
        ("sum", "head.relu"),
    ]
    assert "joins no branches" in found.left_out["sum"]
    assert set(found.carried) | set(found.left_out) == {n.name for n in made.nodes}
    assert not set(found.carried) & set(found.left_out)
    for segment in found.stacks:
        x, y = program_integers(made, segment, frames(6))
        np.testing.assert_array_equal(segment.run(x), y)
    with pytest.raises(ValueError, match=r"'sum' \(fixed_add\).*joins no branches"):
        whole_stack(made)


def test_the_manifest_says_of_every_node_where_it_is(tmp_path):
    made = two_branches()
    manifest = write_segments(made, tmp_path)
    assert manifest == json.loads((tmp_path / "manifest.json").read_text())
    named = [name for s in manifest["segments"] for name in s["carries"]]
    named += [left["node"] for left in manifest["left_out"]]
    assert sorted(named) == sorted(n.name for n in made.nodes)
    assert not manifest["whole"]
    assert len(list(tmp_path.iterdir())) == 5
    for segment in manifest["segments"]:
        read = read_net(tmp_path / segment["file"])
        x, y = program_integers(made, read, frames(6))
        np.testing.assert_array_equal(read.run(x), y)


def test_of_the_shipped_denoiser_nothing_can_be_carried_and_the_manifest_says_why(tmp_path):
    made = lrnn.load(DENOISER)
    manifest = write_segments(made, tmp_path)
    assert manifest["segments"] == []
    assert [left["node"] for left in manifest["left_out"]] == [n.name for n in made.nodes]
    why = {left["node"]: left["why"] for left in manifest["left_out"]}
    assert "rounds down" in why["encoder"]
    assert "no linear recurrence" in why["blocks.0.ssm.state"]


def test_of_every_kind_of_node_there_is_a_reason():
    from lrnn.export.netx import segments
    from lrnn.program.fixed.nodes import FIXED_NODES

    assert {"fixed_linear", "fixed_relu"} | set(segments._MISSING) >= set(FIXED_NODES)


def test_a_program_in_float_is_refused(tmp_path):
    with pytest.raises(ValueError, match="program is in float"):
        write_segments(lrnn.compile(mlp(3, 3)), tmp_path)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        write_segments(program(3, 3), tmp_path / "none")


# Files


def test_a_file_holds_what_netx_reads(tmp_path):
    h5py = pytest.importorskip("h5py")
    found = whole_stack(program(6, 8, 5, relu=False))
    write_net(found, tmp_path / "m.net")
    with h5py.File(tmp_path / "m.net") as file:
        assert sorted(file) == ["layer", "lrnn"]
        assert sorted(file["layer"]) == ["0", "1", "2"]
        assert [file[f"layer/{i}/type"][0] for i in range(3)] == [b"input", b"dense", b"dense"]
        for i, layer in enumerate(found.layers, 1):
            group = file[f"layer/{i}"]
            np.testing.assert_array_equal(group["weight"][()], layer.weight)
            np.testing.assert_array_equal(group["bias"][()], layer.bias)
            assert group["neuron/type"][0] == b"SDNN"
            assert group["neuron/vThMant"][()] == 0
            assert group["shape"][()].tolist() == [len(layer.weight)]
    read = read_net(tmp_path / "m.net")
    assert (read.input, read.exponent, read.offset) == (found.input, found.exponent, found.offset)
    x = integers(found)
    np.testing.assert_array_equal(read.run(x), found.run(x))
    assert [p.name for p in tmp_path.iterdir()] == ["m.net"]


def test_files_that_are_no_nets_are_refused(tmp_path):
    h5py = pytest.importorskip("h5py")
    with pytest.raises(FileNotFoundError, match=r"none.net: no such file"):
        read_net(tmp_path / "none.net")
    (tmp_path / "text.net").write_text("text")
    with pytest.raises(ValueError, match=r"text.net: not an HDF5 file"):
        read_net(tmp_path / "text.net")
    with h5py.File(tmp_path / "other.net", "w") as file:
        file["layer/0/type"] = "input"
    with pytest.raises(ValueError, match=r"other.net: found no group 'lrnn'"):
        read_net(tmp_path / "other.net")
    with h5py.File(tmp_path / "list.net", "w") as file:
        file["lrnn/stack"], file["layer/0/type"] = "[1]", "input"
    with pytest.raises(ValueError, match=r"list.net: found format and version None"):
        read_net(tmp_path / "list.net")
    write_net(whole_stack(program(3, 3)), tmp_path / "m.net")
    with h5py.File(tmp_path / "m.net", "a") as file:
        del file["layer/1/bias"]
    with pytest.raises(ValueError, match=r"m.net: incomplete"):
        read_net(tmp_path / "m.net")


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (np.zeros((4, 2), int), "expected integers of shape"),
        (np.zeros((4, 3)), "float64; expected integers"),
        (np.full((4, 3), 5000), "expected -2047 to 2047"),
    ],
)
def test_frames_that_do_not_fit_are_refused(x, words):
    with pytest.raises(ValueError, match=words):
        stack(np.ones((2, 3))).run(x)


# Verification, as far as it goes without Lava


def test_an_interpreter_that_is_none_and_one_without_lava_are_named(tmp_path):
    import sys

    found = stack(np.ones((2, 3)))
    write_net(found, tmp_path / "m.net")
    with pytest.raises(FileNotFoundError, match="no such interpreter"):
        verify_nets([(tmp_path / "m.net", integers(found))], tmp_path / "python")
    with pytest.raises(RuntimeError, match=r"netx failed: .*lava"):
        verify_nets([(tmp_path / "m.net", integers(found))], sys.executable)


# The commands


def export(*argv: str) -> int:
    return main(["export", "netx", *argv])


def refused(capsys, *argv: str) -> str:
    """The one line that says why."""
    assert export(*argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return err


def test_from_a_program_in_float_to_a_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    lrnn.compile(mlp(6, 8, 5, relu=False)).save("m.lrnn")
    np.save("x.npy", frames(6))
    assert main(["quantize", "m.lrnn", "-o", "q.lrnn", "--scheme", "netx", "--calibrate", "x.npy"]) == 0
    capsys.readouterr()
    assert export("q.lrnn", "-o", "m.net", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["bytes"] == (tmp_path / "m.net").stat().st_size
    assert [row["shape"] for row in report["layers"]] == [[8, 6], [5, 8]]
    made = lrnn.load("q.lrnn")
    assert made.meta["scheme"]["name"] == "netx"
    x, y = program_integers(made, read_net("m.net"), frames(6))
    np.testing.assert_array_equal(read_net("m.net").run(x), y)
    assert export("q.lrnn", "-o", "m.net") == 0
    assert "2 dense layers" in capsys.readouterr().out


def test_the_command_refuses_what_is_no_chain(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    lrnn.compile(mlp(3, 3)).save("float.lrnn")
    err = refused(capsys, "float.lrnn", "-o", "m.net")
    assert "float.lrnn: found a program in float" in err
    assert "--scheme netx" in err
    err = refused(capsys, str(DENOISER), "-o", "m.net")
    assert "node 'encoder' (fixed_linear): rounding is nearest_even" in err
    program(3, 3).save("q.lrnn")
    monkeypatch.setenv("LRNN_LAVA", "no-such-python")
    assert "no-such-python" in refused(capsys, "q.lrnn", "-o", "m.net", "--verify")
    assert "without --verify" in refused(capsys, "q.lrnn", "-o", "m.net", "--data", "x.npy")
    assert "--steps is 0" in refused(capsys, "q.lrnn", "-o", "m.net", "--steps", "0")
    assert not (tmp_path / "m.net").exists()
