"""A program's file: exact round trips, small when sparse, errors that name the file and what was found."""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as save_torch_file

import lrnn
from lrnn.program import Program, nodes
from lrnn.program.program import attributes, tensors

CONFIG = lrnn.SequenceModelConfig(
    d_in=5, d_out=4, d_model=6, d_state=8, blocks=2, n_layers=1, input_exponent=4
)


@pytest.fixture
def program() -> Program:
    torch.manual_seed(0)
    model = lrnn.SequenceModel(CONFIG)
    with torch.no_grad():
        model.encoder.bias.normal_()  # zeros would be stored sparse
        model.blocks[0].out2.weight *= torch.rand(6, 6) < 0.3
    return lrnn.compile(model, {"frontend": {"kind": "stft-mask", "hop": 128}, "card": ["é", 1.5, None]})


def assert_same(found: Program, expected: Program) -> None:
    assert (found.input, found.input_width, found.output) == (
        expected.input,
        expected.input_width,
        expected.output,
    )
    assert found.meta == expected.meta
    for node, other in zip(found.nodes, expected.nodes, strict=True):
        assert (type(node), node.name, node.inputs) == (type(other), other.name, other.inputs)
        assert attributes(node) == attributes(other)
        assert list(tensors(node)) == list(tensors(other))
        for name, value in tensors(node).items():
            assert value.dtype == np.float32
            assert value.shape == tensors(other)[name].shape
            assert value.tobytes() == tensors(other)[name].tobytes()  # every bit


def test_round_trip(program, tmp_path):
    program.save(tmp_path / "m.lrnn")
    assert_same(lrnn.load(tmp_path / "m.lrnn"), program)
    assert os.listdir(tmp_path) == ["m.lrnn"]


@pytest.mark.parametrize("norm", ["batch", "layer"])
@pytest.mark.parametrize("relu", ["none", "pair"])
def test_round_trip_of_every_node(norm, relu, tmp_path):
    config = replace(CONFIG, norm=norm, relu=relu, prenorm=False, head="classification", glu="full")
    program = lrnn.compile(lrnn.SequenceModel(config))
    program.save(str(tmp_path / "m.lrnn"))
    assert_same(lrnn.load(str(tmp_path / "m.lrnn")), program)


values = st.sampled_from([0.0, -0.0, 0.0, 0.0, 1.0, -1e-45, 3e38])


@settings(max_examples=30, deadline=None)
@given(data=st.data(), rows=st.integers(0, 9), cols=st.integers(1, 9))
def test_round_trip_keeps_every_bit(data, rows, cols, tmp_path_factory):
    elements = data.draw(st.lists(values, min_size=rows * cols, max_size=rows * cols))
    weight = np.array(elements, np.float32).reshape(rows, cols)
    program = Program("x", cols, (nodes.Linear("y", ("x",), weight),), "y")
    path = tmp_path_factory.mktemp("file") / "m.lrnn"
    program.save(path)
    assert_same(lrnn.load(path), program)


def test_a_sparse_network_is_small(tmp_path):
    """The paper's network at 90 %: 508,097 parameters, 2 MB when dense."""
    torch.manual_seed(0)
    model = lrnn.SequenceModel(lrnn.SequenceModelConfig(d_in=257, d_out=257))
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.ndim == 2:
                p *= torch.rand_like(p) < 0.1
            elif p.ndim == 3:
                p *= torch.rand(*p.shape[:2], 1) < 0.1
            assert p.ndim < 4, name
    program = lrnn.compile(model)
    program.save(tmp_path / "m.lrnn")
    kept = sum((value != 0).sum() for node in program.nodes for value in tensors(node).values())
    size = sum(value.size for node in program.nodes for value in tensors(node).values())
    assert kept < 0.11 * size
    assert os.path.getsize(tmp_path / "m.lrnn") < 4 * kept + size / 8 + 16_000 < 320_000


