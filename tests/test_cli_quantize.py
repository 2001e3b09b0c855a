"""`lrnn quantize` and `lrnn compile --fixed`: what they make, and errors that name what is wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

import lrnn
from lrnn.cli import main
from lrnn.data.stft import Stft
from lrnn.files import read_header
from lrnn.program import Program, compile_fixed, nodes
from lrnn.program.calibrate import calibrate
from lrnn.program.fixed.nodes import Linear

CONFIG = lrnn.SequenceModelConfig(d_in=5, d_out=4, d_model=6, d_state=8, blocks=2, n_layers=1)


def make_model(config: lrnn.SequenceModelConfig = CONFIG) -> lrnn.SequenceModel:
    torch.manual_seed(0)
    return lrnn.SequenceModel(config).eval()


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch) -> Path:
    """A folder to work in with m.lrnn in float, model.safetensors that it was made of, and frames x.npy."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LRNN_DATA", raising=False)
    model = make_model()
    model.save("model.safetensors")
    lrnn.compile(model).save("m.lrnn")
    np.save("x.npy", np.random.default_rng(0).standard_normal((60, 5)).astype(np.float32))
    return tmp_path


def quantize(*argv: str, model: str = "m.lrnn", data: str | None = "x.npy") -> int:
    return main(["quantize", model, "-o", "q.lrnn", *(["--calibrate", data] if data else []), *argv])


def assert_refused(capsys, status: int, *parts: str) -> None:
    """One line that says all of this, and nothing is written; what was there stays."""
    out, err = capsys.readouterr()
    assert status == 2
    assert out == ""
    assert err.startswith("lrnn: error: ")
    assert err.count("\n") == 1
    for part in parts:
        assert part in err
    left = sorted(p.name for p in Path().iterdir())
    assert "q.lrnn" not in left or Path("q.lrnn").read_bytes() == b"before"
    assert not [name for name in left if "tmp" in name or name.startswith(".")]


# What it makes


def test_the_program_is_that_of_the_library(capsys):
    assert quantize("--json") == 0
    found = json.loads(capsys.readouterr().out)
    floats, x = lrnn.load("m.lrnn"), np.load("x.npy")
    made = lrnn.load("q.lrnn")
    expected = compile_fixed(floats, calibrate(floats, [x]), "w8a16")
    assert made.is_fixed
    for engine in ("numpy", "torch"):
        np.testing.assert_array_equal(made.stream(engine).run(x), expected.stream("numpy").run(x))
    assert found == {
        "program": "q.lrnn",
        "bytes": Path("q.lrnn").stat().st_size,
        "scheme": "w8a16",
        "trained_quantised": False,
        "clips": 1,
        "nodes": len(made.nodes),
        "nonzeros": sum(np.count_nonzero(n.weight) for n in made.nodes if isinstance(n, Linear)),
        "rounded_to_zero": found["rounded_to_zero"],
    }
    weights = sum(np.count_nonzero(n.weight) for n in floats.nodes if n.op == "linear")
    assert found["nonzeros"] + found["rounded_to_zero"] == weights
    assert (made.meta["scheme"]["name"], made.meta["calibration"]["clips"]) == ("w8a16", 1)


def test_words_and_options(capsys):
    np.save("x.npy", np.load("x.npy").reshape(3, 20, 5))
    assert quantize("--scheme", "w4a8", "--observer", "mse") == 0
    assert "q.lrnn: w4a8, " in (words := capsys.readouterr().out)
    assert "calibrated on 3 clips" in words
    made = lrnn.load("q.lrnn")
    assert made.meta["calibration"] == {"observer": "mse", "clips": 3}
    assert max(np.abs(n.weight).max() for n in made.nodes if isinstance(n, Linear)) <= 7
    assert {made.formats[n.inputs[0]].bits for n in made.nodes if isinstance(n, Linear)} == {8}


