"""Training the denoiser: schedule, groups, data, norm statistics, resumption, files, recipes."""

from __future__ import annotations

import copy
import itertools
import json
import math
from pathlib import Path

import pytest
import torch
from text_cases import word_tokenizer
from torch import nn

import lrnn
from lrnn.nn import BatchNorm, SequenceModel, SequenceModelConfig

L = pytest.importorskip("lightning")
pytest.importorskip("jsonargparse")

from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint  # noqa: E402

from lrnn.data.metrics import si_snr  # noqa: E402
from lrnn.data.mix import Mixer  # noqa: E402
from lrnn.data.synthetic import synthetic_sources, write_synthetic_corpus  # noqa: E402
from lrnn.train import (  # noqa: E402
    DenoiseData,
    DenoiseModule,
    ExportProgram,
    Prune,
    RecalibrateNorms,
    Resumable,
    ResumePoints,
    load_checkpoint,
    parameter_groups,
    warmup_cosine,
)
from lrnn.train.callbacks import ReportProgress, recalibrate  # noqa: E402
from lrnn.train.checkpoint import read_checkpoint  # noqa: E402
from lrnn.train.cli import fit, make_cli  # noqa: E402
from lrnn.train.level import match_level  # noqa: E402

RECIPES = sorted((Path(__file__).parent.parent / "experiments").glob("*.yaml"))
SMALL = SequenceModelConfig(d_in=257, d_out=257, d_model=16, d_state=16, blocks=2, n_layers=2)


@pytest.fixture(scope="module")
def sources():
    return synthetic_sources(0, minutes=0.3), synthetic_sources(1, minutes=0.3)


@pytest.fixture
def data(sources, monkeypatch):
    """A DenoiseData without a corpus, on fewer synthetic sounds."""
    monkeypatch.delenv("LRNN_DATA", raising=False)
    monkeypatch.setattr("lrnn.train.datamodule.synthetic_sources", lambda seed: sources[seed])
    return lambda **options: DenoiseData(
        **{"batch_size": 4, "batches_per_epoch": 6, "clip_seconds": 0.25, **options}
    )


class Losses(L.Callback):
    def __init__(self):
        self.seen = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.seen.append(outputs["loss"].item())


