"""The command line's manners: one-line errors and exit status 2, JSON alone on stdout."""

import json

import numpy as np
import pytest
import torch

import lrnn
from lrnn.cli import COMMANDS, main, make_parser
from lrnn.cli.console import progress, table
from lrnn.data import audio
from lrnn.ops.libraries import core_library
from lrnn.program import Program, nodes


def test_every_command_has_help(capsys):
    make_parser().print_help()
    text = capsys.readouterr().out
    assert all(name in text for name in COMMANDS)


def test_info_tells_versions_and_backends(capsys):
    assert main(["info", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (
        found["packages"]["torch"] == torch.__version__.split("+")[0]
        or found["packages"]["torch"] == torch.__version__
    )
    assert set(found["backends"]) == set(lrnn.backends()) | set(audio.backends())
    assert all(state.startswith(("live", "off: ")) for state in found["backends"].values())


@pytest.mark.parametrize(
    "argv",
    [
        ["profile", "missing.lrnn"],
        ["denoise", "missing.wav", "out.wav"],
        ["eval", "denoise", "--data", "missing"],
        ["compile", "missing.ckpt", "-o", "out.lrnn"],
        ["prune", "missing.safetensors", "-o", "out.safetensors"],
    ],
    ids=lambda argv: argv[0],
)
def test_a_missing_file_is_one_line_that_names_it(argv, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("lrnn: error: ")
    assert err.count("\n") == 1
    assert "missing" in err
    assert list(tmp_path.iterdir()) == []


def test_debug_shows_the_traceback(tmp_path):
    with pytest.raises(FileNotFoundError):
        main(["--debug", "profile", str(tmp_path / "missing.lrnn")])


@pytest.mark.parametrize("command", [["profile", "no.lrnn"], ["eval", "denoise"], ["eval", "keywords"]])
def test_a_picture_that_cannot_be_drawn_is_refused_before_the_work(command, capsys):
    pytest.importorskip("matplotlib")
    data = [] if command[0] == "profile" else ["--data", "nowhere"]
    assert main([*command, *data, "--plot", "p.xyz"]) == 2
    assert "p.xyz: found suffix 'xyz'" in capsys.readouterr().err


def test_profile_counts_what_the_definition_says(tmp_path, capsys):
    """At k = 1: 257 H + the sum over layers of (2PH + 4P + 2HP + H + H^2 + H) + 257 H, per frame."""
    config = lrnn.SequenceModelConfig(d_in=257, d_out=257)
    lrnn.compile(lrnn.SequenceModel(config)).save(tmp_path / "m.lrnn")
    np.save(tmp_path / "frames.npy", np.random.default_rng(0).standard_normal((30, 257), dtype=np.float32))
    assert main(["profile", str(tmp_path / "m.lrnn"), "--data", str(tmp_path / "frames.npy"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    H, P = 192, 128
    assert found["total"]["macs"] == 2 * 257 * H + 3 * (2 * P * H + 4 * P + 2 * H * P + H + H * H + H)
    assert found["total"]["macs_effective"] < found["total"]["macs_weights"] <= found["total"]["macs"]
    node = {n["name"]: n for n in found["nodes"]}
    assert node["encoder"]["activity"] == 1.0
    assert 0.2 < node["blocks.0.ssm.C"]["activity"] < 0.8  # behind the state's ReLU
    assert main(["profile", str(tmp_path / "m.lrnn")]) == 0
    assert "unmeasured" in capsys.readouterr().out


@pytest.mark.skipif(core_library()[0] is None, reason=f"no core: {core_library()[1]}")
def test_profile_says_why_a_matrix_is_stored_as_it_is(tmp_path, capsys):
    rng = np.random.default_rng(0)
    full = rng.standard_normal((128, 96)).astype(np.float32)
    thin = (rng.standard_normal((96, 128)) * (rng.random((96, 128)) < 0.05)).astype(np.float32)
    program = Program(
        "x",
        96,
        (nodes.Linear("full", ("x",), full), nodes.Relu("r", ("full",)), nodes.Linear("thin", ("r",), thin)),
        "thin",
    )
    program.save(tmp_path / "m.lrnn")
    np.save(tmp_path / "x.npy", rng.standard_normal((20, 96)).astype(np.float32))
    argv = ["profile", str(tmp_path / "m.lrnn"), "--data", str(tmp_path / "x.npy")]
    assert main([*argv, "--json"]) == 0
    dense, sparse = json.loads(capsys.readouterr().out)["matrices"]
    assert (dense["name"], dense["kernel"], dense["density"]) == ("full", "dense", 1.0)
    assert dense["dense_cycles"] < dense["sparse_cycles"]
    assert sparse["kernel"] != "dense"
    assert sparse["sparse_cycles"] < sparse["dense_cycles"]
    assert sparse["sparse_bytes"] < sparse["dense_bytes"]
    assert sparse["event_cycles"] < dense["event_cycles"]
    assert sparse["why"].endswith("faster than dense")
    assert main(argv) == 0
    assert sparse["why"] in capsys.readouterr().out


def test_effective_macs_are_counted_exactly():
    """Each weight counts as often as its input is not zero."""
    from lrnn.profile import count

    weight = np.array([[1, 0, 2], [0, 0, 3]], np.float32)
    program = Program("x", 3, (nodes.Linear("y", ("x",), weight),), "y")
    frames = np.array([[1, 1, 0], [0, 1, 5]], np.float32)
    (cost,) = count(program, frames)
    assert (cost.macs, cost.macs_weights, cost.nonzero) == (6, 3, 3)
    assert cost.macs_effective == pytest.approx((1 + 2) / 2)
    assert cost.activity == pytest.approx(4 / 6)


def test_progress_is_silent_without_a_terminal(capsys):
    assert list(progress(range(3), 3, "x")) == [0, 1, 2]
    assert capsys.readouterr().err == ""


def test_table_aligns():
    assert table([["a", "1"], ["bb", "22"]], ["n", "x"]).splitlines() == [
        "n    x",
        "--  --",
        "a    1",
        "bb  22",
    ]
