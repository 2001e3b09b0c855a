"""A program's step in PyTorch's and ONNX's forms is the program: the numpy executor's outputs to 1e-5."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import lrnn
from lrnn.cli import main
from lrnn.export import save_step
from lrnn.program import Program, StepModule, nodes
from lrnn.program.torch_executor import FUNCTIONS

needs_onnx = pytest.mark.skipif(
    not (importlib.util.find_spec("onnx") and importlib.util.find_spec("onnxruntime")),
    reason="onnx or onnxruntime is not installed",
)
needs_compiler = pytest.mark.skipif(
    not (shutil.which("g++") or shutil.which("c++")), reason="Inductor needs a C++ compiler"
)

S5 = lrnn.SequenceModelConfig(d_in=6, d_out=5, d_model=8, d_state=8, blocks=2, n_layers=2)
HGRN = lrnn.HGRNBlockConfig(d_model=6, d_state=4, d_hidden=8)


def models() -> dict[str, nn.Module]:
    rotating = replace(HGRN, hgrn=lrnn.HGRNOptions("complex", norm="layer", bias=True))
    classifier = replace(S5, head="classification", norm="layer", relu="none")
    return {
        "S5": lrnn.SequenceModel(S5),
        "S5, the paper's ReLU": lrnn.SequenceModel(replace(S5, relu="pair", input_exponent=4)),
        "S5, classifier": lrnn.SequenceModel(classifier),
        "HGRN": lrnn.HGRNStack(HGRN, 2),
        "HGRN, rotating": lrnn.HGRNStack(rotating, 2),
        "language model": lrnn.LanguageModel(
            lrnn.LanguageModelConfig(vocabulary=11, n_layers=2, block=rotating)
        ),
    }


every_model = pytest.mark.parametrize("name", list(models()))


def make(name: str) -> Program:
    torch.manual_seed(0)
    return lrnn.compile(models()[name].eval())


def frames(program: Program, *shape: int) -> np.ndarray:
    random = np.random.default_rng(1)
    if program.reads_tokens:
        return random.integers(0, 11, (*shape, 1)).astype(np.float32)
    return random.standard_normal((*shape, program.input_width)).astype(np.float32)


def assert_is_the_program(step, program: Program, streams: int = 1) -> None:
    """`step` maps arrays or tensors of a frame and states to those of an output and states."""
    x = frames(program, 7, streams)
    states = [np.zeros((streams, width), np.float32) for width in program.state_widths.values()]
    found = []
    for frame in x:
        y, *states = step(frame, *states)
        found.append(np.array(y))
    wanted = np.stack([program.stream("numpy").run(x[:, s]) for s in range(streams)], axis=1)
    np.testing.assert_allclose(np.stack(found), wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


def of_tensors(step):
    """Arrays in, arrays out."""

    def call(*arrays):
        with torch.no_grad():
            return [y.numpy() for y in step(*map(torch.tensor, arrays))]

    return call


def onnx_step(path):
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    return lambda *arrays: session.run(None, dict(zip(names, arrays, strict=True)))


@every_model
@pytest.mark.parametrize("streams", [1, 3])
def test_the_module_is_the_program(name, streams):
    program = make(name)
    assert_is_the_program(of_tensors(StepModule(program)), program, streams)


def test_the_models_hold_every_kind_of_node():
    found = {type(node) for name in models() for node in make(name).nodes}
    assert found == set(FUNCTIONS)


@every_model
def test_the_module_is_one_graph_for_compilers(name):
    program = make(name)
    compiled = torch.compile(StepModule(program), fullgraph=True, backend="aot_eager", dynamic=False)
    assert_is_the_program(of_tensors(compiled), program)


@every_model
@pytest.mark.parametrize("streams", [1, 3])
def test_a_torch_file_is_the_program_in_standard_operators(name, streams, tmp_path):
    program, path = make(name), tmp_path / "step.pt2"
    save_step(program, path, streams=streams)
    exported = torch.export.load(path)
    assert_is_the_program(of_tensors(exported.module()), program, streams)
    called = [node.target for node in exported.graph.nodes if node.op == "call_function"]
    assert {getattr(target, "namespace", "aten") for target in called} == {"aten"}
    assert not any(value.is_complex() for value in exported.state_dict.values())


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=[needs_compiler, pytest.mark.slow])])
def test_a_torch_file_runs_without_lrnn(compiled, tmp_path):
    save_step(make("S5"), tmp_path / "step.pt2", compiled=compiled)
    load = (
        "torch._inductor.aoti_load_package('step.pt2')"
        if compiled
        else "torch.export.load('step.pt2').module()"
    )
    code = (
        f"import sys, torch; step = {load}; "
        "print([y.shape[-1] for y in step(torch.zeros(1, 6), torch.zeros(1, 8), torch.zeros(1, 8))], "
        "'lrnn' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.strip() == "[5, 8, 8] False", done.stderr


@needs_onnx
@every_model
@pytest.mark.parametrize("streams", [1, 3])
def test_an_onnx_file_is_the_program_in_standard_operators(name, streams, tmp_path):
    import onnx

    program, path = make(name), tmp_path / "step.onnx"
    save_step(program, path, streams=streams)
    assert_is_the_program(onnx_step(path), program, streams)
    model = onnx.load(path)
    assert [entry.domain for entry in model.opset_import] == [""]
    states = list(program.state_widths)
    assert [v.name for v in model.graph.input] == ["input", *(f"{state} before" for state in states)]
    assert [v.name for v in model.graph.output] == [program.output, *(f"{state} after" for state in states)]


@needs_onnx
def test_a_program_too_large_for_onnx_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr("lrnn.export.onnx._MOST_BYTES", 100)
    with pytest.raises(ValueError, match=r"program holds [\d,]+ bytes, expected at most 100: ONNX's limit"):
        save_step(make("S5"), tmp_path / "step.onnx")
    assert not list(tmp_path.iterdir())


@needs_onnx
def test_a_program_that_gives_its_input_or_its_state_has_an_onnx_form(tmp_path):
    a = np.full((3, 2), 0.5, np.float32)
    for output in ("x", "h"):
        program = Program("x", 6, (nodes.Diagonal("h", ("x",), a),), output)
        save_step(program, tmp_path / "step.onnx")
        assert_is_the_program(onnx_step(tmp_path / "step.onnx"), program)


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("name", ["S5", "HGRN, rotating"])
def test_compiled_files_are_the_program(name, tmp_path):
    program, path = make(name), tmp_path / "step.pt2"
    save_step(program, path, compiled=True)
    assert_is_the_program(of_tensors(torch._inductor.aoti_load_package(str(path))), program)
    compiled = torch.compile(StepModule(program), fullgraph=True, dynamic=False)
    assert_is_the_program(of_tensors(compiled), program)


def test_wrong_calls_are_named():
    step = StepModule(make("S5"))
    frame, states = torch.zeros(1, 6), step.zero_states(1)
    for arguments in ((frame,), (frame, states[0]), (frame[:, :5], *states), (frame, *states, states[0])):
        with pytest.raises(ValueError, match=r"frame and states have widths \[.*\], expected \[6, 8, 8\]"):
            step(*arguments)


def test_what_cannot_be_written_is_refused_and_leaves_nothing(tmp_path):
    program = make("S5")
    fixed = lrnn.compile_fixed(program, lrnn.calibrate(program, [frames(program, 20)]), "w8a16")
    endings = r"its name ends in '\.bin', expected '\.onnx' or '\.pt2'"
    only_torch = r"step\.onnx: its name ends in '\.onnx', expected '\.pt2' for compiled code"
    floats = r"program is in fixed point, expected one in float32"
    for given, name, options, text in (
        (program, "step.bin", {}, endings),
        (program, "step.onnx", {"compiled": True}, only_torch),
        (program, "step.pt2", {"streams": 0}, r"streams is 0, expected at least 1"),
        (fixed, "step.pt2", {}, floats),
        (fixed, "step.onnx", {}, floats),
    ):
        with pytest.raises(ValueError, match=text):
            save_step(given, tmp_path / name, **options)
    assert not list(tmp_path.iterdir())


def test_the_command(tmp_path, capsys):
    program, model, out = make("HGRN"), tmp_path / "m.lrnn", tmp_path / "step.pt2"
    program.save(model)
    command = ["export", "step", str(model), "-o", str(out)]
    assert main([*command, "--streams", "3", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["state_widths"] == dict(program.state_widths)
    assert report["bytes"] == out.stat().st_size
    assert_is_the_program(of_tensors(torch.export.load(out).module()), program, 3)
    assert main(command) == 0
    assert "frame (1, 6) to (1, 6), states (1, 4), (1, 4)" in capsys.readouterr().out
    lrnn.compile_fixed(program, lrnn.calibrate(program, [frames(program, 20)]), "w8a16").save(model)
    assert main(command) == 2
    assert "m.lrnn: found a program in fixed point, expected one in float32" in capsys.readouterr().err