def make_trainer(max_steps, *callbacks, **options):
    options = {"logger": False, "num_sanity_val_steps": 0, "accelerator": "cpu", **options}
    return L.Trainer(
        max_steps=max_steps,
        max_epochs=-1,
        callbacks=list(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=any(isinstance(c, Checkpoint) for c in callbacks),
        **options,
    )


# Schedule and groups


def test_schedule_is_linear_then_cosine():
    lr, warmup, total = 4e-3, 10, 110
    rates = [warmup_cosine(n, lr, warmup, total) for n in range(total + 5)]
    assert rates[0] == pytest.approx(lr / warmup)
    steps = [b - a for a, b in itertools.pairwise(rates[:11])]
    assert steps == pytest.approx([(lr - lr / warmup) / warmup] * 10)
    assert rates[warmup] == lr
    assert rates[60] == pytest.approx(lr / 2)  # half way between warm-up and end
    assert all(a > b for a, b in itertools.pairwise(rates[warmup : total + 1]))
    assert rates[total:] == [0.0] * 5


def test_schedule_restarts():
    once = [warmup_cosine(n, 1.0, 3, 50, lr_min=0.1) for n in range(50)]
    twice = [warmup_cosine(n, 1.0, 3, 100, lr_min=0.1, cycles=2) for n in range(100)]
    assert twice == once + once
    assert min(once) >= 0.1


@pytest.mark.parametrize("warmup", [-1, 50])
def test_schedule_names_a_bad_warmup(warmup):
    with pytest.raises(ValueError, match="warmup"):
        warmup_cosine(0, 1.0, warmup, 100, cycles=2)


def names_by_group(model, **options):
    groups = parameter_groups(model, 6e-3, 1.5e-3, 0.04, **options)
    names = {id(p): name for name, p in model.named_parameters()}
    return groups, {g["name"]: {names[id(p)] for p in g["params"]} for g in groups}


def test_groups():
    model = SequenceModel(SMALL)
    groups, names = names_by_group(model)
    assert {n.rsplit(".")[-1] for n in names["ssm"]} == {"B", "C", "D", "Lambda_re", "Lambda_im", "log_step"}
    assert names["decayed"] == {
        "encoder.weight",
        "decoder.weight",
        "blocks.0.out2.weight",
        "blocks.1.out2.weight",
    }
    assert "blocks.0.norm.weight" in names["plain"]
    assert "encoder.bias" in names["plain"]
    assert sum(len(n) for n in names.values()) == len(list(model.parameters()))
    assert {g["name"]: (g["lr"], g["weight_decay"]) for g in groups} == {
        "ssm": (1.5e-3, 0.0),
        "decayed": (6e-3, 0.04),
        "plain": (6e-3, 0.0),
    }


def test_groups_of_the_papers_recipe():
    _, names = names_by_group(SequenceModel(SMALL), decay="all")
    assert set(names) == {"ssm", "decayed"}
    assert "blocks.0.norm.bias" in names["decayed"]


def test_groups_do_not_depend_on_masks():
    model = SequenceModel(SMALL)
    _, plain = names_by_group(model)
    lrnn.Pruner(model, 0.5).attach()
    _, masked = names_by_group(model)
    strip = {
        k: {n.replace("parametrizations.", "").replace(".original", "") for n in v} for k, v in masked.items()
    }
    assert strip == plain


# Norm statistics


def test_recalibrate_gives_plain_averages():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), BatchNorm(4), nn.Dropout(0.5), nn.Linear(4, 2), nn.BatchNorm1d(2))
    model[4].eval()
    inputs = [torch.randn(5 * 7, 3) * scale for scale in (1.0, 3.0, 0.5)]
    before, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    recalibrate(model, inputs)

    hidden = [model[0](x) for x in inputs]
    mean = torch.stack([h.mean(0) for h in hidden]).mean(0)
    var = torch.stack([h.var(0, unbiased=False) for h in hidden]).mean(0)
    torch.testing.assert_close(model[1].running_mean, mean)
    torch.testing.assert_close(model[1].running_var, var)
    assert not torch.equal(model[4].running_mean, before["4.running_mean"])

    assert torch.equal(torch.get_rng_state(), random)
    assert (model[1].momentum, model[4].momentum) == (0.05, 0.1)
    assert [m.training for m in model] == [True, True, True, True, False]
    for name, value in model.named_parameters():
        assert torch.equal(value, before[name])


def test_recalibrate_leaves_frozen_norms():
    norm = BatchNorm(3, frozen=True)
    recalibrate(nn.Sequential(norm), [torch.randn(10, 3) + 5])
    assert torch.equal(norm.running_mean, torch.zeros(3))


def test_recalibration_precedes_validation_and_does_not_disturb_training(data):
    seen = []

    class Spy(L.Callback):
        def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
            seen.append(pl_module.model.blocks[0].norm.running_mean.clone())

    def losses(*callbacks):
        L.seed_everything(0, verbose=False)
        record = Losses()
        trainer = make_trainer(14, *callbacks, record)
        module = DenoiseModule(network=SMALL)
        trainer.fit(module, data())
        return module, trainer, record.seen

    module, trainer, with_callback = losses(RecalibrateNorms(3), Spy())
    assert losses()[2] == with_callback
    assert len(seen) == 8  # two validations of four clips
    assert not torch.equal(seen[0], seen[4])

    # The end of fit is no epoch's end; the statistics still are those of the final weights.
    final = module.model.blocks[0].norm.running_mean.clone()
    recalibrate(module, (noisy for noisy, _ in trainer.datamodule.calibration_batches(3)))
    torch.testing.assert_close(module.model.blocks[0].norm.running_mean, final)


# Data


def test_streams_are_reproducible_and_apart(data):
    module = data()
    module.setup("fit")
    module.trainer = make_trainer(1)
    first, again = (next(iter(module.train_dataloader()))[0] for _ in range(2))
    assert first.shape == (4, 4000)
    assert torch.equal(first, again)
    calibration = next(iter(module.calibration_batches(1)))[0]
    assert not torch.equal(first, calibration)
    noisy, clean = next(iter(module.val_dataloader()))
    assert noisy.shape == clean.shape == (1, 4000)


def test_no_corpus_is_said(data):
    with pytest.warns(UserWarning, match="LRNN_DATA"):
        data().setup("fit")