@pytest.mark.parametrize("argv", [(), ("--scheme", "w8a8", "--observer", "percentile")], ids=["", "options"])
def test_compile_fixed_makes_the_same_file(argv, capsys):
    assert quantize(*argv, model="model.safetensors") == 0
    compiled = ["compile", "model.safetensors", "--fixed", "-o", "c.lrnn", "--calibrate", "x.npy", *argv]
    assert main(compiled) == 0
    assert Path("c.lrnn").read_bytes() == Path("q.lrnn").read_bytes()
    capsys.readouterr()
    assert main([*compiled, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["nodes"] == len(lrnn.load("c.lrnn").nodes)
    assert found["nonzeros"] <= found["parameters"]


def test_of_a_program_and_of_its_model_the_same(capsys):
    assert quantize() == 0
    first = Path("q.lrnn").read_bytes()
    assert quantize(model="model.safetensors") == 0
    assert Path("q.lrnn").read_bytes() == first


def test_a_denoiser_is_calibrated_on_mixtures(capsys, monkeypatch):
    pytest.importorskip("lightning")
    from tiny_run import write_corpus

    write_corpus(Path("corpus"))
    model = make_model(replace(CONFIG, d_in=257, d_out=257))
    model.save("d.safetensors", {"frontend": Stft().to_meta()})
    assert quantize("--clips", "2", model="d.safetensors", data="corpus") == 0
    first = Path("q.lrnn").read_bytes()
    assert lrnn.load("q.lrnn").meta["calibration"]["clips"] == 2
    monkeypatch.setenv("LRNN_DATA", "corpus")
    fixed = ["compile", "d.safetensors", "--fixed", "-o", "c.lrnn", "--clips", "2"]
    assert main(fixed) == 0
    assert Path("c.lrnn").read_bytes() == first
    assert main([*fixed[:-1], "3"]) == 0
    assert Path("c.lrnn").read_bytes() != first


@pytest.fixture
def trained() -> str:
    """A checkpoint that was trained quantised, w8a8."""
    L = pytest.importorskip("lightning")
    from lightning.pytorch.callbacks import ModelCheckpoint
    from regression import CONFIG as config
    from regression import Data, Regression

    from lrnn.train import QuantizationAware
    from lrnn.train.checkpoint import KEY

    class Module(Regression):
        def on_save_checkpoint(self, checkpoint):
            checkpoint[KEY] = {"config": config.to_dict(), "meta": {}}

    keep = ModelCheckpoint(".", filename="trained")
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = L.Trainer(
        callbacks=[QuantizationAware("w8a8", clips=8), keep], accelerator="cpu", max_steps=4, **quiet
    )
    trainer.fit(Module(), Data(), weights_only=True)
    np.save("six.npy", np.random.default_rng(0).standard_normal((60, 6)).astype(np.float32))
    return "trained.ckpt"


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_model_trained_quantised_keeps_its_scheme_and_ranges(trained, capsys):
    assert quantize("--json", model=trained, data="six.npy") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["scheme"], found["trained_quantised"]) == ("w8a8", True)
    assert found["rounded_to_zero"] <= 2  # compiling makes 1e-12 of a zero in B_bar here and there
    fixed = ["compile", trained, "--fixed", "-o", "c.lrnn", "--calibrate", "six.npy", "--scheme", "w8a8"]
    assert main(fixed) == 0
    assert Path("c.lrnn").read_bytes() == Path("q.lrnn").read_bytes()
    assert main(["compile", trained, "-o", "float.lrnn"]) == 0
    Path("c.lrnn").write_bytes(Path("q.lrnn").read_bytes())
    assert quantize(model="float.lrnn", data="six.npy") == 0
    assert Path("q.lrnn").read_bytes() == Path("c.lrnn").read_bytes()
    Path("q.lrnn").write_bytes(b"before")
    capsys.readouterr()
    status = quantize("--scheme", "w4a8", model=trained, data="six.npy")
    assert_refused(capsys, status, "--scheme is w4a8, but the model was trained with w8a8")


# Errors


def test_a_program_in_fixed_point_is_refused(capsys):
    assert quantize() == 0
    Path("q.lrnn").rename("again.lrnn")
    capsys.readouterr()
    assert_refused(capsys, quantize(model="again.lrnn"), "again.lrnn: found a program in fixed point")


@pytest.mark.parametrize("before", [True, False], ids=["OUT was there", "OUT is new"])
def test_what_was_there_stays_when_it_fails(capsys, before):
    if before:
        Path("q.lrnn").write_bytes(b"before")
    np.save("x.npy", np.zeros((60, 5)))
    assert_refused(capsys, quantize(), "input 'input': its range is zero on the calibration data")
    assert Path("q.lrnn").exists() == before


def with_log_softmax_inside() -> None:
    program = lrnn.load("m.lrnn")
    more = (nodes.LogSoftmax("soft", (program.output,)), nodes.Relu("last", ("soft",)))
    Program("input", 5, program.nodes + more, "last").save("m.lrnn")


def with_a_state_that_does_not_decay() -> None:
    program = lrnn.load("m.lrnn")
    still = tuple(
        replace(n, a=np.tile(np.float32([1, 0]), (len(n.a), 1))) if isinstance(n, nodes.Diagonal) else n
        for n in program.nodes
    )
    replace(program, nodes=still).save("m.lrnn")


def with_a_tensor(name: str, value: np.ndarray | None) -> None:
    """The file as it is but for one tensor."""
    text = json.dumps(read_header("m.lrnn", "lrnn-program"))
    stored = load_file("m.lrnn")
    assert name in stored
    del stored[name]
    save_file(stored if value is None else {**stored, name: value}, "m.lrnn", metadata={"lrnn": text})


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (with_log_softmax_inside, ["node 'soft' (log_softmax): it has no integer form"]),
        (
            with_a_state_that_does_not_decay,
            ["node 'blocks.0.ssm.state' (diagonal): |lambda| of state 0 is 1"],
        ),
        (
            lambda: with_a_tensor("encoder.weight", np.ones((7, 5), np.float32)),
            ["m.lrnn: node 'encoder'", "shape (6,), expected (7,)"],
        ),
        (
            lambda: with_a_tensor("encoder.weight", np.ones((6, 4), np.float32)),
            ["m.lrnn: node 'encoder' (linear): input width is 5, expected 4"],
        ),
        (lambda: with_a_tensor("encoder.weight", None), ["m.lrnn: node 'encoder': tensor 'encoder.weight'"]),
        (
            lambda: with_a_tensor("encoder.weight", np.full((6, 5), np.nan, np.float32)),
            ["m.lrnn: node 'encoder' (linear): weight has NaN or infinite values"],
        ),
        (lambda: Path("m.lrnn").write_bytes(b"\0" * 100), ["m.lrnn: "]),
        (lambda: Path("m.lrnn").unlink(), ["m.lrnn"]),
    ],
    ids=["unsupported", "no decay", "bias", "width", "missing tensor", "NaN", "damaged", "missing"],
)
def test_a_program_that_cannot_be_quantized(change, parts, capsys):
    change()
    assert_refused(capsys, quantize(), *parts)


