"""The study of a denoiser that stock netx carries, from training on synthetic sounds to its figures."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from scripts import script

import lrnn
from lrnn.data.ndns import Clip, ClipInfo
from lrnn.export.netx import compile_netx, whole_stack


@pytest.fixture(scope="module")
def study():
    return script("netx_mlp")


def test_trained_on_synthetic_sounds_it_fits_netx_and_its_figures_are_bounds(study, tmp_path, monkeypatch):
    monkeypatch.setattr(study, "WIDTH", 24)
    monkeypatch.setattr(study, "BATCH", 1)
    monkeypatch.delenv("LRNN_DATA", raising=False)
    out = tmp_path / "m.lrnn"
    monkeypatch.setattr(sys, "argv", ["netx_mlp.py", "train", "--steps", "12", "-o", str(out)])
    with pytest.warns(UserWarning, match="no data"):
        study.main()
    floats = lrnn.load(out)
    zeros = [float((n.weight == 0).mean()) for n in floats.nodes if n.op == "linear"]
    assert np.average(zeros, weights=[257 * 24, 24 * 24, 24 * 257]) == pytest.approx(study.SPARSITY, abs=0.01)

    rng = np.random.default_rng(0)
    noisy, clean = (torch.from_numpy(rng.standard_normal(8000).astype(np.float32) * 0.1) for _ in range(2))
    clips = [Clip(noisy, clean, ClipInfo(0, 0.0, -20.0, "clip"))]
    frames = study.Denoiser(floats).features(noisy.numpy(), 16000)
    made = compile_netx(floats, lrnn.calibrate(floats, [frames]))
    stack = whole_stack(made)
    sums = study.sums_seen(made, stack, clips)
    assert all(row["seen"] <= row["could"] <= 32 for row in sums)
    measured = {name: study.measure(p, clips) for name, p in {"float32": floats, "netx": made}.items()}
    assert abs(measured["netx"]["after"][0] - measured["float32"]["after"][0]) < 0.5
    args = type("Arguments", (), {"out": "results/netx"})
    text = study.markdown(args, stack, 1000, measured, {"integers": 4, "frames": 2, "equal": True}, sums)
    assert "| netx | " in text
    assert "all those of the program" in text