def test_a_failed_save_leaves_the_old_file(program, tmp_path):
    path = tmp_path / "m.lrnn"
    program.save(path)
    before = path.read_bytes()
    for bad in ({"x": object()}, {"x": float("nan")}):
        with pytest.raises(ValueError, match=r"program\.meta is not made of JSON values"):
            replace(program, meta=bad).save(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["m.lrnn"]
    with pytest.raises(FileNotFoundError, match="missing"):
        program.save(tmp_path / "missing" / "m.lrnn")


def tampered(program: Program, path, change) -> None:
    """Save a program, then let change(header, tensors) spoil it."""
    program.save(path)
    with safe_open(path, framework="np") as file:
        header = json.loads(file.metadata()["lrnn"])
    stored = load_file(path)
    change(header, stored)
    save_file(stored, path, metadata={"lrnn": json.dumps(header)})


def node(header: dict, name: str) -> dict:
    return next(record for record in header["nodes"] if record["name"] == name)


def _set(name, key, value):
    return lambda header, stored: node(header, name).update({key: value})


def _store(key, value):
    return lambda header, stored: stored.update({key: value})


def _out2(header) -> dict:
    return node(header, "blocks.0.out2")["tensors"]["weight"]


MASK = "blocks.0.out2.weight.mask"

DAMAGE = {
    "other format": (
        lambda h, s: h.update(format="lrnn-model"),
        "found format 'lrnn-model', expected 'lrnn-program'",
    ),
    "newer": (lambda h, s: h.update(version=3), "found version 3 of lrnn-program, expected 1 or 2"),
    "no nodes": (lambda h, s: h.pop("nodes"), "lacks 'nodes'"),
    "nodes of text": (lambda h, s: h.update(nodes=["encoder"]), "a node is 'encoder', expected dict"),
    "width of text": (lambda h, s: h.update(input_width="5"), "'input_width' is '5', expected int"),
    "true width": (lambda h, s: h.update(input_width=True), "'input_width' is True, expected int"),
    "unknown op": (_set("encoder", "op", "exec"), "node 'encoder': op 'exec' is unknown"),
    "unknown tensor": (_set("relu", "tensors", {"w": "encoder.bias"}), "node 'relu': relu has no tensor 'w'"),
    "unknown attribute": (_set("relu", "attributes", {"slope": 1}), r"attributes \['slope'\], expected \[\]"),
    "attribute of text": (_set("round", "attributes", {"exponent": "4"}), "'exponent' is '4', expected int"),
    "nan attribute": (_set("round", "attributes", {"exponent": float("nan")}), "expected int"),
    "no such input": (_set("relu", "inputs", ["else"]), "reads 'else', which no earlier node makes"),
    "number as input": (_set("relu", "inputs", [3]), "an input is 3, expected str"),
    "missing field": (
        _set("encoder", "tensors", {"bias": "encoder.bias"}),
        "tensor 'weight' of linear is missing",
    ),
    "missing tensor": (
        lambda h, s: s.pop("encoder.bias"),
        "node 'encoder': tensor 'encoder.bias' is missing",
    ),
    "stray tensor": (_store("stray", np.zeros(1, np.float32)), "tensor 'stray' belongs to no node"),
    "wrong shape": (
        _store("encoder.bias", np.zeros(2, np.float32)),
        r"bias has shape \(2,\), expected \(6,\)",
    ),
    "wrong dtype": (_store("encoder.bias", np.zeros(6, np.int32)), "bias is int32, expected float32"),
    "nan": (
        _store("encoder.bias", np.full(6, np.nan, np.float32)),
        r"node 'encoder' \(linear\): bias has NaN",
    ),
    "short mask": (_store(MASK, np.zeros(4, np.uint8)), "expected one bit per element"),
    "wide mask": (_store(MASK, np.zeros(5, np.int64)), "expected one bit per element"),
    "empty mask": (_store(MASK, np.zeros(5, np.uint8)), r"have shape \(\d+,\), expected \(0,\)"),
    "bits beyond": (lambda h, s: s[MASK].__setitem__(4, s[MASK][4] | 128), "no bit beyond 36 elements"),
    "negative shape": (lambda h, s: _out2(h).update(shape=[-6, -6]), "expected one bit per element"),
    "huge shape": (lambda h, s: _out2(h).update(shape=[2**40, 2**40]), "expected one bit per element"),
    "shape of text": (
        lambda h, s: _out2(h).update(shape=["6", 6]),
        "a length in a shape is '6', expected int",
    ),
    "sparse entry of text": (
        _set("encoder", "tensors", {"weight": 7}),
        "a tensor's entry is 7, expected dict",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_named(damage, program, tmp_path):
    change, message = DAMAGE[damage]
    path = tmp_path / "broken.lrnn"
    tampered(program, path, change)
    with pytest.raises(ValueError, match=message) as caught:
        lrnn.load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_file_of_another_kind_is_named(program, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.lrnn"):
        lrnn.load(tmp_path / "none.lrnn")
    program.save(tmp_path / "m.lrnn")
    whole = (tmp_path / "m.lrnn").read_bytes()
    for name, content in {
        "text": b"not a program",
        "empty": b"",
        "cut": whole[:-10],
        "zeros": bytes(100),
    }.items():
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"{name}: not a safetensors file"):
            lrnn.load(path)
    header = {"format": "lrnn-program", "version": 1}
    halves = {"w": torch.zeros(3, dtype=torch.bfloat16)}
    save_torch_file(halves, tmp_path / "halves", metadata={"lrnn": json.dumps(header)})
    with pytest.raises(ValueError, match="halves: a tensor's type is unknown to numpy"):
        lrnn.load(tmp_path / "halves")
    save_file({}, tmp_path / "bare")
    with pytest.raises(ValueError, match="bare: found format None, expected 'lrnn-program'"):
        lrnn.load(tmp_path / "bare")


def test_types_that_only_an_extension_gives_numpy_are_named(tmp_path):
    """With ml_dtypes, which onnx imports, numpy reads bfloat16 after all."""
    pytest.importorskip("ml_dtypes")
    save_torch_file(
        {"w": torch.zeros(3, dtype=torch.bfloat16)},
        tmp_path / "halves",
        metadata={"lrnn": json.dumps({"format": "lrnn-program", "version": 1})},
    )
    with pytest.raises(ValueError, match="halves: a tensor's type is unknown to numpy"):
        lrnn.load(tmp_path / "halves")


def test_compile_command(tmp_path, capsys):
    from lrnn.cli.compile import add

    torch.manual_seed(0)
    model = lrnn.SequenceModel(CONFIG).eval()
    meta = {"frontend": {"kind": "stft-mask"}}
    model.save(tmp_path / "model.safetensors", meta)
    parser = argparse.ArgumentParser()
    add(parser.add_subparsers())
    out = str(tmp_path / "m.lrnn")
    args = parser.parse_args(["compile", str(tmp_path / "model.safetensors"), "-o", out, "--json"])
    assert args.run(args) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["bytes"] == os.path.getsize(out)
    assert report["nonzeros"] <= report["parameters"]
    assert_same(lrnn.load(out), lrnn.compile(model, meta))
