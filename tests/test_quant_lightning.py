"""lrnn.QuantizationAware in Lightning: calibration, frozen zeros and norms, checkpoints, resuming, files."""

from __future__ import annotations

import copy
import csv
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import lrnn
from lrnn.prune import bake, prune_once
from lrnn.quant import Ranges, calibrated, dequantize, is_prepared, quantize_weight

L = pytest.importorskip("lightning")
pytest.importorskip("jsonargparse")

import tiny_run  # noqa: E402
from lightning.pytorch.callbacks import ModelCheckpoint  # noqa: E402
from lightning.pytorch.strategies import FSDPStrategy  # noqa: E402
from regression import CONFIG, Data, Regression  # noqa: E402
from tiny_run import assert_same_files, differences  # noqa: E402

from lrnn.train import AverageWeights, ExportProgram, QuantizationAware, Resumable  # noqa: E402
from lrnn.train.checkpoint import KEY, load_checkpoint, read_checkpoint  # noqa: E402
from lrnn.train.norms import recalibrate  # noqa: E402


class Pruned(Regression):
    """Half of its weights are zero from the start."""

    def __init__(self):
        super().__init__()
        prune_once(self.model, 0.5)

    def on_save_checkpoint(self, checkpoint):
        checkpoint[KEY] = {"config": CONFIG.to_dict(), "meta": {"mine": 1}}


def fit(folder, callback, *callbacks, module=None, ckpt_path=None, **options):
    torch.manual_seed(1)
    module = module or Pruned()
    trainer = L.Trainer(
        callbacks=[callback, *callbacks],
        **{
            "logger": False,
            "accelerator": "cpu",
            "default_root_dir": folder,
            "num_sanity_val_steps": 0,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "enable_checkpointing": any(isinstance(c, ModelCheckpoint) for c in callbacks),
            "max_epochs": 2,
            **options,
        },
    )
    trainer.fit(module, Data(), ckpt_path=ckpt_path, weights_only=True)
    return trainer, module


def test_it_calibrates_trains_on_the_grid_and_keeps_zeros(tmp_path):
    module = Pruned()
    zeros = {name: p == 0 for name, p in module.named_parameters() if p.ndim > 1 and (p == 0).any()}
    assert len(zeros) > 3
    statistics = copy.deepcopy(module)
    data = torch.cat([x for x, _ in Data().calibration_batches(3)])[:10]
    recalibrate(statistics, [x[:10] for x in (data[:4], data[4:8], data[8:10])])
    callback = QuantizationAware("w4a8", clips=10)
    trainer, _ = fit(tmp_path, callback, module=module)
    assert trainer.global_step == 16
    ranges = calibrated(module.model)
    assert ranges.clips == 10
    assert ranges["input"].count == data.numel()
    assert ranges["input"].max_abs == data.abs().max().item()
    norm = module.model.blocks[0].norm
    assert norm.frozen
    torch.testing.assert_close(
        norm.running_mean, statistics.model.blocks[0].norm.running_mean, rtol=0.2, atol=0.05
    )
    for name, zero in zeros.items():
        owner, _, attribute = name.rpartition(".")
        stack = module.get_submodule(owner).parametrizations[attribute]
        effective = getattr(module.get_submodule(owner), attribute)
        assert (effective[zero.all(-1) if attribute == "B" else zero] == 0).all(), name
        assert (stack.original[zero] != 0).any()
    weight = module.model.decoder.weight.detach()
    np.testing.assert_array_equal(weight.double(), dequantize(*quantize_weight(weight, 4)))


@pytest.mark.parametrize("observer", ["minmax", "percentile", "mse"])
def test_resumed_equals_uninterrupted(tmp_path, observer):
    def callbacks():
        return QuantizationAware("w8a8", clips=8, observer=observer), Resumable(), AverageWeights(0.9)

    keep = ModelCheckpoint(tmp_path, filename="{epoch}", every_n_epochs=1, save_top_k=-1)
    first, whole = fit(tmp_path, *callbacks(), keep, max_epochs=3)
    second, halves = fit(tmp_path, *callbacks(), max_epochs=3, ckpt_path=tmp_path / "epoch=0.ckpt")
    assert second.global_step == first.global_step == 24
    assert not differences(whole.state_dict(), halves.state_dict())
    assert calibrated(whole) == calibrated(halves)
    one, other = (t.optimizers[0].state_dict()["state"] for t in (first, second))
    assert not differences(one, other)


def test_a_checkpoint_gives_plain_weights_on_their_grids(tmp_path):
    keep = ModelCheckpoint(tmp_path, filename="last")
    _, module = fit(tmp_path, QuantizationAware("w8a8", clips=8, exclude=["model.encoder"]), keep)
    checkpoint = read_checkpoint(tmp_path / "last.ckpt")
    assert checkpoint["quantization"]["exclude"] == ["model.encoder"]
    model, meta = load_checkpoint(tmp_path / "last.ckpt")
    assert not is_prepared(model)
    assert meta["mine"] == 1
    assert meta["quantization"]["scheme"]["name"] == "w8a8"
    assert Ranges.from_json(meta["quantization"]["ranges"]) == calibrated(module.model)
    bake(model)
    again, before = lrnn.compile(model), lrnn.compile(module.model)
    for node, trained in zip(again.nodes, before.nodes, strict=True):
        if node.op == "linear" and node.name != "encoder":
            np.testing.assert_array_equal(
                quantize_weight(node.weight, 8)[0], quantize_weight(trained.weight, 8)[0]
            )
            grid = dequantize(*quantize_weight(node.weight, 8))
            assert abs(grid - node.weight).max() <= 1e-6 * abs(grid).max()
    encoder = again.nodes[0].weight
    assert abs(encoder - dequantize(*quantize_weight(encoder, 8))).max() > 1e-4


