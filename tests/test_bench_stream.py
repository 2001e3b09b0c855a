"""The streaming benchmark times only what gives the right outputs, and its figures hang together."""

import importlib.util
import json
import shutil

import numpy as np
import pytest
import torch

import lrnn
from lrnn.cli import main
from lrnn.ops.libraries import core_library
from lrnn.profile import plot_bench
from lrnn.profile.bench import chunks, generation, report, stream, stream_rows, streams
from lrnn.profile.bench.compiled_step import Stateful, ahead_of_time, compiled
from lrnn.profile.bench.eager_step import EagerStep
from lrnn.profile.bench.onnx_step import OnnxStep
from lrnn.program import Program, StepModule, nodes

pytestmark = pytest.mark.skipif(core_library()[0] is None, reason="the native engine is not built here")
needs_onnx = pytest.mark.skipif(
    not (importlib.util.find_spec("onnx") and importlib.util.find_spec("onnxruntime")),
    reason="onnx or onnxruntime is not installed",
)
needs_compiler = pytest.mark.skipif(
    not (shutil.which("g++") or shutil.which("c++")), reason="Inductor needs a C++ compiler"
)


def random(shape, seed):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def every_kind() -> Program:
    """Each node that the baselines have a form of, with odd widths and a state that goes out."""
    angles = random(7, 0)
    a = 0.9 * np.stack([np.cos(angles), np.sin(angles)], axis=-1).astype(np.float32)
    return Program(
        "x",
        5,
        (
            nodes.Linear("in", ("x",), random((14, 5), 1), random(14, 2)),
            nodes.Diagonal("state", ("in",), a),
            nodes.LayerNorm("norm", ("state",), random(14, 3), random(14, 4), 1e-5),
            nodes.Relu("relu", ("norm",)),
            nodes.Gelu("gelu", ("norm",)),
            nodes.Sigmoid("sigmoid", ("norm",)),
            nodes.Add("sum", ("relu", "gelu")),
            nodes.Product("gate", ("sum", "sigmoid")),
            nodes.Affine("shifted", ("gate",), random(14, 5), random(14, 6)),
            nodes.Affine("scaled", ("shifted",), random(14, 7), np.zeros(14, np.float32)),
            nodes.Linear("again", ("scaled",), random((14, 14), 8)),
            nodes.Diagonal("y", ("again",), a[::-1].copy()),
        ),
        "y",
    )


def of_an_hgrn() -> Program:
    """The other nodes, from tokens on; a real and a turned state."""
    angles = random(7, 0)
    turn = np.stack([np.cos(angles), np.sin(angles)], axis=-1).astype(np.float32)
    return Program(
        "x",
        1,
        (
            nodes.Embedding("table", ("x",), random((9, 7), 1)),
            nodes.RmsNorm("norm", ("table",), random(7, 2), 1e-5),
            nodes.Sigmoid("write", ("norm",)),
            nodes.Silu("silu", ("norm",)),
            nodes.Gated("real", ("write", "silu"), 7),
            nodes.Linear("i", ("real",), random((14, 7), 3)),
            nodes.Gated("turned", ("write", "i"), 7, turn),
            nodes.RmsNorm("y", ("turned",), random(14, 4), 1e-5),
        ),
        "y",
    )


PROGRAMS = pytest.mark.parametrize("make", [every_kind, of_an_hgrn])


def assert_steps(step, program, to_frame=torch.tensor, atol=2e-5):
    frames = stream_rows.frames_of(program, 9, 9)
    expected = program.stream("numpy").run(frames)
    with torch.inference_mode():
        found = np.stack([np.asarray(step(to_frame(frame))).copy() for frame in frames])
    np.testing.assert_allclose(found, expected, rtol=0, atol=atol * np.abs(expected).max())


@PROGRAMS
def test_the_compiled_step_is_the_program(make):
    module = StepModule(make())
    assert_steps(Stateful(module, module.zero_states()), make())


@PROGRAMS
def test_the_eager_step_is_the_program(make):
    assert_steps(EagerStep(make()), make())


