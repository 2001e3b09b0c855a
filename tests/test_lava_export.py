"""An export for Lava: balanced, proved, whole or not at all; and its operations, without Lava, make the
normative integers.
"""

from __future__ import annotations

import json
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from fixed_cases import between, ints
from lava_cases import lrnn_lava_export, random_program, simulate

import lrnn
from lrnn.cli import main
from lrnn.export.lava import export
from lrnn.export.lava.checks import MOST_INPUTS, MOST_OUTPUTS, check
from lrnn.export.lava.environment import _correct, build, find_lava, find_python
from lrnn.export.lava.folder import sha256
from lrnn.export.lava.graph import SOURCE, make_graph
from lrnn.export.lava.vectors import generated_frames, golden_vectors
from lrnn.export.lava.verify import _steps
from lrnn.models import DEMO_CLIP, DENOISER, DENOISER_FLOAT
from lrnn.program import Program
from lrnn.program.fixed import nodes as fixed


def linear(name="y", source="x", weight=((1, -2), (3, 4)), **fields):
    weight = np.array(weight, np.int8)
    rows = len(weight)
    fields = {"weight_exponent": np.zeros(rows, np.int8), "bias": np.zeros(rows, np.int32)} | fields
    return fixed.Linear(name, (source,), weight=weight, **fields)


@pytest.mark.parametrize("seed", range(30))
def test_operations_delays_and_resets_make_the_normative_integers(seed, tmp_path):
    program = random_program(seed)
    frames = generated_frames(program, 24, seed)
    export(program, tmp_path / "out", frames, resets=[7, 8, 19])
    golden = golden_vectors(program, frames, [7, 8, 19])
    found = simulate(tmp_path / "out")
    assert set(found) == {n.name for n in program.nodes[1:-1]}
    for name, value in found.items():
        assert np.array_equal(value, golden[f"values/{name}"]), name


def test_random_programs_have_every_operation():
    ops = {node.op for seed in range(30) for node in random_program(seed).nodes}
    assert ops >= set(fixed.FIXED_NODES) - {"fixed_embedding", "fixed_gated"}


@pytest.mark.parametrize("program", [DENOISER, *range(20)], ids=str)
def test_what_a_group_reads_belongs_to_one_frame(program):
    program = lrnn.load(program) if program is DENOISER else random_program(program, 30)
    graph = make_graph(program)
    home = {n.name: i for i, g in enumerate(graph.groups) for n in g.nodes} | {graph.input: SOURCE}
    latency = [g.latency for g in graph.groups] + [0]
    for s in graph.synapses:
        assert home[s.value] < s.group  # an order that can be run
        assert latency[home[s.value]] + 1 + s.delay == latency[s.group]
        assert 0 <= s.delay <= 62
    assert sorted(home) == sorted({n.name for n in program.nodes} - {program.output})
    assert min(latency[:-1]) == 1


def test_the_denoiser_is_a_chain_of_neurons_three_to_a_block():
    graph = make_graph(lrnn.load(DENOISER))
    assert len(graph.groups) == graph.latency == 11
    assert [n.name for n in graph.groups[3].nodes] == [
        f"blocks.0.{name}" for name in ("out2", "sigmoid", "gate", "residual", "relu")
    ]
    assert {(s.value, s.delay) for s in graph.synapses if s.group == 3 and not s.matrix} == {
        ("relu", 2),
        ("blocks.0.activation", 0),
    }


def test_two_branches_that_meet_run_side_by_side():
    nodes = (
        fixed.Quantize("x", ("in",), exponent=8),
        linear("a"),
        linear("b"),
        fixed.Product("y", ("a", "b"), exponent=8, bits=16),
        fixed.Dequantize("out", ("y",)),
    )
    graph = make_graph(Program("in", 2, nodes, "out"))
    assert [[n.name for n in g.nodes] for g in graph.groups] == [["a", "b", "y"]]
    assert [s.name for s in graph.synapses] == ["a", "b"]


@pytest.mark.parametrize("between", [62, 63])
def test_a_delay_of_more_than_62_steps_is_refused(between):
    """An input that skips so many matrices."""
    nodes = [fixed.Quantize("n0", ("in",), exponent=8)]
    nodes += [linear(f"n{i + 1}", f"n{i}", bits=8) for i in range(between + 1)]
    nodes += [fixed.Add("y", (nodes[-1].name, "n0"), exponent=8), fixed.Dequantize("out", ("y",))]
    program = Program("in", 2, tuple(nodes), "out")
    if between == 62:
        assert max(s.delay for s in make_graph(program).synapses) == 62
        return
    with pytest.raises(
        ValueError, match=r"node 'y' .fixed_add.: its input 'n0' waits 63 steps, expected at most 62"
    ):
        make_graph(program)


