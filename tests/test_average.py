"""AverageWeights: the formula, zeros kept, weights restored, export, resumption."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import lrnn

L = pytest.importorskip("lightning")

from lightning.pytorch.callbacks import ModelCheckpoint  # noqa: E402
from regression import Data, Regression  # noqa: E402

from lrnn.train import AverageWeights, ExportProgram, Prune, RecalibrateNorms, Resumable  # noqa: E402
from lrnn.train.checkpoint import read_checkpoint  # noqa: E402


class Weights(L.Callback):
    """The weights after each optimiser step, and what is there when validation is over."""

    def __init__(self):
        self.steps, self.after = [], []

    def on_train_batch_end(self, trainer, pl_module, *_):
        if trainer.global_step > len(self.steps):
            self.steps.append(_parameters(pl_module))

    def on_train_batch_start(self, trainer, pl_module, *_):
        self.after.append({k: v.clone() for k, v in pl_module.state_dict().items()})


def _parameters(module):
    return {name: p.detach().clone() for name, p in module.named_parameters()}


def fit(folder, *callbacks, module=None, ckpt_path=None, **options):
    module = Regression() if module is None else module
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    options = quiet | {"max_epochs": 2, "accelerator": "cpu", "num_sanity_val_steps": 1} | options
    trainer = L.Trainer(
        callbacks=list(callbacks),
        default_root_dir=folder,
        enable_checkpointing=any(isinstance(c, ModelCheckpoint) for c in callbacks),
        **options,
    )
    torch.manual_seed(1)
    trainer.fit(module, Data(), ckpt_path=ckpt_path)
    return trainer, module


def average(steps, begin, decay, start=0):
    """The definition, in double precision."""
    result = {name: value.double() for name, value in begin.items()}
    for n, weights in enumerate(steps, start=1):
        keep = 0.0 if n <= start else decay
        result = {name: keep * result[name] + (1 - keep) * weights[name] for name in result}
    return result


@pytest.mark.parametrize(
    "options", [{}, {"accumulate_grad_batches": 2}, {"precision": "bf16-mixed"}], ids=str
)
@pytest.mark.parametrize("start", [0, 3])
def test_the_average_is_validated_and_left_in_the_module(tmp_path, options, start):
    begin, weights = _parameters(Regression()), Weights()
    trainer, module = fit(tmp_path, weights, AverageWeights(0.7, start), **options)
    per_epoch = trainer.global_step // 2
    assert len(weights.steps) == 2 * per_epoch
    for epoch, seen in enumerate(module.seen[1:], start=1):  # the first is the sanity check
        expected = average(weights.steps[: epoch * per_epoch], begin, 0.7, start)
        for name, value in expected.items():
            torch.testing.assert_close(seen[name].double(), value, rtol=1e-5, atol=1e-6)
    for name, value in module.named_parameters():
        assert torch.equal(value, module.seen[-1][name])
        assert not torch.equal(value, weights.steps[-1][name])


def test_averaging_does_not_disturb_training(tmp_path):
    """Weights and statistics at every step are those of a fit without it; so are they after validation."""
    runs = []
    for extra in ((), (AverageWeights(0.9),)):
        weights = Weights()
        fit(tmp_path, Resumable(), *extra, weights, val_check_interval=3)
        runs.append(weights.after)
    assert len(runs[0]) == 16
    for plain, averaged in zip(*runs, strict=True):
        assert all(torch.equal(plain[name], averaged[name]) for name in plain)


def test_zeros_are_kept(tmp_path):
    _, module = fit(tmp_path, Prune(0.8, start=2, end=10, every=1), AverageWeights(0.9), RecalibrateNorms(2))
    encoder = module.model.encoder
    mask = encoder.parametrizations.weight[0].mask
    assert (~mask).float().mean() > 0.5
    assert (encoder.weight[~mask] == 0).all()
    assert (encoder.weight[mask] != 0).all()


def test_statistics_are_those_of_the_average(tmp_path):
    """In validation and at the end of the fit, whichever of the callbacks stands first."""
    for callbacks in ([AverageWeights(0.9), RecalibrateNorms(3)], [RecalibrateNorms(3), AverageWeights(0.9)]):
        for options in ({}, {"limit_val_batches": 0}):
            _, module = fit(tmp_path, *callbacks, **options)
            found = {name: b.clone() for name, b in module.named_buffers() if "running" in name}
            lrnn.train.callbacks.recalibrate(module, (x for x, _ in Data().calibration_batches(3)))
            for name, buffer in module.named_buffers():
                if "running" in name:
                    torch.testing.assert_close(found[name], buffer)
                    if not options:
                        torch.testing.assert_close(module.seen[-1][name], buffer)


def test_the_average_is_exported(tmp_path):
    callbacks = [Prune(0.5, start=1, end=9), AverageWeights(0.9), RecalibrateNorms(2)]
    _, module = fit(tmp_path, *callbacks, ExportProgram(str(tmp_path)))
    model, _ = lrnn.train.load_checkpoint(tmp_path / "model.safetensors")
    x = torch.randn(2, 9, 6)
    torch.testing.assert_close(model.eval()(x)[0], module.eval()(x))


@pytest.mark.parametrize("stop", [8, 12], ids=["after-validation", "in-mid-epoch"])
def test_resumed_equals_uninterrupted(tmp_path, stop):
    def callbacks(folder):
        save = ModelCheckpoint(
            folder, "{step}", save_top_k=-1, every_n_train_steps=4, save_on_train_epoch_end=False
        )
        prune = Prune(0.5, start=1, end=14, every=2)
        return [Resumable(), prune, AverageWeights(0.9), RecalibrateNorms(2), save]

    _, whole = fit(tmp_path, *callbacks(tmp_path))
    path = tmp_path / f"step={stop}.ckpt"
    _, resumed = fit(tmp_path, *callbacks(tmp_path / "again"), ckpt_path=path)
    assert len(resumed.seen) > 0
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


def test_a_finished_run_taken_up_again_exports_the_same(tmp_path):
    save = ModelCheckpoint(tmp_path, "last", enable_version_counter=False, save_on_train_epoch_end=False)
    _, whole = fit(tmp_path, AverageWeights(0.9), RecalibrateNorms(2), save)
    _, again = fit(
        tmp_path,
        AverageWeights(0.9),
        RecalibrateNorms(2),
        ckpt_path=tmp_path / "last.ckpt",
        module=Regression(),
    )
    for name, value in whole.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


def test_a_checkpoint_holds_what_was_validated(tmp_path):
    """Its state_dict is the average: what is compiled from it is as good as its metric says."""
    weights = Weights()
    save = ModelCheckpoint(
        tmp_path, "{step}", monitor="val_loss", save_top_k=-1, save_on_train_epoch_end=False
    )
    _, module = fit(tmp_path, weights, AverageWeights(0.9), RecalibrateNorms(2), save)
    checkpoint = read_checkpoint(tmp_path / "step=8.ckpt")
    assert all(torch.equal(v, module.seen[1][name]) for name, v in checkpoint["state_dict"].items())
    for name, value in weights.steps[7].items():
        assert torch.equal(checkpoint["live_weights"][name], value)


def test_bad_uses_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"decay is 1\.0"):
        AverageWeights(1.0)
    with pytest.raises(ValueError, match="start is -1"):
        AverageWeights(start=-1)
    with pytest.raises(ValueError, match="mode 'paper'"):
        fit(tmp_path, Prune(0.5, mode="paper"), AverageWeights())
    with pytest.raises(ValueError, match="ExportProgram before AverageWeights"):
        fit(tmp_path, ExportProgram(), AverageWeights())


def test_shared_weights_are_averaged_under_each_name(tmp_path):
    class Tied(Regression):
        def __init__(self):
            super().__init__()
            self.again = nn.Linear(12, 4)
            self.again.weight = self.model.decoder.weight

    save = ModelCheckpoint(tmp_path, "last", enable_version_counter=False, save_on_train_epoch_end=False)
    _, module = fit(tmp_path, AverageWeights(0.9), save, module=Tied())
    state = read_checkpoint(tmp_path / "last.ckpt")["state_dict"]
    assert torch.equal(state["again.weight"], state["model.decoder.weight"])
    assert torch.equal(state["again.weight"], module.again.weight)