@PROGRAMS
@pytest.mark.parametrize("form", ["eager", "module"])
def test_a_batch_of_streams_is_its_streams(make, form):
    program = make()
    module = StepModule(program)
    step = EagerStep(program, (3,)) if form == "eager" else Stateful(module, module.zero_states(3))
    frames = stream_rows.frames_of(program, 18, 10).reshape(6, 3, -1)
    with torch.inference_mode():
        found = np.stack([step(torch.tensor(frame)).numpy().copy() for frame in frames])
    for s in range(3):
        expected = program.stream("numpy").run(frames[:, s])
        np.testing.assert_allclose(found[:, s], expected, rtol=0, atol=1e-4)


@needs_compiler
@pytest.mark.slow
@PROGRAMS
def test_compiled_steps_are_the_program(make):
    program = make()
    with torch.inference_mode():
        steps = [compiled(program), ahead_of_time(program)(())]
        batch = ahead_of_time(program, batched=True)
    for step in steps:
        assert_steps(step, program)
    for count in (2, 3, 17):
        step = batch((count,))
        assert_steps(lambda x, step=step, n=count: step(x.expand(n, -1).contiguous())[-1], program)


@needs_onnx
@PROGRAMS
def test_the_onnx_step_is_the_program(make):
    assert_steps(OnnxStep(make()), make(), to_frame=lambda frame: frame)


@needs_onnx
def test_a_frame_given_to_onnx_runtime_is_its_own():
    step, frame = OnnxStep(every_kind()), random(5, 11)
    first = step(frame)
    kept = first.copy()
    step(frame)
    assert (first == kept).all()


@needs_onnx
def test_the_onnx_graph_in_8_bits():
    program = every_kind()
    step = OnnxStep(program, int8=True)
    assert_steps(step, program, to_frame=lambda frame: frame, atol=0.1)
    with pytest.raises(AssertionError):  # 8 bits it is
        assert_steps(OnnxStep(program, int8=True), program, to_frame=lambda frame: frame)


def test_a_node_without_a_form_is_named():
    program = Program("x", 4, (nodes.LogSoftmax("y", ("x",)),), "y")
    with pytest.raises(ValueError, match=r"node 'y' \(log_softmax\) has no eager form to compare with"):
        EagerStep(program)


def quick(**options) -> dict:
    return stream.run(**{"k": 0.125, "frames": 40, "compilers": False, "rounds": 2, "budget": 0.1} | options)


def test_every_row_is_measured():
    result = quick(sparsity=0.9)
    assert json.loads(json.dumps(result)) == result
    assert result["density"] == pytest.approx(0.1, abs=0.02)
    rows = result["seconds_per_frame"]
    expected = {"model(x, state)", "eager step", "native step", "native run", "torch, a chunk"}
    assert rows.keys() == result["errors"].keys()
    assert max(error for name, error in result["errors"].items() if "int8" not in name) < 1e-4
    assert expected | {"native step, dense", "native run, dense"} <= set(rows)
    assert set(rows) | set(result["left_out"]) == set(rows) | {"ONNX Runtime", "ONNX Runtime int8"} - set(
        rows
    )
    text = stream.table(result)
    for name, times in rows.items():
        assert 0 < times["minimum"] <= times["median"]
        assert name in text
    for baseline, subjects in result["ratios"].items():
        assert baseline in text
        for subject, ratio in subjects.items():
            assert ratio["median"] == rows[ratio["row"]]["median"] / rows[subject]["median"]


def test_a_language_model_is_measured():
    result = quick(language=24, sparsity=0.9)
    assert "width 24" in result["model"]
    rows = set(result["seconds_per_frame"])
    assert {"model(x, state)", "eager step", "native step", "native run", "W8A16 step"} <= rows
    assert max(error for name, error in result["errors"].items() if "int8" not in name) < 1e-4
    assert len(chunks.run([5], frames=9, language=24, **SHORT)["chunks"]) == 1
    assert len(streams.run([3], language=24, compilers=False, **SHORT)["streams"]) == 1