def test_missing_corpus_names_the_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        DenoiseData(root=str(tmp_path)).setup("fit")


# Training


def test_training_improves(data):
    L.seed_everything(1, verbose=False)
    module, record = DenoiseModule(network=SMALL, lr=1e-2), Losses()
    trainer = make_trainer(60, RecalibrateNorms(4), record)
    trainer.fit(module, data(batches_per_epoch=60))
    assert sum(record.seen[-10:]) < sum(record.seen[:10]) - 10 * 2.0  # 2 dB
    metrics = trainer.callback_metrics
    noisy = metrics["val_si_snr"] - metrics["val_si_snri"]
    clips = [trainer.datamodule.validation[i] for i in range(4)]
    assert noisy == pytest.approx(sum(si_snr(n, c).item() for n, c in clips) / 4, abs=1e-3)


@pytest.mark.parametrize("every", [None, 4], ids=["after-epoch", "in-mid-epoch"])
def test_resumed_run_equals_uninterrupted(data, tmp_path, every):
    """Dropout, masks in the middle of their schedule, optimiser, learning rate and data all go on."""

    def run(checkpoint=None):
        L.seed_everything(0, verbose=False)
        saver = ModelCheckpoint(tmp_path, "{step}", save_top_k=-1, every_n_train_steps=every)
        callbacks = [Resumable(), Prune(0.5, start=2, end=13, every=3), RecalibrateNorms(2), saver]
        callbacks += [record := Losses()]
        trainer = make_trainer(16, *callbacks)
        module = DenoiseModule(network=SMALL, cycles=2)
        module.model = SequenceModel(SequenceModelConfig.from_dict({**SMALL.to_dict(), "dropout": 0.2}))
        trainer.fit(module, data(), ckpt_path=checkpoint)
        return module.state_dict(), record.seen

    state, losses = run()
    stopped_at = every or 6
    resumed_state, resumed_losses = run(tmp_path / f"step={stopped_at}.ckpt")
    assert resumed_losses == losses[stopped_at:]
    assert resumed_state.keys() == state.keys()
    for name, value in state.items():
        assert torch.equal(resumed_state[name], value), name


def test_run_writes_checkpoint_model_and_program(data, tmp_path):
    L.seed_everything(0, verbose=False)
    callbacks = [
        Prune(0.6, start=1, end=5, every=1),
        RecalibrateNorms(2),
        ExportProgram(str(tmp_path)),
        ModelCheckpoint(tmp_path, "last", enable_version_counter=False),
    ]
    module = DenoiseModule(network=SMALL)
    make_trainer(8, *callbacks).fit(module, data())
    module.eval()
    audio = torch.randn(1, 4000) * 0.1
    expected = module(audio)

    torch.load(tmp_path / "last.ckpt", weights_only=True)
    for path in (tmp_path / "last.ckpt", tmp_path / "model.safetensors"):
        model, meta = load_checkpoint(path)
        loaded = DenoiseModule(network=SMALL)
        loaded.model = model
        found = loaded.eval()(audio)
        if path.suffix == ".safetensors":  # its level was matched: another constant gain
            found = found * (expected.norm() / found.norm())
        torch.testing.assert_close(found, expected)
        assert meta["frontend"] == module.stft.to_meta()
    program = lrnn.load(tmp_path / "model.lrnn")
    assert program.meta["frontend"] == module.stft.to_meta()
    assert program.meta["card"]["sparsity"] == pytest.approx(0.6, abs=0.01)
    assert program.meta["card"]["pruning"]["sparsity"] == 0.6
    assert program.meta["card"]["steps"] == 8
    assert "val_si_snri" in program.meta["card"]["metrics"]
    json.dumps(program.meta)


def test_a_finished_run_taken_up_again_writes_the_same_files(data, tmp_path):
    """Killed after the last checkpoint and before the export; its metrics are in the checkpoint."""

    def run(folder, ckpt_path=None):
        L.seed_everything(0, verbose=False)
        points = ResumePoints(folder=str(tmp_path / "points"))
        callbacks = [Prune(0.6, start=1, end=1.0), RecalibrateNorms(2), ExportProgram(str(folder)), points]
        make_trainer(8, *callbacks).fit(DenoiseModule(network=SMALL), data(), ckpt_path=ckpt_path)
        return [(folder / name).read_bytes() for name in ("model.safetensors", "model.lrnn")]

    whole = run(tmp_path / "a")
    assert run(tmp_path / "b", tmp_path / "points" / "step-00000008.ckpt") == whole
    assert "val_si_snri" in lrnn.load(tmp_path / "b" / "model.lrnn").meta["card"]["metrics"]


