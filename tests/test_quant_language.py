"""A language model trained quantised: from text to a checkpoint to the integers that were trained."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import lrnn

pytest.importorskip("lightning")
pytest.importorskip("jsonargparse")

from lightning.pytorch.callbacks import ModelCheckpoint
from test_fixed_program import sqnr
from test_train_text import NETWORK, data, trainer

from lrnn.cli import main
from lrnn.program.fixed import nodes as fixed
from lrnn.quant import calibrated, quantize_weight
from lrnn.train import LanguageModule, QuantizationAware, load_checkpoint


@pytest.mark.parametrize("scheme", ["w8a16", "loihi2"])
def test_what_was_trained_is_what_runs(tmp_path, scheme, capsys):
    torch.manual_seed(0)
    module = LanguageModule(NETWORK)
    with torch.no_grad():
        weight = module.model.stack.blocks[0].glu.up_proj.weight
        weight[weight.abs() < 0.1] = 0
        zeros = weight == 0
    keep = ModelCheckpoint(tmp_path, filename="last")
    made = trainer(
        tmp_path,
        max_steps=6,
        callbacks=[QuantizationAware(scheme, clips=6), keep],
        enable_checkpointing=True,
        limit_val_batches=1,
    )
    made.fit(module, data(tmp_path))
    before = module.model.stack.blocks[0].glu.up_proj.parametrizations.weight.original.detach()
    assert (before[zeros] != 0).any()  # the optimiser moved what lies below the mask
    ranges = calibrated(module.model)
    _, meta = load_checkpoint(tmp_path / "last.ckpt")
    assert meta["quantization"]["scheme"]["name"] == scheme
    assert set(meta["quantization"]["ranges"]["values"]) == set(ranges.values)

    tokens = torch.randint(97, 105, (1, 60))
    command = ["quantize", str(tmp_path / "last.ckpt"), "-o", str(tmp_path / "q.lrnn")]
    assert main([*command, "--calibrate", str(tmp_path / "text"), "--clips", "2", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["scheme"], report["trained_quantised"]) == (scheme, True)
    program = lrnn.load(tmp_path / "q.lrnn")
    nodes = {node.name: node for node in program.nodes}
    assert isinstance(nodes["embedding"], fixed.Embedding)
    named = dict(module.model.named_modules())
    checked = 0
    for name, node in nodes.items():
        if isinstance(node, fixed.Linear):
            trained = (named.get(name) or module.model.head).weight.detach()
            trained = -trained if name.endswith("f_proj") else trained
            assert np.array_equal(node.weight, quantize_weight(trained, 8)[0]), name
            checked += 1
    assert checked == 15
    table = module.model.embedding.weight.detach()
    assert np.array_equal(nodes["embedding"].weight, quantize_weight(table, 8)[0])
    assert (nodes["stack.blocks.0.glu.up_proj"].weight[zeros.numpy()] == 0).all()

    with torch.no_grad():
        expected = module.eval()(tokens)[0].numpy()
    found = program.stream("numpy").run(tokens[0, :, None].float().numpy())
    assert sqnr(found, expected) > (50 if scheme == "w8a16" else 30)
