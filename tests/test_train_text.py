"""Training a language model: loss, schedule, accumulation, resuming, two processes, the files at its end."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import lrnn

pytest.importorskip("lightning")
pytest.importorskip("jsonargparse")

import lightning as L
import tiny_run
from text_cases import word_tokenizer

from lrnn.data.rows import IGNORED, Row
from lrnn.nn import HGRNBlockConfig, LanguageModelConfig
from lrnn.prune import bake
from lrnn.train import LanguageModule, TextData, load_checkpoint
from lrnn.train.checkpoint import read_checkpoint

NETWORK = LanguageModelConfig(
    n_layers=2, block=HGRNBlockConfig(d_model=12, d_state=12, d_hidden=16, relu="gates")
)
RECIPE = """
seed_everything: 3
model:
  class_path: lrnn.train.LanguageModule
  init_args:
    network: {n_layers: 2, block: {d_model: 12, d_state: 12, d_hidden: 16, relu: gates}}
    lr: 1.0e-2
data:
  class_path: lrnn.train.TextData
  init_args: {root: text, batch_size: 2, length: 16, batches_per_epoch: 10,
              validation_rows: 3, validation_length: 32}
trainer:
  accelerator: cpu
  max_steps: 24
  precision: bf16-mixed
  num_sanity_val_steps: 0
  log_every_n_steps: 1
  enable_progress_bar: false
  logger:
    class_path: lightning.pytorch.loggers.CSVLogger
    init_args: {save_dir: runs, name: tiny, flush_logs_every_n_steps: 1}
  callbacks:
    - class_path: lrnn.train.Prune
      init_args: {sparsity: 0.5, start: 0.1, end: 0.8, every: 2, exclude: [model.embedding, model.head]}
    - class_path: lrnn.train.ExportProgram
    - class_path: lrnn.train.ResumePoints
      init_args: {every: 1, keep: 3}