def test_generation_is_measured(capsys, tmp_path):
    result = generation.run(24, 0.9, compilers=False, rounds=2, budget=0)
    rows = result["seconds_per_frame"]
    assert {"model(x, state)", "eager step", "native", "W8A16", "the sampler alone"} <= set(rows)
    text = generation.table(result)
    assert all(name in text for name in rows)
    ratio = result["ratios"]["the better of eager and torch.compile"]["W8A16"]
    assert ratio["median"] == rows["eager step"]["median"] / rows["W8A16"]["median"]
    plot_bench.plot(result, tmp_path / "p.svg")
    assert (tmp_path / "p.svg").stat().st_size > 1000
    assert main(["bench", "stream", "--generate"]) == 2
    assert "--generate needs a language model: expected --language H" in capsys.readouterr().err


def test_generation_refuses_a_loop_that_draws_other_bytes():
    with pytest.raises(RuntimeError, match=r"wrong draws b'\\x01\\x03', expected b'\\x01\\x02'"):
        generation._check({"right": lambda: [1, 2], "wrong": lambda: [1, 3]}, [1, 2])


def test_ratios_are_to_the_fastest_row():
    seconds = {"eager step": 8.0, "torch.compile": 6.0, "ONNX Runtime": 4.0, "ONNX Runtime int8": 5.0}
    seconds |= {"native step": 2.0, "native step, dense": 3.0, "native run": 1.0, "native run, dense": 3.0}
    times = {name: {"median": value, "minimum": value / 2} for name, value in seconds.items()}
    found = {
        name: {subject: (r["median"], r["row"]) for subject, r in subjects.items()}
        for name, subjects in stream._ratios(times).items()
    }
    both = ("native step", "native run")
    assert found == {
        "the better of eager and torch.compile": dict(
            zip(both, [(3.0, "torch.compile"), (6.0, "torch.compile")], strict=True)
        ),
        "ONNX Runtime, float32": dict(zip(both, [(2.0, "ONNX Runtime"), (4.0, "ONNX Runtime")], strict=True)),
        "ONNX Runtime, the faster form": dict(
            zip(both, [(2.0, "ONNX Runtime"), (4.0, "ONNX Runtime")], strict=True)
        ),
        "our own engine, dense": dict(
            zip(both, [(1.5, "native step, dense"), (3.0, "native run, dense")], strict=True)
        ),
    }


def test_of_a_file(tmp_path):
    config = lrnn.SequenceModelConfig(d_in=9, d_out=7, d_model=8, d_state=8, n_layers=1, blocks=1)
    lrnn.compile(lrnn.SequenceModel(config).eval()).save(tmp_path / "m.lrnn")
    result = quick(model=str(tmp_path / "m.lrnn"), frames=3)
    assert "model(x, state)" not in result["seconds_per_frame"]


def test_rows_that_cannot_be_made_are_left_out_with_the_reason(monkeypatch):
    def missing(*args, **options):
        raise ImportError("ONNX Runtime needs onnx")

    monkeypatch.setattr(stream_rows, "OnnxStep", missing)
    result = quick()
    assert result["left_out"]["ONNX Runtime"] == "ImportError: ONNX Runtime needs onnx"
    assert "ONNX Runtime: left out (ImportError: ONNX Runtime needs onnx)" in stream.table(result)
    assert "ONNX Runtime, float32" not in result["ratios"]


@pytest.mark.parametrize("row", [EagerStep, lrnn.engine.native.NativeStream])
def test_wrong_outputs_are_not_timed(monkeypatch, row):
    method = "__call__" if row is EagerStep else "step"
    monkeypatch.setattr(row, method, lambda self, frame: frame * 0)
    with pytest.raises(RuntimeError, match=r"step.* differs from the numpy executor"):
        quick(frames=3)


SHORT = {"k": 0.125, "rounds": 2, "budget": 0.1}


def test_chunks_of_every_length_are_measured(tmp_path):
    result = chunks.run([1, 5, chunks.OFFLINE], frames=70, **SHORT)
    assert json.loads(json.dumps(result)) == result
    assert [row["frames"] for row in result["chunks"]] == [1, 5, 70]
    text = chunks.table(result)
    for row in result["chunks"]:
        assert row["name"] in text
        seconds = row["seconds_per_frame"]
        assert row["ratios"]["torch, a chunk"]["median"] == (
            seconds["torch, a chunk"]["median"] / seconds["native run"]["median"]
        )
    plot_bench.plot(result, tmp_path / "p.svg")
    assert "frames in a chunk" in (tmp_path / "p.svg").read_text()
    assert "chunk 5: seconds_per_frame: native run" in report.timings(result)


