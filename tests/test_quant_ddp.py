"""Quantised training in two processes on the CPU: the same ranges, masks and weights in both."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("lightning")
pytest.importorskip("jsonargparse")

import tiny_run
from test_ddp import SPY, TWO

from lrnn.train.checkpoint import read_checkpoint

pytestmark = pytest.mark.slow


def test_ranges_masks_and_weights_are_the_same(tmp_path):
    recipe = tiny_run.RECIPE.replace("lrnn.train.Prune\n", "lrnn.train.QuantizationAware\n")
    recipe = recipe.replace("{sparsity: 0.5, start: 0.1, end: 0.8, every: 2}", "{scheme: w8a8, clips: 6}")
    (tmp_path / "spy.py").write_text(SPY)
    tiny_run.finish(tiny_run.start(tmp_path, *TWO, recipe=recipe), tmp_path)
    one, other = (torch.load(tmp_path / f"rank-{rank}.pt", weights_only=True)["state"] for rank in (0, 1))
    ranges = [name for name in one if name.endswith("_extra_state")]
    assert len(ranges) > 10
    assert all(len(one[name]) == 6 for name in ranges)
    for name, value in one.items():
        assert torch.equal(value, other[name]), name
    checkpoint = read_checkpoint(sorted(tmp_path.rglob("step-*.ckpt"))[-1])
    assert checkpoint["quantization"]["ranges"]["clips"] == 6