def test_what_is_exported_is_on_its_grids(tmp_path):
    _, module = fit(tmp_path, QuantizationAware("w4a8", clips=8), ExportProgram(str(tmp_path / "out")))
    assert is_prepared(module)
    program = lrnn.load(tmp_path / "out" / "model.lrnn")
    for node in program.nodes:
        if node.op == "linear":
            grid = dequantize(*quantize_weight(node.weight, 4))
            assert abs(grid - node.weight).max() <= 1e-6 * abs(grid).max()
    assert program.meta["quantization"]["scheme"]["name"] == "w4a8"
    ranges = Ranges.from_json(program.meta["quantization"]["ranges"])
    known = lrnn.calibrate(program, [x for x, _ in Data().calibration_batches(2)], known=ranges)
    assert set(known.values) == set(program.widths)
    assert known["input"] == ranges["input"]
    lrnn.SequenceModel.load(tmp_path / "out" / "model.safetensors")


def test_weights_in_fp8_need_no_ranges(tmp_path):
    keep = ModelCheckpoint(tmp_path, filename="last")
    _, module = fit(tmp_path, QuantizationAware("fp8", clips=4), keep, max_epochs=1)
    model, meta = load_checkpoint(tmp_path / "last.ckpt")
    assert meta["quantization"] == {"scheme": QuantizationAware("fp8").scheme.to_json(), "ranges": None}
    weight = module.model.decoder.weight.detach()
    assert torch.equal(bake(model) or model.decoder.weight, weight)
    steps = weight / weight.abs().amax(1, keepdim=True).log2().floor().exp2()
    assert torch.equal(steps.to(torch.float8_e4m3fn).float(), steps)


def test_refusals(tmp_path):
    with pytest.raises(ValueError, match="clips is 0"):
        QuantizationAware(clips=0)
    with pytest.raises(ValueError, match="observer is 'median'"):
        QuantizationAware(observer="median")
    with pytest.raises(ValueError, match="scheme is 'w3'"):
        QuantizationAware("w3")
    with pytest.raises(ValueError, match="callbacks has Prune beside QuantizationAware"):
        fit(tmp_path, QuantizationAware(), lrnn.Prune(0.5))
    trainer = SimpleNamespace(strategy=FSDPStrategy.__new__(FSDPStrategy), callbacks=[])
    with pytest.raises(ValueError, match="strategy is FSDPStrategy, but QuantizationAware needs one process"):
        QuantizationAware().setup(trainer, Pruned(), "fit")

    class Few(Data):
        def calibration_batches(self, count):
            return iter(list(super().calibration_batches(1)))

    module = Pruned()
    quiet = {
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "accelerator": "cpu",
    }
    trainer = L.Trainer(callbacks=[QuantizationAware(clips=5)], enable_checkpointing=False, **quiet)
    with pytest.raises(ValueError, match="clips is 5, but the datamodule gave 4"):
        trainer.fit(module, Few())


def test_another_scheme_than_the_checkpoint_is_refused(tmp_path):
    keep = ModelCheckpoint(tmp_path, filename="last")
    fit(tmp_path, QuantizationAware("w8a8", clips=8), keep, max_epochs=1)
    with pytest.raises(
        ValueError, match=r"scheme is .*'w4a8'.*, but the checkpoint was trained with .*'w8a8'"
    ):
        fit(tmp_path, QuantizationAware("w4a8", clips=8), ckpt_path=tmp_path / "last.ckpt")


@pytest.mark.slow
def test_a_tiny_run_from_the_command_line(tmp_path):
    """Through `lrnn fit`: stopped and taken up again it writes the same files, to the bit."""
    recipe = tiny_run.RECIPE.replace("lrnn.train.Prune\n", "lrnn.train.QuantizationAware\n")
    recipe = recipe.replace("{sparsity: 0.5, start: 0.1, end: 0.8, every: 2}", "{scheme: w8a8, clips: 4}")
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    for folder in (whole, halves):
        folder.mkdir()
    tiny_run.finish(tiny_run.start(whole, recipe=recipe), whole)
    with open(whole / "runs/tiny/version_0/metrics.csv") as file:
        assert len([row for row in csv.DictReader(file) if row["train_loss"]]) == 24
    meta = lrnn.load(whole / "runs/tiny/version_0/model.lrnn").meta
    assert meta["quantization"]["ranges"]["clips"] == 4
    exported, _ = load_checkpoint(whole / "runs/tiny/version_0/model.safetensors")
    trained, _ = load_checkpoint(whole / "runs/tiny/version_0/checkpoints/step-00000024.ckpt")
    assert torch.equal(exported.decoder.weight, trained.decoder.weight)  # no last touch: it is on its grid

    shutil.copytree(whole, halves, dirs_exist_ok=True)
    for name in ("checkpoints/step-00000023.ckpt", "checkpoints/step-00000024.ckpt", "model.lrnn"):
        (halves / "runs/tiny/version_0" / name).unlink()
    tiny_run.finish(tiny_run.start(halves, "--ckpt_path=last", recipe=recipe), halves)
    assert "step-00000022.ckpt at step 22" in (halves / "fit.log").read_text()
    assert_same_files(whole / "runs", halves / "runs")
