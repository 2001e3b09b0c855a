"""`lrnn curves` and PlotSparsity: a log read back, its picture, what is said where something is missing."""

from __future__ import annotations

import json
import re

import pytest

from lrnn.cli import main
from lrnn.profile.plot_run import plot_run, read_log

pytest.importorskip("matplotlib")

HEADER = (
    "dead/a.weight,dead/b.weight,epoch,loss,sparsity/a.weight,sparsity/b.weight,sparsity/total,step,"
    "train_acc,val_acc"
)
LOG = f"""{HEADER}
,,0,2.5,,,,3,0.1,
0,0,,,0.25,0.5,0.4,4,,
2,0,,,0.5,0.75,0.65,8,,
,,0,nan,,,,9,0.3,0.2
"""


@pytest.fixture
def run(tmp_path):
    (tmp_path / "metrics.csv").write_text(LOG)
    return tmp_path


def words(path) -> set[str]:
    """What is written in a picture: matplotlib leaves each text as a comment beside its outlines."""
    return set(re.findall(r"<!-- (.*?) -->", path.read_text()))


def test_a_log_is_read_back(run):
    log = read_log(run)
    assert log["sparsity/a.weight"] == ([4, 8], [0.25, 0.5])
    assert log["train_acc"] == ([3, 9], [0.1, 0.3])
    assert log["val_acc"] == ([9], [0.2])
    assert read_log(run / "metrics.csv").keys() == log.keys()


def test_the_picture_names_what_was_logged(run):
    plot_run(read_log(run), run / "all.svg")
    found = words(run / "all.svg")
    assert {
        "a.weight  0.500",
        "b.weight  0.750",
        "all of these  0.650",
        "train_acc",
        "val_acc",
        "loss",
    } <= found
    assert {"dead units", "a.weight  2"} <= found
    assert "b.weight  0" not in found  # nothing died there
    plot_run(read_log(run), run / "one.svg", ["loss"])
    assert "train_acc" not in words(run / "one.svg")


def test_the_command(run, capsys):
    assert main(["curves", str(run), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["out"] == str(run / "sparsity.svg")
    assert report["last"]["sparsity/total"] == 0.65
    assert report["last"]["loss"] is None  # NaN is no JSON
    assert (run / "sparsity.svg").is_file()
    assert main(["curves", str(run), "-o", str(run / "x.png"), "--metric", "val_acc"]) == 0
    assert (run / "x.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (None, [], "metrics.csv: no such file"),
        ("a,b\n1,2\n", [], "found no column 'step'"),
        ("step,loss\n1,zwei\n", [], "line 2 is not a row of numbers"),
        ("loss,step\n1,1\n", [], "the log has no sparsity/...: was lrnn.Prune among the callbacks?"),
        (LOG, ["--metric", "acc"], "the log has no 'acc'; it has loss, train_acc, val_acc"),
        (LOG, ["-o", "nowhere/x.svg"], "the folder nowhere does not exist"),
    ],
)
def test_what_is_missing_is_named(text, options, message, tmp_path, capsys):
    if text is not None:
        (tmp_path / "metrics.csv").write_text(text)
    assert main(["curves", str(tmp_path), *options]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "sparsity.svg").exists()


def test_the_callback_says_what_it_needs_before_training(tmp_path):
    L = pytest.importorskip("lightning")
    import lrnn
    from lrnn.train.plot import PlotSparsity

    options = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}
    plain = {**options, "logger": False, "default_root_dir": tmp_path}
    with pytest.raises(ValueError, match=r"lrnn\.Prune logs, which is not among the callbacks"):
        L.Trainer(callbacks=[PlotSparsity()], **plain).fit(_module(L))
    with pytest.raises(ValueError, match="a CSVLogger, which is not among the loggers"):
        L.Trainer(callbacks=[PlotSparsity(), lrnn.Prune()], **plain).fit(_module(L))


def test_a_run_that_pruned_nothing_yet_ends_all_the_same(tmp_path):
    L = pytest.importorskip("lightning")
    from lightning.pytorch.loggers import CSVLogger

    import lrnn
    from lrnn.train.plot import PlotSparsity

    trainer = L.Trainer(
        max_steps=2,
        callbacks=[lrnn.Prune(0.5, start=10, end=20), PlotSparsity()],
        logger=CSVLogger(tmp_path),
        log_every_n_steps=1,
        accelerator="cpu",
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with pytest.warns(UserWarning, match="no picture of this run"):
        trainer.fit(_module(L))


def _module(L):
    import torch

    class Module(L.LightningModule):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(3, 3)

        def training_step(self, batch, index):
            loss = self.layer(batch).square().mean()
            self.log("loss", loss)
            return loss

        def train_dataloader(self):
            return torch.utils.data.DataLoader(torch.randn(4, 3), 2)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    return Module()