def test_streams_at_once_are_measured(tmp_path):
    result = streams.run([1, 3], compilers=False, **SHORT)
    assert json.loads(json.dumps(result)) == result
    text = streams.table(result)
    for row, count in zip(result["streams"], (1, 3), strict=True):
        assert row["streams"] == count
        assert row["name"] in text
        assert set(row["seconds_per_frame"]) == {"native step", "native step, dense", "eager batch"}
        for name, times in row["seconds_per_frame"].items():
            assert row["real_time"][name] == 0.008 / times["median"]
    plot_bench.plot(result, tmp_path / "p.svg")
    assert "streams at once" in (tmp_path / "p.svg").read_text()


@pytest.mark.parametrize("row", [EagerStep, lrnn.engine.native.NativeStream])
def test_streams_that_share_a_state_are_not_timed(monkeypatch, row):
    if row is EagerStep:
        call = row.__call__
        monkeypatch.setattr(row, "__call__", lambda self, frame: call(self, frame).flip(0))
    else:
        shared = {}
        step = row.step
        monkeypatch.setattr(row, "step", lambda self, x: step(shared.setdefault(self.engine, self), x))
    with pytest.raises(RuntimeError, match="differs from the numpy executor"):
        streams.run([3], compilers=False, **SHORT)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("1..offline", [1, 4, 16, 64, 256, "offline"]),
        ("4..20", [4, 16, 20]),
        ("3,offline,3", [3, "offline"]),
        ("offline", ["offline"]),
    ],
)
def test_chunk_lengths(text, found):
    assert chunks.parse(text) == found


@pytest.mark.parametrize(
    ("text", "found"), [("1..32", [1, 2, 4, 8, 16, 32]), ("5", [5]), ("3..7", [3, 6, 7])]
)
def test_stream_counts(text, found):
    assert streams.parse(text) == found


@pytest.mark.parametrize("text", ["", "0", "1,,2", "0..4", "8..2", "..", "1..x", "-1", "1.5", "offline..4"])
def test_counts_that_mean_nothing_are_refused(text):
    with pytest.raises(ValueError, match=r"^chunk is .*, expected lengths"):
        chunks.parse(text)
    with pytest.raises(ValueError, match=r"^streams is .*, expected counts"):
        streams.parse(text)


def test_the_commands(monkeypatch, capsys):
    called = []

    def runs(module):
        return lambda *values, **options: called.append((module, *values, options)) or {}

    for module in (stream, chunks, streams, generation):
        monkeypatch.setattr(module, "run", runs(module))
    assert main(["bench", "stream", "--json", "--no-compile", "--k", "0.5", "--frames", "9"]) == 0
    assert main(["bench", "stream", "--json", "--streams", "1..4"]) == 0
    assert main(["bench", "stream", "--json", "--chunk", "1..offline", "--frames", "9"]) == 0
    assert main(["bench", "stream", "--json", "--language", "24", "--generate"]) == 0
    for *_, options in called:
        options.pop("notify")
    network = {"k": 1.0, "sparsity": 0.9, "model": None, "language": None}
    assert called == [
        (stream, network | {"k": 0.5, "frames": 9, "compilers": False}),
        (streams, [1, 2, 4], network | {"compilers": True}),
        (chunks, [1, 4, 16, 64, 256, "offline"], network | {"frames": 9}),
        (generation, 24, 0.9, {"compilers": True}),
    ]
    assert all("machine" in json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert main(["bench", "stream", "--streams", "0"]) == 2
    assert "streams is '0'" in capsys.readouterr().err


def test_bad_arguments_are_named():
    for options, text in (
        ({"k": 0}, "k is 0"),
        ({"sparsity": 1}, "sparsity is 1"),
        ({"language": 0}, "language is 0"),
        ({"frames": 0}, "frames is 0"),
    ):
        with pytest.raises(ValueError, match=text):
            quick(**options)