"""
SPY = '''
"""What each process sees and ends with, one file per rank."""
import torch
import lightning as L


class Spy(L.Callback):
    def __init__(self):
        self.batches, self.validated = [], 0

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        self.batches.append(batch[0].clone())

    def on_validation_batch_end(self, trainer, module, outputs, batch, *_):
        self.validated += len(batch[0])

    def on_train_end(self, trainer, module):
        state = {"state": module.state_dict(), "batches": torch.cat(self.batches)}
        torch.save({**state, "validated": self.validated}, f"rank-{trainer.global_rank}.pt")
'''


def write_text(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(0)
    for name, length in (("a_train", 1500), ("b_train", 700), ("c_val", 300)):
        letters = torch.randint(97, 105, (length,), generator=generator).tolist()
        (folder / f"{name}.txt").write_bytes(bytes(letters))


def start(folder: Path, *arguments: str) -> subprocess.Popen:
    folder.mkdir(exist_ok=True)
    write_text(folder / "text")
    (folder / "tiny.yaml").write_text(RECIPE)
    command = [sys.executable, "-m", "lrnn.cli", "fit", "-c", "tiny.yaml", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "LRNN_CACHE": str(folder / "cache")}
    with open(folder / "fit.log", "a") as log:
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)


def finished(folder: Path, *arguments: str) -> Path:
    tiny_run.finish(start(folder, *arguments), folder)
    return folder


def data(folder: Path, **options) -> TextData:
    write_text(folder / "text")
    sizes = {
        "batch_size": 2,
        "length": 16,
        "batches_per_epoch": 4,
        "validation_rows": 3,
        "validation_length": 32,
    }
    return TextData(str(folder / "text"), **{**sizes, **options})


def trainer(folder: Path, **options) -> L.Trainer:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    quiet |= {"enable_model_summary": False, "num_sanity_val_steps": 0, "accelerator": "cpu"}
    return L.Trainer(default_root_dir=folder, **{**quiet, **options})


class TestModule:
    def test_the_loss_is_the_cross_entropy_of_the_next_token(self):
        module = LanguageModule(NETWORK).double().eval()
        tokens = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]])
        targets = torch.tensor([[2, 3, IGNORED, 1], [6, 7, 8, 9]])
        reset = torch.zeros(2, 4, dtype=torch.bool)
        reset[0, 3] = True
        log_p = torch.cat(
            [module.model(part)[0].log_softmax(-1) for part in (tokens[:1, :3], tokens[1:])], 1
        )[0]
        first_of_second, _ = module.model(tokens[:1, 3:])
        log_p = torch.cat([log_p[:3], first_of_second[0].log_softmax(-1), log_p[3:]])
        wanted = [(i, t) for i, t in enumerate(targets.flatten().tolist()) if t != IGNORED]
        expected = -sum(log_p[i, t].item() for i, t in wanted) / len(wanted)
        assert module._loss(Row(tokens, targets, reset)).item() == pytest.approx(expected, rel=1e-6)

    def test_lower_bounds_are_not_decayed(self):
        module = LanguageModule(NETWORK)
        module.trainer = L.Trainer(max_steps=10, accelerator="cpu", logger=False, enable_checkpointing=False)
        groups = {g["name"]: g for g in module.configure_optimizers()["optimizer"].param_groups}
        plain = {id(p) for p in groups["plain"]["params"]}
        assert id(module.model.stack.lower_bounds) in plain
        assert id(module.model.stack.blocks[0].mixer.f_proj.weight) not in plain
        assert groups["plain"]["weight_decay"] == 0

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"lr": 0.0}, "lr, ssm_lr_factor are 0.0"),
            ({"warmup": 1.0}, "warmup, lr_min are 1.0"),
            ({"clip": 0.0}, "clip is 0.0, expected a positive norm"),
        ],
    )
    def test_names_the_option(self, options, message):
        with pytest.raises(ValueError, match=message):
            LanguageModule(NETWORK, **options)

    def test_starts_from_a_file_that_fits(self, tmp_path):
        source = lrnn.LanguageModel(NETWORK)
        source.save(tmp_path / "m.safetensors")
        module = LanguageModule(NETWORK, init_from=str(tmp_path / "m.safetensors"))
        assert torch.equal(module.model.embedding.weight, source.embedding.weight)
        other = LanguageModelConfig(n_layers=1, block=NETWORK.block)
        with pytest.raises(ValueError, match=r"init_from: .*m\.safetensors does not fit the network"):
            LanguageModule(other, init_from=str(tmp_path / "m.safetensors"))

    def test_accumulated_batches_are_one_large_batch(self, tmp_path):
        """Two of 2 rows equal one of 4, and the schedule counts optimiser steps."""
        ends = []
        for batch, accumulated in ((4, 1), (2, 2)):
            L.seed_everything(0)
            module = LanguageModule(NETWORK, warmup=0.0)
            fit = trainer(tmp_path, max_steps=4, accumulate_grad_batches=accumulated, limit_val_batches=0)
            fit.fit(module, data(tmp_path, batch_size=batch, batches_per_epoch=4 * accumulated))
            assert fit.global_step == 4
            assert module.lr_schedulers().get_last_lr()[0] == pytest.approx(0, abs=1e-12)
            ends.append(module.model.state_dict())
        for name, value in ends[0].items():
            torch.testing.assert_close(ends[1][name], value, rtol=1e-3, atol=1e-5)

    def test_validation_is_the_mean_over_tokens(self, tmp_path):
        module, text = LanguageModule(NETWORK), data(tmp_path)
        fit = trainer(tmp_path, max_steps=1)
        found = fit.validate(module, text, verbose=False)[0]["val_bits"]
        losses = [module._loss(Row(*(x[None] for x in row))).item() for row in text.validation]
        assert found == pytest.approx(sum(losses) / len(losses) / math.log(2), rel=1e-5)


class TestData:
    def test_needs_text(self, monkeypatch):
        monkeypatch.delenv("LRNN_DATA", raising=False)
        with pytest.raises(ValueError, match="no data: expected a folder of text"):
            TextData().prepare_data()

    @pytest.mark.parametrize("name", ["batch_size", "length", "batches_per_epoch", "validation_rows"])
    def test_names_the_option(self, name):
        with pytest.raises(ValueError, match=f"{name} is 0, expected at least 1"):
            TextData("text", **{name: 0})

    def test_a_tokenizer_wants_a_row_for_each_token(self, tmp_path):
        text = data(tmp_path, tokenizer=str(word_tokenizer(tmp_path / "tokenizer.json")))
        with pytest.raises(ValueError, match=r"network\.vocabulary is 256, expected at least \d+, the token"):
            trainer(tmp_path, max_steps=1).fit(LanguageModule(NETWORK), text)

    def test_validation_text_may_be_elsewhere(self, tmp_path):
        text = data(tmp_path, validation_root=str(tmp_path / "text" / "a_train.txt"))
        text.setup("fit")
        assert len(text.validation.tokens) == 1500

    def test_calibration_batches_repeat(self, tmp_path):
        text = data(tmp_path)
        text.setup("fit")
        one, other = ([b[0] for b in text.calibration_batches(3)] for _ in range(2))
        assert len(one) == 3
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return finished(tmp_path_factory.mktemp("text") / "run")


@pytest.mark.slow
class TestFit:
    def test_leaves_files_that_agree(self, run):
        folder = run / "runs/tiny/version_0"
        model = lrnn.LanguageModel.load(folder / "model.safetensors").eval()
        program = lrnn.load(folder / "model.lrnn")
        assert program.meta["text"] == {"tokenizer": None}
        tokens = torch.randint(256, (1, 30))
        found = program.stream("torch").run(tokens[0, :, None].float())
        torch.testing.assert_close(
            torch.from_numpy(found), model(tokens)[0][0].detach(), rtol=1e-4, atol=1e-4
        )
        checkpoint, meta = load_checkpoint(max(folder.rglob("step-*.ckpt")))
        bake(checkpoint)
        assert meta["text"] == {"tokenizer": None}
        assert torch.equal(checkpoint.head.weight, model.head.weight)
        assert (model.head.weight != 0).all()
        card = program.meta["card"]
        assert card["data"]["files"] == ["a_train.txt", "b_train.txt"]
        assert card["metrics"]["val_bits"] < 8
        zeros = [(p == 0).double().mean() for n, p in model.named_parameters() if n.endswith("proj.weight")]
        assert 0.3 < sum(zeros) / len(zeros) < 0.7

    def test_going_on_equals_not_stopping(self, run, tmp_path):
        again = tmp_path / "again"
        shutil.copytree(run, again)
        for name in ("checkpoints/step-00000023.ckpt", "checkpoints/step-00000024.ckpt", "model.lrnn"):
            (again / "runs/tiny/version_0" / name).unlink()
        finished(again, "--ckpt_path=last")
        assert "step-00000022.ckpt at step 22" in (again / "fit.log").read_text()
        tiny_run.assert_same_files(run / "runs", again / "runs")

    def test_two_processes_share_the_rows(self, run, tmp_path):
        folder = tmp_path / "ddp"
        folder.mkdir()
        (folder / "spy.py").write_text(SPY)
        finished(folder, "--trainer.devices=2", "--trainer.strategy=ddp", "--trainer.callbacks+=spy.Spy")
        one, other = (torch.load(folder / f"rank-{rank}.pt", weights_only=True) for rank in (0, 1))
        assert all(torch.equal(value, other["state"][name]) for name, value in one["state"].items())
        rows = torch.cat([one["batches"], other["batches"]])
        assert len(torch.unique(rows, dim=0)) == len(rows) == 2 * 24 * 2
        assert sorted([one["validated"], other["validated"]]) == [2, 4]  # of 3 rows, twice


SHARDED = """
import sys
import lightning as L
from lightning.pytorch.strategies import ModelParallelStrategy
from test_train_text import NETWORK, LanguageModule, Path, data, trainer