@pytest.mark.parametrize(
    ("node", "told"),
    [
        (
            fixed.Linear(
                "y",
                ("x",),
                weight=np.array([[300, 1]], np.int16),
                weight_exponent=ints(0),
                bias=ints(0, dtype=np.int32),
            ),
            "node 'y' .fixed_linear.: a weight has magnitude 300, expected at most 127",
        ),
        (fixed.Rescale("y", ("x",), exponent=8, bits=25), "node 'y': it sends 25 bits, expected at most 24"),
    ],
    ids=["weight", "message"],
)
def test_what_does_not_fit_is_refused_by_name(node, told, tmp_path):
    program = between(node, width=2)
    with pytest.raises(ValueError, match=told):
        export(program, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_sum_that_lava_would_wrap_is_refused(tmp_path):
    """127 * 32767 * 258 * 2 is the first beyond int32."""
    fits = between(linear(weight=np.full((1, 257), 127)), width=257)
    checks = export(fits, tmp_path / "out", np.zeros((3, 257)))["checks"]["sums"]["y"]
    assert checks == {"worst_case": 257 * 127 * 32767, "bits": 31, "rows_beyond_24_bits": [0]}
    wraps = between(linear(weight=np.full((1, 259), 127)), width=259)
    with pytest.raises(ValueError, match=r"node 'y'.*row 0 could reach \d+ in Lava's simulator"):
        export(wraps, tmp_path / "wraps", np.zeros((3, 259)))


def test_what_no_core_of_the_chip_holds_is_refused_by_name(tmp_path, capsys):
    """One neuron more axons than a core has."""
    for width, told in (
        (4096, None),
        (4097, "node 'y': one neuron alone takes 4,097 of a Loihi 2 core's fan-in"),
    ):
        between(linear(weight=np.ones((1, width))), width=width).save(tmp_path / "m.lrnn")
        command = ["export", "lava", str(tmp_path / "m.lrnn"), "-o", str(tmp_path / "out"), "--steps", "2"]
        assert main(command) == (2 if told else 0)
        assert (told or "") in capsys.readouterr().err
        assert (tmp_path / "out").exists() == (told is None)
        shutil.rmtree(tmp_path / "out", ignore_errors=True)


def test_norms_are_marked_as_what_no_neuron_computes_alone(tmp_path, capsys):
    norm = fixed.Norm(
        "y",
        ("x",),
        scale=ints(3, 5),
        scale_exponent=ints(0, 0),
        bias=ints(0, 0, dtype=np.int32),
        eps=1,
        centred=False,
        exponent=8,
    )
    between(norm, width=2).save(tmp_path / "m.lrnn")
    assert main(["export", "lava", str(tmp_path / "m.lrnn"), "-o", str(tmp_path / "out")]) == 0
    assert "not local: 1 norm sums" in capsys.readouterr().out
    (op,) = json.loads((tmp_path / "out" / "program.json").read_text())["groups"][0]["program"]
    assert (op["node"], op["sums_over"]) == ("y", "group")
    assert main(["export", "lava", "-o", str(tmp_path / "denoiser"), "--steps", "2"]) == 0
    assert "not local" not in capsys.readouterr().out
    assert '"sums_over"' not in (tmp_path / "denoiser" / "program.json").read_text()


def test_a_group_that_reads_too_much_is_refused():
    nodes = [fixed.Quantize("n0", ("in",), exponent=8)]
    nodes += [linear(f"n{i + 1}", f"n{i}", bits=8) for i in range(9)]
    nodes += [fixed.Add(f"s{i}", (f"s{i - 1}" if i else "n9", f"n{i}"), exponent=8) for i in range(8)]
    for count in (7, 8):
        last = nodes[: 10 + count]
        program = Program("in", 2, (*last, fixed.Dequantize("out", (last[-1].name,))), "out")
        if count == 7:
            assert check(make_graph(program))
            continue
        with pytest.raises(
            ValueError, match=r"node 's7' .fixed_add.: its group reads 9 values, expected at most 8"
        ):
            check(make_graph(program))
    assert (MOST_INPUTS, MOST_OUTPUTS) == (lrnn_lava_export.MOST_INPUTS, lrnn_lava_export.MOST_OUTPUTS)


def test_only_an_earlier_export_is_replaced(tmp_path):
    program = between(linear(), width=2)
    folder = tmp_path / "out"
    export(program, folder)
    before = {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}
    assert set(before) == {"program.json", "weights.npz", "vectors.npz"}
    export(program, folder)
    assert {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()} == before  # no clock in it
    export(program, folder, np.zeros((3, 2)))
    assert json.loads((folder / "program.json").read_text())["steps"] == 3
    (folder / "notes.txt").touch()
    with pytest.raises(FileExistsError, match=r"it holds 'notes\.txt', which no export writes"):
        export(program, folder)
    (folder / "notes.txt").unlink()
    (folder / "program.json").write_text("{}")
    with pytest.raises(FileExistsError, match="is no earlier export"):
        export(program, folder)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_folder_says_where_it_comes_from_and_what_it_is(tmp_path):
    folder = tmp_path / "out"
    assert main(["export", "lava", "-o", str(folder), "--steps", "5", "--data", str(DEMO_CLIP)]) == 0
    record = json.loads((folder / "program.json").read_text())
    assert record["source"]["file"] == "denoiser.lrnn"
    assert len(record["source"]["sha256"]) == 64
    assert record["source"]["meta"] == lrnn.load(DENOISER).meta
    assert "Intel's private stack" in record["statement"]
    resources = json.loads((folder / "resources.json").read_text())
    assert resources["cores"][0] >= 1
    assert resources["source"]["sha256"] == record["source"]["sha256"]
    assert resources["activity"].endswith(f"not zero, on 5 frames of {DEMO_CLIP.name}")
    assert "private stack" in resources["statement"]
    assert record["files"] == {
        name: sha256(folder / name) for name in ("weights.npz", "vectors.npz", "resources.json")
    }
    for name in ("weights.npz", "vectors.npz"):
        with np.load(folder / name, allow_pickle=False) as file:
            assert not any(file[key].dtype.hasobject for key in file.files)
    relu = record["groups"][0]["program"][1]
    assert (relu["op"], relu["node"], relu["inputs"]) == ("relu", "relu", ["encoder"])


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        ([str(DENOISER_FLOAT), "-o", "out"], "found a program in float, expected one in fixed point"),
        ([], "expected -o DIR"),
        (["--verify-only", "out", "--steps", "3"], "expected no M, -o"),
        (["-o", "out", "--steps", "0"], "--steps is 0"),
        (["-o", "out", "--limit", "0"], "--limit is 0"),
        (["-o", "missing/out"], "the folder .*missing does not exist"),
        (["missing.lrnn", "-o", "out"], "missing.lrnn"),
        (["--verify-only", "out"], "out/program.json: no such file, expected a folder of `lrnn export lava`"),
    ],
    ids=lambda value: " ".join(value)[-24:] if isinstance(value, list) else "",
)
def test_errors_are_one_line(argv, told, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["export", "lava", *argv]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert re.search(told, err), err
    assert list(tmp_path.iterdir()) == []


def test_without_an_environment_the_error_says_how_to_get_one(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("lrnn.export.lava.environment._CHECKOUT", tmp_path / "none")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("LRNN_LAVA", raising=False)
    assert find_lava() is None
    assert main(["export", "lava", "-o", str(tmp_path / "out"), "--verify"]) == 2
    assert "`make lava`" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setenv("LRNN_LAVA", "/nowhere/python")
    with pytest.raises(FileNotFoundError, match="LRNN_LAVA is /nowhere/python"):
        find_lava()
    monkeypatch.setenv("LRNN_LAVA_PYTHON", "/nowhere/python3.10")
    with pytest.raises(FileNotFoundError, match=r"expected Python 3\.10, 3\.11 or 3\.12"):
        find_python()
    (tmp_path / "mine").mkdir()
    with pytest.raises(FileExistsError, match="is no virtual environment"):
        build(tmp_path / "mine")


def test_the_module_that_newer_pythons_refuse_is_corrected(tmp_path):
    """As lava-nc 0.10.0 has it; since Python 3.11 such a default raises. Correcting twice changes nothing."""
    module = tmp_path / "lib/python3.12/site-packages/lava/magma/compiler/var_model.py"
    module.parent.mkdir(parents=True)
    module.write_text(
        "from dataclasses import dataclass, InitVar\n\n\n"
        "@dataclass\nclass ByteEncoder:\n    value: int = 0\n\n\n"
        "@dataclass\nclass Address:\n    x: ByteEncoder = ByteEncoder()\n"
    )
    for _ in range(2):
        _correct(tmp_path)
        found = {}
        exec(module.read_text(), found)
        assert found["Address"]().x == found["ByteEncoder"](0)
        assert found["Address"]().x is not found["Address"]().x


@pytest.mark.parametrize("shape", [(0, 257), (5, 3), (257,)])
def test_golden_frames_of_another_shape_are_refused(shape, tmp_path):
    with pytest.raises(ValueError, match=r"frames has shape .* expected \(T, 257\) with T > 0"):
        export(lrnn.load(DENOISER), tmp_path / "out", np.zeros(shape, np.float32))
    assert not list(tmp_path.iterdir())


def test_what_lava_prints_is_no_report():
    lines = ['{"done": 1, "of": 3}', "Lava says 1", "7", "[1]", '{"done": 3, "of": 3}', '{"equal": true}']
    reports = []
    assert list(_steps(SimpleNamespace(stdout=lines), reports)) == [0, 1, 2]
    assert reports[-1] == {"equal": True}


def test_a_program_without_integers_or_nodes_is_refused():
    program = lrnn.load(DENOISER_FLOAT)
    with pytest.raises(ValueError, match="in float, expected one in fixed point"):
        make_graph(program)
    only_ends = (fixed.Quantize("x", ("in",), exponent=8), fixed.Dequantize("out", ("x",)))
    with pytest.raises(ValueError, match="no node between its two ends"):
        make_graph(Program("in", 2, only_ends, "out"))
