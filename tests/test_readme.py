"""What README shows works as shown."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch

import lrnn
from lrnn.cli import COMMANDS

README = Path(__file__).resolve().parents[1] / "README.md"
PYTHON = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)


def test_the_layer(capsys):
    torch.manual_seed(0)
    exec(PYTHON[0], {})
    assert float(re.search(r"[\d.e+-]+", capsys.readouterr().out.removeprefix("tensor"))[0]) < 1e-5


def test_the_stream():
    heard = []

    class Speaker:
        def write(self, samples):
            heard.append(samples)

    microphone = np.zeros((20, 128), np.float32)
    exec(PYTHON[1].replace(".stream()", ".stream('numpy')"), {"microphone": microphone, "speaker": Speaker()})
    assert np.concatenate(heard).shape == (20 * 128,)


def test_train_prune_compile(tmp_path, monkeypatch):
    L = pytest.importorskip("lightning")
    monkeypatch.chdir(tmp_path)
    config = lrnn.SequenceModelConfig(d_in=3, d_out=2, d_model=8, d_state=8, blocks=2, n_layers=1)

    class Module(L.LightningModule):
        def __init__(self):
            super().__init__()
            self.model = lrnn.SequenceModel(config)

        def training_step(self, batch, index):
            return self.model(batch)[0].square().mean()

        def train_dataloader(self):
            return torch.utils.data.DataLoader(torch.randn(20, 6, 3), 2)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.01)

    class Trainer(L.Trainer):
        def __init__(self, callbacks):
            super().__init__(
                callbacks=callbacks, max_epochs=1, logger=False, enable_checkpointing=False, accelerator="cpu"
            )

    module, frames = Module(), np.random.default_rng(0).standard_normal((5, 3), np.float32)
    names = {"L": type("L", (), {"Trainer": Trainer}), "lrnn": lrnn, "module": module, "model": module.model}
    code = (
        PYTHON[2]
        if lrnn.backends()["engine"].startswith("live")
        else PYTHON[2].replace("stream()", "stream('numpy')")
    )
    exec(code, {**names, "frames": frames})
    assert (tmp_path / "m.lrnn").is_file()
    zeros = sum((p == 0).sum().item() for p in module.model.parameters() if p.ndim > 1)
    assert zeros > 0.8 * sum(p.numel() for p in module.model.parameters() if p.ndim > 1)


def test_commands_exist():
    commands = re.findall(r"^    lrnn (.*)$", README.read_text(), flags=re.MULTILINE)
    assert len(commands) >= 3
    assert {shlex.split(c, comments=True)[0] for c in commands} <= set(COMMANDS)