def test_a_model_that_cannot_stream(capsys):
    make_model(replace(CONFIG, ssm=replace(CONFIG.ssm, bidirectional=True))).save("model.safetensors")
    for command in (["quantize"], ["compile", "--fixed"]):
        status = main([*command, "model.safetensors", "-o", "q.lrnn", "--calibrate", "x.npy"])
        assert_refused(capsys, status, "bidirectional")


def test_a_model_with_nan(capsys):
    model = make_model()
    with torch.no_grad():
        model.decoder.weight[1, 2] = torch.nan
    model.save("model.safetensors")
    for command in (["quantize"], ["compile", "--fixed"]):
        status = main([*command, "model.safetensors", "-o", "q.lrnn", "--calibrate", "x.npy"])
        assert_refused(capsys, status, "node 'decoder' (linear): weight has NaN or infinite values")


def test_a_model_whose_tensors_do_not_fit(capsys):
    stored, header = load_file("model.safetensors"), read_header("model.safetensors", "lrnn-model")
    stored["decoder.weight"] = stored["decoder.weight"][:, :3].copy()
    save_file(stored, "model.safetensors", metadata={"lrnn": json.dumps(header)})
    assert_refused(capsys, quantize(model="model.safetensors"), "model.safetensors: ", "decoder.weight")