@pytest.mark.parametrize(
    ("precision", "expected"),
    [("32-true", "32-true"), ("bf16-mixed", "bf16-mixed"), ("16-mixed", "bf16-mixed")],  # Lightning on a CPU
)
def test_precision(data, tmp_path, precision, expected):
    """Products are computed as asked; weights, optimiser and checkpoints are float32, masks exact."""
    record, seen = Losses(), []

    class Products(L.Callback):
        def on_train_start(self, trainer, pl_module):
            pl_module.model.encoder.register_forward_hook(lambda layer, x, y: seen.append(y.dtype))

    L.seed_everything(1, verbose=False)
    prune, points = Prune(0.5, start=2, end=20, every=1), ResumePoints(folder=str(tmp_path))
    module = DenoiseModule(network=SMALL, lr=1e-2)
    options = {"precision": precision, "limit_val_batches": 0}
    trainer = make_trainer(40, prune, Products(), record, points, **options)
    trainer.fit(module, data(batches_per_epoch=40))
    assert trainer.precision == expected
    assert set(seen) == {torch.float32 if expected == "32-true" else torch.bfloat16}
    assert sum(record.seen[-8:]) < sum(record.seen[:8])

    checkpoint = read_checkpoint(tmp_path / "step-00000040.ckpt")
    kept = [*checkpoint["optimizer_states"][0]["state"].values(), checkpoint["state_dict"]]
    floating = [t for group in kept for t in group.values() if t.is_floating_point()]
    assert {t.dtype for t in floating} == {torch.float32}
    encoder = module.model.encoder
    mask, dense = encoder.parametrizations.weight[0].mask, encoder.parametrizations.weight.original
    assert (~mask).any()
    assert torch.equal(encoder.weight, torch.where(mask, dense, 0.0))
    assert checkpoint["state_dict"]["model.encoder.parametrizations.weight.0.mask"].dtype == torch.bool


def test_match_level_changes_the_gain_and_nothing_else(data):
    torch.manual_seed(0)
    module = DenoiseModule(network=SMALL).eval()
    with torch.no_grad():
        module.model.decoder.weight[:, ::2] = 0
        module.model.decoder.bias += 3.0  # about 12 dB
    datamodule = data()
    datamodule.setup("fit")
    batches = list(datamodule.calibration_batches(3))
    before = [module(noisy) for noisy, _ in batches]
    gain_db = match_level(module.model, module.stft, batches)
    assert gain_db > 6
    levels = []
    for (noisy, clean), old in zip(batches, before, strict=True):
        new = module(noisy)
        torch.testing.assert_close(new, old * 10 ** (-gain_db / 20), rtol=1e-4, atol=1e-6)
        levels.append(20 * torch.log10((new * clean).sum(-1) / clean.square().sum(-1)))
    assert torch.cat(levels).mean().item() == pytest.approx(0.0, abs=1e-3)
    assert (module.model.decoder.weight[:, ::2] == 0).all()
    with pytest.raises(ValueError, match="batches"):
        match_level(module.model, module.stft, [])


def test_init_from(data, tmp_path):
    model = SequenceModel(SMALL)
    model.save(tmp_path / "dense.safetensors")
    module = DenoiseModule(network=SMALL, init_from=str(tmp_path / "dense.safetensors"))
    for name, value in model.state_dict().items():
        assert torch.equal(module.model.state_dict()[name], value)
    with pytest.raises(ValueError, match="init_from"):
        DenoiseModule(k=0.5, network=SMALL, init_from=str(tmp_path / "dense.safetensors"))


def test_loss_that_is_no_number_stops_the_run():
    module = DenoiseModule(network=SMALL)
    noisy = torch.full((1, 1000), math.nan)
    with pytest.raises(RuntimeError, match="loss is nan"):
        module.training_step((noisy, noisy), 0)


