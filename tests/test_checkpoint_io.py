"""Checkpoints: whole or not at all, and no code in them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
import torch
from torch import nn

import lrnn
from lrnn.files import remove_leftovers, written_whole

L = pytest.importorskip("lightning")

from lrnn.train import WholeCheckpointIO  # noqa: E402
from lrnn.train.checkpoint import read_checkpoint  # noqa: E402

OLD, NEW = (
    {"state_dict": {"w": torch.full((50,), value)}, "step": step} for value, step in ((1.0, 1), (2.0, 2))
)


class Trap:
    """Unpickling it makes a folder."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


class Options:
    """What some users keep among their hyper-parameters."""


class Line(L.LightningModule):
    def __init__(self, options=None):
        super().__init__()
        self.save_hyperparameters()
        self.layer = nn.Linear(2, 1)

    def training_step(self, batch):
        return self.layer(batch).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def fit(folder, module, ckpt_path=None):
    trainer = L.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        plugins=[WholeCheckpointIO()],
    )
    trainer.fit(module, torch.utils.data.DataLoader(torch.ones(4, 2)), ckpt_path=ckpt_path)
    return trainer


def test_what_is_written_is_read(tmp_path):
    io, path = WholeCheckpointIO(), tmp_path / "new" / "a.ckpt"
    for checkpoint in (OLD, NEW):
        io.save_checkpoint(checkpoint, path)
        found = io.load_checkpoint(path)
        assert found["step"] == checkpoint["step"]
        assert torch.equal(found["state_dict"]["w"], checkpoint["state_dict"]["w"])
    assert [p.name for p in path.parent.iterdir()] == ["a.ckpt"]
    io.remove_checkpoint(path)
    assert not path.exists()


def test_a_kill_in_the_middle_of_a_write_leaves_the_old_file(tmp_path):
    """A child writes half of the new checkpoint and waits; then it dies."""
    path = tmp_path / "a.ckpt"
    WholeCheckpointIO().save_checkpoint(OLD, path)
    code = f"""
import torch, time
from lrnn.train import WholeCheckpointIO
save = torch.save
def half(checkpoint, path):
    save(checkpoint, path)
    content = open(path, "rb").read()
    open(path, "wb").write(content[: len(content) // 2])
    print("half", flush=True)
    time.sleep(60)
torch.save = half
WholeCheckpointIO().save_checkpoint({{"state_dict": {{}}, "step": 2}}, {str(path)!r})
"""
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "half\n"
    (temporary,) = tmp_path.glob(".a-*.ckpt")
    remove_leftovers(tmp_path, ".ckpt")
    assert temporary.exists()  # its writer lives
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert read_checkpoint(path)["step"] == 1
    assert sorted(tmp_path.iterdir()) == sorted([path, temporary])
    WholeCheckpointIO().save_checkpoint(NEW, tmp_path / "b.ckpt")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.ckpt", "b.ckpt"]


def test_an_error_in_a_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def interrupted():
        with written_whole(path) as temporary:
            temporary.write_text("new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a.txt", "old")]


def test_an_object_is_not_written(tmp_path):
    path = tmp_path / "a.ckpt"
    WholeCheckpointIO().save_checkpoint(OLD, path)
    with pytest.raises(
        TypeError, match=r"checkpoint\['deep'\]\[1\] holds .*Options.*a\.ckpt was not written"
    ):
        WholeCheckpointIO().save_checkpoint({**NEW, "deep": [1, Options()]}, path)
    assert read_checkpoint(path)["step"] == 1
    assert len(list(tmp_path.iterdir())) == 1


def test_hyperparameters_are_plain_values(tmp_path):
    fit(tmp_path / "plain", Line({"width": 3, "names": ["a"], "rate": 0.1}))
    with pytest.raises(TypeError, match=r"checkpoint\['hyper_parameters'\]\['options'\] holds .*Options"):
        fit(tmp_path / "object", Line(Options()))


def test_an_object_is_never_unpickled(tmp_path):
    """Neither by the reader, nor by a Trainer that goes on from the file."""
    path, made = tmp_path / "trap.ckpt", tmp_path / "made"
    torch.save({**OLD, "trap": Trap(made)}, path)
    for read in (
        read_checkpoint,
        lrnn.train.load_checkpoint,
        WholeCheckpointIO().load_checkpoint,
        lambda path: fit(tmp_path, Line(), path),
    ):
        with pytest.raises(ValueError, match=r"trap\.ckpt: .*pickled posix\.mkdir") as caught:
            read(path)
        assert "\n" not in str(caught.value)
    assert not made.exists()
    with pytest.raises(ValueError, match="weights_only is False"):
        WholeCheckpointIO().load_checkpoint(path, weights_only=False)


@pytest.mark.parametrize("content", [b"", b"\x80\x02}", b"PK\x03\x04 cut", b"text"], ids=repr)
def test_a_file_that_is_no_checkpoint_is_named(tmp_path, content):
    (tmp_path / "bad.ckpt").write_bytes(content)
    with pytest.raises(ValueError, match=r"bad\.ckpt: not a checkpoint") as caught:
        read_checkpoint(tmp_path / "bad.ckpt")
    assert "\n" not in str(caught.value)


def test_a_cut_checkpoint_is_named(tmp_path):
    torch.save(NEW, tmp_path / "a.ckpt")
    content = (tmp_path / "a.ckpt").read_bytes()
    for share in (0.1, 0.5, 0.9):
        (tmp_path / "a.ckpt").write_bytes(content[: int(share * len(content))])
        with pytest.raises(ValueError, match=r"a\.ckpt: not a checkpoint"):
            read_checkpoint(tmp_path / "a.ckpt")
    with pytest.raises(FileNotFoundError, match=r"none\.ckpt"):
        read_checkpoint(tmp_path / "none.ckpt")