if __name__ == "__main__":
    devices, folder = int(sys.argv[1]), Path(sys.argv[2])
    sharded = {"data_parallel_size": 2, "tensor_parallel_size": 1, "save_distributed_checkpoint": False}
    strategy = ModelParallelStrategy(**sharded) if devices == 2 else "auto"
    L.seed_everything(0)
    module = LanguageModule(NETWORK)
    fit = trainer(folder, max_steps=3, limit_val_batches=0, devices=devices, strategy=strategy)
    fit.fit(module, data(folder, batch_size=4 // devices))
    fit.save_checkpoint(folder / f"{devices}.ckpt", weights_only=True)
"""


@pytest.mark.slow
def test_sharded_over_two_processes_is_one_process(tmp_path):
    """FSDP: the same rows in all, hence the same weights but for rounding."""
    (tmp_path / "sharded.py").write_text(SHARDED)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(Path(__file__).parent)])}
    for devices in ("1", "2"):
        command = [sys.executable, str(tmp_path / "sharded.py"), devices, str(tmp_path)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr[-3000:]
    one, other = (load_checkpoint(tmp_path / f"{devices}.ckpt")[0].state_dict() for devices in (1, 2))
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, rtol=1e-3, atol=1e-4)


def test_checkpoint_names_its_kind(tmp_path):
    module = LanguageModule(NETWORK)
    fit = trainer(tmp_path, max_steps=1, limit_val_batches=0)
    fit.fit(module, data(tmp_path))
    fit.save_checkpoint(tmp_path / "m.ckpt")
    assert read_checkpoint(tmp_path / "m.ckpt")["lrnn"]["kind"] == "LanguageModel"
    model, _ = load_checkpoint(tmp_path / "m.ckpt")
    assert isinstance(model, lrnn.LanguageModel)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda entry: entry.pop("config"), "found no entry 'config', expected one as `lrnn fit` writes it"),
        (lambda entry: entry.pop("meta"), "found no entry 'meta'"),
        (
            lambda entry: entry["config"].update(depth=3),
            "do not fit: LanguageModelConfig has no field 'depth'",
        ),
        (lambda entry: entry["config"].update(n_layers=3), "do not fit: Error.* loading state_dict"),
        (lambda entry: entry.update(kind="Transformer"), "do not fit: found a model of kind 'Transformer'"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_named(change, message, tmp_path):
    model = lrnn.LanguageModel(NETWORK)
    entry = {"kind": "LanguageModel", "config": NETWORK.to_dict(), "meta": {}}
    state = {f"model.{name}": value for name, value in model.state_dict().items()}
    torch.save({"state_dict": state, "lrnn": entry}, tmp_path / "m.ckpt")
    load_checkpoint(tmp_path / "m.ckpt")
    change(entry)
    torch.save({"state_dict": state, "lrnn": entry}, tmp_path / "m.ckpt")
    with pytest.raises(ValueError, match=rf"m\.ckpt: .*{message}"):
        load_checkpoint(tmp_path / "m.ckpt")