@pytest.mark.parametrize(
    ("data", "parts"),
    [
        (np.zeros((0, 5), np.float32), ["x.npy: ", "shape (0, 5), expected (frames, 5)"]),
        (np.zeros((2, 0, 5), np.float32), ["x.npy: ", "shape (2, 0, 5), expected (frames, 5)"]),
        (np.ones((9, 4), np.float32), ["x.npy: ", "shape (9, 4), expected (frames, 5)"]),
        (np.ones(5, np.float32), ["x.npy: ", "shape (5,), expected (frames, 5)"]),
        (np.full((9, 5), np.nan, np.float32), ["x.npy: ", "NaN or infinite"]),
        (np.full((9, 5), 1e300), ["x.npy: ", "NaN or infinite"]),
        (np.ones((9, 5), complex), ["x.npy: ", "complex128, expected real numbers"]),
        (np.array([["a"] * 5]), ["x.npy: ", "<U1, expected real numbers"]),
        (np.array([[None] * 5]), ["x.npy: "]),
    ],
    ids=["empty", "empty clips", "width", "axes", "NaN", "float64", "complex", "text", "objects"],
)
def test_calibration_frames_that_are_none(data, parts, capsys):
    np.save("x.npy", data, allow_pickle=True)
    assert_refused(capsys, quantize(), *parts)


def test_calibration_data_missing_or_of_another_kind(capsys):
    assert_refused(capsys, quantize(data=None), "no calibration data: expected --calibrate DATA or LRNN_DATA")
    assert_refused(capsys, quantize(data="none.npy"), "none.npy")
    Path("folder").mkdir()
    assert_refused(
        capsys, quantize(data="folder"), "folder: the program is no denoiser, expected an .npy file"
    )
    Path("y.npy").write_bytes(b"no array")
    assert_refused(capsys, quantize(data="y.npy"), "y.npy: ")


def test_calibration_data_of_a_denoiser(capsys):
    pytest.importorskip("lightning")
    model = make_model(replace(CONFIG, d_in=257, d_out=257))
    model.save("d.safetensors", {"frontend": Stft().to_meta()})
    Path("folder").mkdir()
    assert_refused(capsys, quantize(model="d.safetensors", data="folder"), "folder", "sources/train")
    assert_refused(capsys, quantize(model="d.safetensors", data="x.npy"), "x.npy")
    assert_refused(capsys, quantize(model="d.safetensors", data="missing"), "missing")
    status = quantize("--clips", "0", model="d.safetensors", data="folder")
    assert_refused(capsys, status, "--clips is 0, expected at least 1")


@pytest.mark.parametrize(
    ("scheme", "message"),
    [("w9", "scheme is 'w9', expected one of w8a16"), ("fp8", "scheme 'fp8' runs in float")],
)
def test_schemes_that_are_none(scheme, message, capsys):
    assert_refused(capsys, quantize("--scheme", scheme), message)


def test_sums_that_a_scheme_has_no_room_for(capsys):
    """All rows dense and heavy: 24 bits do not hold them."""
    program = lrnn.load("m.lrnn")
    rng = np.random.default_rng(0)
    wide = nodes.Linear("encoder", ("input",), rng.choice([-1, 1], (6, 400)).astype(np.float32))
    kept = [n for n in program.nodes if n.name != "encoder"]
    replace(program, input_width=400, nodes=(wide, *kept)).save("m.lrnn")
    np.save("x.npy", rng.standard_normal((20, 400)))
    assert_refused(
        capsys, quantize("--scheme", "loihi2"), "node 'encoder' (fixed_linear): the sum of row", "2 ** 23"
    )


def test_options_of_fixed_point_without_it(capsys):
    status = main(["compile", "model.safetensors", "-o", "q.lrnn", "--scheme", "w8a8"])
    assert_refused(capsys, status, "--scheme is w8a8, but without --fixed the program is in float")


def test_a_folder_that_is_not_there(capsys):
    status = main(["quantize", "m.lrnn", "-o", "nowhere/q.lrnn", "--calibrate", "x.npy"])
    assert_refused(capsys, status, "nowhere")
