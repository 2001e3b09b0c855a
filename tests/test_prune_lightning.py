"""lrnn.Prune in Lightning: schedule in steps, logging, checkpoints and resuming."""

from __future__ import annotations

import copy
import csv
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import lrnn
from lrnn.prune import CubicSchedule, LinearSchedule, OneShotSchedule, attach_masks, bake

L = pytest.importorskip("lightning")

from lightning.pytorch.callbacks import ModelCheckpoint  # noqa: E402
from lightning.pytorch.loggers import CSVLogger  # noqa: E402
from lightning.pytorch.strategies import (  # noqa: E402
    DDPStrategy,
    DeepSpeedStrategy,
    FSDPStrategy,
    ModelParallelStrategy,
)
from torch.utils.data import DataLoader, TensorDataset  # noqa: E402

from lrnn.train import DenoiseModule  # noqa: E402
from lrnn.train.cli import fit as run_recipe  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:units died")


class Regression(L.LightningModule):
    """A small sequence model with a convolution and an LSTM beside it."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        config = lrnn.SequenceModelConfig(d_in=6, d_out=4, d_model=12, d_state=16, blocks=2, n_layers=1)
        self.model = lrnn.SequenceModel(config)
        self.conv = nn.Conv1d(6, 6, 1)
        self.lstm = nn.LSTM(4, 4, batch_first=True)

    def forward(self, x):
        y = self.conv(x.transpose(1, 2)).transpose(1, 2)
        return self.lstm(self.model(y)[0])[0]

    def training_step(self, batch):
        return (self(batch[0]) - batch[1]).square().mean()

    def validation_step(self, batch):
        self.log("val_loss", (self(batch[0]) - batch[1]).square().mean())

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), 1e-2, weight_decay=0.1)


def loader(batches: int = 10) -> DataLoader:
    generator = torch.Generator().manual_seed(1)
    x, y = (torch.randn(4 * batches, 9, width, generator=generator) for width in (6, 4))
    return DataLoader(TensorDataset(x, y), batch_size=4)


def trainer(folder, prune, *callbacks, **options) -> L.Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    options = quiet | {"max_epochs": 2, "accelerator": "cpu", "default_root_dir": folder} | options
    options.setdefault("enable_checkpointing", any(isinstance(c, ModelCheckpoint) for c in callbacks))
    return L.Trainer(callbacks=[prune, *callbacks], **options)


class Sparsities(L.Callback):
    """Records the total sparsity that each training step ran with."""

    def __init__(self, prune):
        self.prune, self.seen = prune, []

    def on_train_batch_end(self, *_):
        self.seen.append(self.prune.pruner.total_sparsity())


def test_schedule_in_fractions_of_all_steps(tmp_path):
    prune = lrnn.Prune(0.9, start=0.1, end=0.8, every=3)
    record = Sparsities(prune)
    trainer(tmp_path, prune, record).fit(Regression(), loader())
    assert prune.pruner.schedule == CubicSchedule(2, 16)
    assert len(record.seen) == 20
    assert record.seen == sorted(record.seen)
    assert record.seen[:3] == [0.0] * 3
    assert record.seen[16:] == [record.seen[-1]] * 4
    assert record.seen[-1] == pytest.approx(0.9, abs=0.02)
    assert record.seen[15] < record.seen[16]


def test_total_and_tensors_are_logged(tmp_path):
    prune = lrnn.Prune(0.9, start=2, end=8, every=3)
    fit = trainer(tmp_path, prune, logger=CSVLogger(tmp_path), log_every_n_steps=100)
    fit.fit(Regression(), loader())
    with open(f"{fit.logger.log_dir}/metrics.csv") as file:
        rows = {int(row["step"]): row for row in csv.DictReader(file) if row["sparsity/total"]}
    assert list(rows) == [2, 5, 8]
    achieved = {"total": prune.pruner.total_sparsity(), **prune.pruner.sparsities()}
    assert len(achieved) == 9
    for name, value in achieved.items():
        assert float(rows[8][f"sparsity/{name}"]) == value
    for name, units in prune.pruner.dead_units().items():
        assert int(rows[8][f"dead/{name}"]) == len(units)
    assert fit.callback_metrics["sparsity"].item() == pytest.approx(prune.pruner.total_sparsity())


@pytest.mark.parametrize("mode", ["ste", "paper"])
@pytest.mark.parametrize("stop", [1, 2])  # half way up the schedule, and after its end
def test_resumed_equals_uninterrupted(tmp_path, mode, stop):
    def prune():
        return lrnn.Prune(0.9, start=0.1, end=0.5, every=4, mode=mode)

    whole = Regression()
    keep = ModelCheckpoint(tmp_path, filename="{epoch}", every_n_epochs=1, save_top_k=-1)
    first = trainer(tmp_path, prune(), keep, max_epochs=3)
    first.fit(whole, loader())
    path = tmp_path / f"epoch={stop - 1}.ckpt"
    torch.load(path, weights_only=True)

    halves, again = Regression(), prune()
    second = trainer(tmp_path, again, max_epochs=3)
    second.fit(halves, loader(), ckpt_path=path, weights_only=True)
    assert second.global_step == first.global_step == 30
    assert again.state_dict() == first.callbacks[0].state_dict()
    assert halves.state_dict().keys() == whole.state_dict().keys()
    for (name, a), b in zip(whole.state_dict().items(), halves.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    one, other = (t.optimizers[0].state_dict()["state"] for t in (first, second))
    assert all(torch.equal(one[i][k], other[i][k]) for i in one for k in one[i])


def test_a_longer_fit_keeps_the_schedule_of_its_checkpoint(tmp_path):
    keep = ModelCheckpoint(tmp_path, filename="{epoch}")
    trainer(tmp_path, lrnn.Prune(0.9), keep, max_epochs=1).fit(Regression(), loader())
    prune = lrnn.Prune(0.9)
    record = Sparsities(prune)
    with pytest.warns(UserWarning, match=r"goes on with the checkpoint's CubicSchedule\(start=0, end=9\)"):
        trainer(tmp_path, prune, record, max_epochs=3).fit(
            Regression(), loader(), ckpt_path=tmp_path / "epoch=0.ckpt"
        )
    assert record.seen == [pytest.approx(0.9, abs=0.02)] * 20


def test_accumulated_batches_share_their_masks(tmp_path):
    class Masks(L.Callback):
        seen = ()

        def on_train_batch_end(self, trainer, pl_module, *_):
            mask = pl_module.model.encoder.parametrizations.weight[0].mask
            self.seen = (*self.seen, mask.clone())

    prune, masks = lrnn.Prune(0.9, start=0, end=1.0, every=1), Masks()
    trainer(tmp_path, prune, masks, accumulate_grad_batches=2).fit(Regression(), loader())
    assert prune.pruner.schedule == CubicSchedule(0, 10)
    assert len(masks.seen) == 20
    assert all(torch.equal(masks.seen[i], masks.seen[i + 1]) for i in range(0, 20, 2))
    assert any(not torch.equal(masks.seen[i], masks.seen[i + 1]) for i in range(1, 19, 2))


def test_bf16_mixed_precision(tmp_path):
    prune = lrnn.Prune(0.9)
    module = Regression()
    trainer(tmp_path, prune, precision="bf16-mixed").fit(module, loader())
    assert prune.pruner.total_sparsity() == pytest.approx(0.9, abs=0.02)
    assert all(p.dtype == torch.float32 for p in module.parameters())


def test_validating_does_not_change_what_is_trained(tmp_path):
    modules = [Regression(), Regression()]
    for module, options in zip(modules, ({}, {"val_check_interval": 3}), strict=True):
        fit = trainer(tmp_path, lrnn.Prune(0.9, mode="paper"), num_sanity_val_steps=0, **options)
        fit.fit(module, loader(), loader(2) if options else None)
    for a, b in zip(modules[0].parameters(), modules[1].parameters(), strict=True):
        assert torch.equal(a, b)


def test_paper_mode_validates_and_ends_with_exact_zeros(tmp_path):
    class Zeros(L.Callback):
        seen = ()

        def on_validation_batch_start(self, trainer, *_):
            self.seen = (*self.seen, trainer.callbacks[0].pruner.total_sparsity())

    prune, zeros = lrnn.Prune(0.9, start=0, end=5, mode="paper"), Zeros()
    trainer(tmp_path, prune, zeros, num_sanity_val_steps=0).fit(Regression(), loader(), loader(1))
    assert zeros.seen == (pytest.approx(0.9, abs=0.02),) * 2
    assert prune.pruner.total_sparsity() == pytest.approx(0.9, abs=0.02)


def test_a_masked_checkpoint_without_a_trainer(tmp_path):
    module, keep = Regression(), ModelCheckpoint(tmp_path, filename="last")
    trainer(tmp_path, lrnn.Prune(0.9), keep).fit(module, loader())
    state = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    plain = Regression()
    attach_masks(plain, state)
    plain.load_state_dict(state)
    bake(plain)
    module.eval(), plain.eval()
    x = torch.randn(2, 9, 6)
    assert torch.equal(plain(x), module(x))
    assert (plain.model.decoder.weight == 0).float().mean() > 0.5


def test_a_fit_can_be_repeated_and_the_module_copied(tmp_path):
    module, prune = Regression(), lrnn.Prune(0.9)
    trainer(tmp_path, prune).fit(module, loader())
    twin = copy.deepcopy(module)
    bake(twin)
    masks = {k: v.clone() for k, v in module.state_dict().items() if k.endswith("mask")}
    trainer(tmp_path, prune).fit(module, loader())
    assert len(masks) == 8
    assert all(torch.equal(module.state_dict()[k], v) for k, v in masks.items())  # still frozen


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sparsity": 1.5}, "sparsity is 1.5"),
        ({"start": 1.5}, "start is 1.5"),
        ({"end": -1}, "end is -1"),
        ({"every": 0}, "every is 0"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        lrnn.Prune(**options)


def test_pruning_may_end_with_the_last_step(tmp_path):
    prune, module = lrnn.Prune(0.9, start=0.0, end=1.0), Regression()
    fit = trainer(tmp_path, prune, logger=CSVLogger(tmp_path), log_every_n_steps=1)
    fit.fit(module, loader())
    assert prune.pruner.schedule.end == 20
    with open(f"{fit.logger.log_dir}/metrics.csv") as file:
        last = [row for row in csv.DictReader(file) if row["sparsity/total"]][-1]
    assert (int(last["step"]), float(last["sparsity/total"])) == (20, prune.pruner.total_sparsity())
    assert prune.pruner.total_sparsity() == pytest.approx(0.9, abs=0.02)


def test_an_early_end_of_training_is_reported(tmp_path):
    with pytest.warns(
        UserWarning, match=r"training ended at step 20, before pruning did at 30: sparsity is 0\.8"
    ):
        trainer(tmp_path, lrnn.Prune(0.9, start=0, end=30)).fit(Regression(), loader())


def test_fractions_need_a_last_step(tmp_path):
    with pytest.raises(ValueError, match="the fit has no last step"):
        trainer(tmp_path, lrnn.Prune(0.9), max_epochs=-1).fit(Regression(), loader())


# Schedules, overrides, dead units


@pytest.mark.parametrize(
    ("name", "expected"), [("linear", LinearSchedule(4, 10)), ("oneshot", OneShotSchedule(4))]
)
def test_schedules_by_name(tmp_path, name, expected):
    prune = lrnn.Prune(0.9, start=0.2, end=10, every=3, schedule=name)
    record = Sparsities(prune)
    trainer(tmp_path, prune, record).fit(Regression(), loader())
    assert prune.pruner.schedule == expected
    assert record.seen[:4] == [0.0] * 4
    assert record.seen[expected.end :] == [pytest.approx(0.9, abs=0.02)] * (20 - expected.end)


def test_another_schedule_than_the_checkpoint_is_refused(tmp_path):
    keep = ModelCheckpoint(tmp_path, filename="{epoch}")
    trainer(tmp_path, lrnn.Prune(0.9, schedule="linear"), keep, max_epochs=1).fit(Regression(), loader())
    with pytest.raises(ValueError, match="schedule is 'cubic', but the checkpoint was pruned with 'linear'"):
        trainer(tmp_path, lrnn.Prune(0.9)).fit(Regression(), loader(), ckpt_path=tmp_path / "epoch=0.ckpt")


def test_overrides(tmp_path):
    prune = lrnn.Prune(0.8, overrides={"conv": 0.0, "model.decoder": 0.6})
    trainer(tmp_path, prune).fit(Regression(), loader())
    sparsities = prune.pruner.sparsities()
    assert sparsities["conv.weight"] == 0
    assert sparsities["model.decoder.weight"] == pytest.approx(0.6, abs=1 / 48)
    assert prune.pruner.total_sparsity() == pytest.approx(0.8, abs=0.01)


def test_the_first_death_of_each_weight_is_reported_once(tmp_path):
    class Warned(L.Callback):
        seen = ()

        def on_train_batch_end(self, trainer, *_):
            dead = trainer.callbacks[0].pruner.dead_units()
            self.seen = (*self.seen, {name for name, units in dead.items() if len(units)})

    prune, record = lrnn.Prune(0.95, start=0, end=12, every=4), Warned()
    with pytest.warns(UserWarning, match="units died") as caught:
        trainer(tmp_path, prune, record).fit(Regression(), loader())
    messages = [str(w.message) for w in caught if "units died" in str(w.message)]
    for name in set().union(*record.seen):
        first = next(step for step, names in enumerate(record.seen) if name in names)
        (message,) = (m for m in messages if f" {name}: " in m)
        assert message.startswith(f"units died at step {first}, sparsity ")
    assert set().union(*record.seen)


@pytest.mark.parametrize("kind", [DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy])
def test_sharded_strategies_are_refused(kind):
    strategy = kind.__new__(kind)  # to make a real one takes GPUs or another package
    with pytest.raises(ValueError, match=f"strategy is {kind.__name__}, but Prune needs one process or DDP"):
        lrnn.Prune().setup(SimpleNamespace(strategy=strategy), Regression(), "fit")
    lrnn.Prune().setup(SimpleNamespace(strategy=DDPStrategy()), Regression(), "fit")


# Dense to sparse


def test_a_dense_network_is_pruned_gradually_from_the_command_line(tmp_path):
    module = DenoiseModule(k=1 / 16)
    dense, path = module.model, tmp_path / "dense.safetensors"
    with torch.no_grad():
        dense.decoder.bias.fill_(0.125)
    dense.save(path, module.meta)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"""