def test_progress_line(data, capsys):
    make_trainer(6, ReportProgress()).fit(DenoiseModule(network=SMALL), data())
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("step 6/6  loss ")
    assert "val_si_snri" in line


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"lr": 0.0}, "lr"),
        ({"cycles": 0}, "cycles"),
        ({"network": SequenceModelConfig(d_in=9, d_out=9)}, "d_in"),
        ({"k": 0.01}, "k is"),
    ],
)
def test_module_names_bad_arguments(options, named):
    with pytest.raises(ValueError, match=named):
        DenoiseModule(**options)


# Checkpoint files


def test_load_checkpoint_names_the_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.ckpt"):
        load_checkpoint(tmp_path / "none.ckpt")
    (tmp_path / "text.ckpt").write_text("not a checkpoint")
    with pytest.raises(ValueError, match=r"text\.ckpt: not a checkpoint"):
        load_checkpoint(tmp_path / "text.ckpt")
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match=r"other\.ckpt: found a checkpoint without"):
        load_checkpoint(tmp_path / "other.ckpt")
    torch.save({"object": Mixer}, tmp_path / "pickle.ckpt")
    with pytest.raises(ValueError, match=r"pickle\.ckpt: not a checkpoint"):
        load_checkpoint(tmp_path / "pickle.ckpt")
    (tmp_path / "model.bin").touch()
    with pytest.raises(ValueError, match=r"model\.bin: found suffix '\.bin'"):
        load_checkpoint(tmp_path / "model.bin")


# Recipes


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda p: p.stem)
def test_every_recipe_can_be_built(recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if "tokenizer: tokenizer.json" in recipe.read_text():
        word_tokenizer(tmp_path / "tokenizer.json")
    before = recipe.with_stem(recipe.stem.removesuffix("-w8a16"))  # which this one goes on from
    files = [word for path in dict.fromkeys((before, recipe)) for word in ("-c", str(path))]
    cli = make_cli([*files, "--trainer.max_steps", "7"])
    assert cli.trainer.max_steps == 7
    assert isinstance(cli.model, L.LightningModule)
    assert isinstance(cli.datamodule, L.LightningDataModule)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--model.kk", "3"], "'kk' is not accepted"),
        (["--model.lr", "0"], "lr, ssm_lr_factor are 0"),
        (["-c", "nowhere.yaml"], r"nowhere\.yaml"),
    ],
)
def test_recipe_errors_are_one_line(arguments, named, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=named) as caught:
        make_cli(["-c", str(RECIPES[0]), *arguments])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("sparsity", [0.0, 0.9])
def test_the_papers_recipe_runs(sparsity, tmp_path, monkeypatch):
    """Two steps of it at small sizes on ready mixtures; then its files are there."""
    monkeypatch.chdir(tmp_path)
    write_synthetic_corpus(tmp_path / "corpus", training=4, validation=2, clip_seconds=0.5)
    small = ["--model.k=0.0625", f"--data.root={tmp_path / 'corpus'}", "--data.batch_size=2"]
    small += ["--data.clip_seconds=0.25", "--data.batches_per_epoch=2", "--data.num_workers=0"]
    small += ["--trainer.accelerator=cpu"]
    recipe = str(RECIPES[0].parent / "denoise.yaml")
    assert (
        fit(["-c", recipe, *small, "--trainer.max_epochs=1", f"--trainer.callbacks.sparsity={sparsity}"]) == 0
    )
    run = tmp_path / "runs" / "denoise" / "version_0"
    assert {p.name for p in (run / "checkpoints").iterdir()} == {"best.ckpt", "step-00000002.ckpt"}
    card = lrnn.load(run / "model.lrnn").meta["card"]
    assert card["steps"] == 2
    assert (card["sparsity"] > 0.8) == (sparsity == 0.9)


def test_recipe_values_can_be_overridden(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = next(p for p in RECIPES if p.stem == "denoise-mini")
    cli = make_cli(
        ["-c", str(recipe), "--model.k", "0.25", "--model.network.relu", "none", "--data.root", "x"]
    )
    config = cli.model.model.config
    assert (config.d_model, config.d_state, config.relu) == (48, 64, "none")
    assert cli.datamodule.root == "x"
    assert any(isinstance(c, Prune) for c in cli.trainer.callbacks)
