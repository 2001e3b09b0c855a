"""The study of language models: widths of equal cost, its recipes, and its tables."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from scripts import EXPERIMENTS, script

import lrnn
from lrnn.nn import HGRNBlockConfig, LanguageModel, LanguageModelConfig
from lrnn.profile import count
from lrnn.prune.weights import find_weights

yaml = pytest.importorskip("yaml")


@pytest.fixture(scope="module")
def study():
    return script("language")


@pytest.fixture
def args(tmp_path, monkeypatch):
    monkeypatch.chdir(EXPERIMENTS.parent)
    return SimpleNamespace(
        data="DIR", runs=str(tmp_path / "runs"), out=str(tmp_path / "out"), steps=40, seeds=1
    )


def network(recipe: dict) -> LanguageModel:
    options = dict(recipe["model"]["init_args"]["network"])
    with torch.device("meta"):
        return LanguageModel(LanguageModelConfig(**{**options, "block": HGRNBlockConfig(**options["block"])}))


def macs(recipe: dict) -> float:
    """Of the matrices, with the share that the recipe prunes left out."""
    model = network(recipe)
    callbacks = recipe["trainer"]["callbacks"]
    sparsity = next((c["init_args"]["sparsity"] for c in callbacks if c["class_path"].endswith("Prune")), 0.0)
    pruned = sum(w.dense.numel() for w in find_weights(model, exclude=("embedding", "head")))
    return (1 - sparsity) * pruned + model.head.weight.numel()


@pytest.mark.parametrize("sparsity", [0.5, 0.8, 0.9])
def test_narrow_and_dense_costs_what_wide_and_sparse_does(sparsity, study, args):
    wide = study.Run(study.WIDE, sparsity, 0, 40).recipe(args)
    narrow = study.Run(study.NARROW[sparsity], 0.0, 0, 40).recipe(args)
    assert macs(narrow) == pytest.approx(macs(wide), rel=0.04)


def test_a_recipe_is_the_committed_one_but_for_what_the_run_says(study, args):
    committed = yaml.safe_load((EXPERIMENTS / "language-mini.yaml").read_text())
    made = study.Run(256, 0.9, 3, 40).recipe(args)
    assert made["seed_everything"] == made["data"]["init_args"]["seed"] == 3
    assert made["trainer"]["max_steps"] == 40
    assert made["model"] == committed["model"]
    assert made["trainer"]["callbacks"] == committed["trainer"]["callbacks"]
    dense = study.Run(88, 0.0, 0, 40).recipe(args)["trainer"]["callbacks"]
    assert not any(c["class_path"].endswith("Prune") for c in dense)
    assert len(dense) == len(committed["trainer"]["callbacks"]) - 1


def test_every_pair_is_planned(study):
    runs = {(run.width, run.sparsity, run.structured) for run in study.plan(40, 2)}
    whole = {(256, s, False) for s in (0.0, 0.5, 0.8, 0.9)} | {(w, 0.0, False) for w in study.NARROW.values()}
    assert runs == whole | {(256, s, True) for s in (0.5, 0.8, 0.9)}
    assert len(study.plan(40, 2)) == 2 * len(runs)


def test_a_structured_run_starts_from_the_dense_model_at_the_cost_of_the_sparse_one(study, args):
    pytest.importorskip("torch_pruning")
    pytest.importorskip("lightning")
    from lrnn.train import LanguageModule

    dense, sparse = study.Run(32, 0.0, 0, 40), study.Run(32, 0.5, 0, 40)
    for run in (dense, sparse):
        run.folder(args.runs).mkdir(parents=True)
    torch.manual_seed(0)
    block = HGRNBlockConfig(d_model=32, d_state=32, d_hidden=64, relu="gates")
    model = LanguageModel(LanguageModelConfig(n_layers=4, block=block)).eval()
    model.save(dense.folder(args.runs) / "model.safetensors")
    lrnn.prune.prune_once(model, 0.5, exclude=["embedding", "head"])
    lrnn.compile(model).save(sparse.folder(args.runs) / "model.lrnn")
    budget = sum(cost.macs_weights for cost in count(lrnn.load(sparse.folder(args.runs) / "model.lrnn")))

    recipe = study.Run(32, 0.5, 0, 40, structured=True).recipe(args)
    assert not any(c["class_path"].endswith("Prune") for c in recipe["trainer"]["callbacks"])
    assert 0.8 * budget < macs(recipe) <= budget
    start = recipe["model"]["init_args"]["init_from"]
    module = LanguageModule(network(recipe).config, init_from=start)
    assert torch.isfinite(module(torch.arange(8)[None])).all()


def row(width: int, sparsity: float, bits: float, cost: int, structured: bool = False) -> dict:
    counts = dict.fromkeys(("parameters", "nonzero", "macs", "macs_effective"), cost)
    measured = {"bits_per_byte": bits, "low": bits - 0.01, "high": bits + 0.01, "file_bytes": 4 * cost}
    return {
        "width": width,
        "sparsity": sparsity,
        "seed": 0,
        "steps": 40,
        "structured": structured,
        "macs_weights": cost,
        **counts,
        **measured,
    }


ROWS = [row(256, 0.0, 2.0, 2_000_000), row(88, 0.0, 2.4, 320_000), row(256, 0.9, 2.2, 330_000)]
ROWS += [row(256, 0.9, 2.5, 325_000, structured=True)]


def test_tables(study):
    text = study.markdown(ROWS, "command")
    assert "| sparsity | dense | 90% |" in text
    assert "| bits per byte | 2.000 | 2.200 (+10.0%) |" in text
    assert "| MACs | 2,000 | 330 (-83.5%) |" in text
    assert "| 90% | 2.200 at 330 | dense, width 88 | 2.400 at 320 | -8.3% |" in text
    assert "| 90% | 2.200 at 330 | structured | 2.500 at 325 | -12.0% |" in text
    assert "| 256 | as 90%, structured | 0 | **2.500** |" in text


def test_tables_of_what_is_there(study):
    text = study.markdown(ROWS[1:], "command")
    assert "dense | 90%" not in text
    assert "| dense, width 88 | 2.400 at 320 |" in text
    assert "at equal MACs" not in study.markdown(ROWS[:1], "command")


def test_the_report_keeps_rows_of_models_that_are_elsewhere(study, args):
    out = Path(args.out)
    study.write(out, ROWS, args)
    assert out.with_suffix(".svg").stat().st_size > 1000
    assert json.loads(out.with_suffix(".json").read_text())["models"] == ROWS
    assert study.reported(study.plan(40, 1), out.with_suffix(".json")) == ROWS
    assert study.reported(study.plan(41, 1), out.with_suffix(".json")) == []


def test_the_papers_recipe_is_the_network_that_is_counted():
    """See test_language.py for its parameters and multiply-accumulates."""
    recipe = yaml.safe_load((EXPERIMENTS / "language-370m.yaml").read_text())
    block = HGRNBlockConfig(d_model=1024, d_state=1024, d_hidden=2816)
    assert network(recipe).config == LanguageModelConfig(vocabulary=32_000, n_layers=24, block=block)
    assert macs(recipe) / 1e6 == pytest.approx(64, abs=1)


def test_a_model_is_measured(study, tmp_path):
    """Every node has its effective multiply-accumulates, the embedding's none among them."""
    torch.manual_seed(0)
    block = HGRNBlockConfig(d_model=16, d_state=16, d_hidden=32, relu="gates")
    model = LanguageModel(LanguageModelConfig(n_layers=2, block=block)).eval()
    lrnn.compile(model, {"text": {"tokenizer": None}}).save(tmp_path / "model.lrnn")
    found = study.measure(tmp_path / "model.lrnn", {"a.txt": [b"a line of text and another"]})
    assert 0 < found["macs_effective"] < found["macs_weights"] <= found["macs"]
    assert 7 < found["bits_per_byte"] < 9