seed_everything: 0
model:
  class_path: lrnn.train.denoise.DenoiseModule
  init_args: {{k: 0.0625, lr: 1.0e-4}}
data:
  class_path: lrnn.train.datamodule.DenoiseData
  init_args: {{batch_size: 1, batches_per_epoch: 6, clip_seconds: 0.1}}
trainer:
  max_steps: 6
  accelerator: cpu
  limit_val_batches: 0
  logger: {{class_path: lightning.pytorch.loggers.CSVLogger, init_args: {{save_dir: {tmp_path}, name: run}}}}
  callbacks:
    - class_path: lrnn.train.prune.Prune
      init_args:
        {{sparsity: 0.8, start: 0, end: 4, every: 2, schedule: linear, overrides: {{model.decoder: 0.7}}}}
    - class_path: lrnn.train.plot.PlotSparsity
    - class_path: lightning.pytorch.callbacks.ModelCheckpoint
      init_args: {{dirpath: {tmp_path}, filename: last, enable_version_counter: false}}
"""
    )
    run_recipe(["-c", str(recipe), "--model.init_args.init_from", str(path)])
    sparse, _ = lrnn.train.load_checkpoint(tmp_path / "last.ckpt")
    bake(sparse)
    weight = sparse.decoder.weight
    assert (weight == 0).float().mean() == pytest.approx(0.7, abs=1e-3)
    kept = weight != 0
    assert torch.allclose(weight[kept], dense.decoder.weight[kept], atol=0.01)  # 6 steps of 1e-4
    assert torch.allclose(sparse.decoder.bias, torch.tensor(0.125), atol=0.01)
    assert (tmp_path / "run" / "version_0" / "sparsity.svg").read_text().startswith("<?xml")
