"""lrnn.Prune on other people's modules: each kind of layer, trained a few steps with each optimiser."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

import lrnn
from lrnn.prune import Pruner, attach_masks, bake
from lrnn.prune.mask import find

L = pytest.importorskip("lightning")

from lightning.pytorch.callbacks import ModelCheckpoint  # noqa: E402
from torch.utils.data import DataLoader  # noqa: E402

WIDTH, WORDS = 8, 12


class Perceptron(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(WIDTH, 16), nn.ReLU(), nn.Linear(16, 4))

    def forward(self, x):
        return self.net(x)


class Recurrent(nn.Module):
    def __init__(self, kind, **options):
        super().__init__()
        self.rnn = kind(WIDTH, 6, batch_first=True, **options)

    def forward(self, x):
        return self.rnn(x)[0]


class Convolutions(nn.Module):
    """One axis, then two, with groups and a transposed one."""

    def __init__(self):
        super().__init__()
        self.one = nn.Conv1d(WIDTH, 8, 3, padding=1, groups=2)
        self.two = nn.Conv2d(1, 4, 3, padding=1)
        self.up = nn.ConvTranspose1d(8, 6, 2, stride=2)

    def forward(self, x):  # (batch, time, WIDTH)
        y = torch.relu(self.one(x.transpose(1, 2)))
        return self.up(self.two(y[:, None]).mean(1))


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, 2, batch_first=True)

    def forward(self, x):
        return self.attention(x, x, x, need_weights=False)[0]


class Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(WIDTH, 2, 16, dropout=0.0, batch_first=True)

    def forward(self, x):
        return self.layer(x)


class Tied(nn.Module):
    """Embedding and decoder are one tensor."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(WORDS, WIDTH)
        self.mix = nn.Linear(WIDTH, WIDTH)
        self.decode = nn.Linear(WIDTH, WORDS, bias=False)
        self.decode.weight = self.embed.weight

    def forward(self, x):
        return self.decode(torch.relu(self.mix(self.embed((x[..., 0].abs() * 4).long() % WORDS))))


class WithS5(nn.Module):
    def __init__(self):
        super().__init__()
        self.ssm, self.out = lrnn.S5(WIDTH, 16, blocks=2), nn.Linear(WIDTH, 3)

    def forward(self, x):
        return self.out(torch.relu(self.ssm(x)[0]))


MAKERS = {
    "linear": Perceptron,
    "lstm": lambda: Recurrent(nn.LSTM, num_layers=2, bidirectional=True),
    "lstm projected": lambda: Recurrent(nn.LSTM, proj_size=3),
    "gru": lambda: Recurrent(nn.GRU),
    "rnn": lambda: Recurrent(nn.RNN),
    "convolutions": Convolutions,
    "attention": Attention,
    "transformer": Transformer,
    "tied": Tied,
    "s5": WithS5,
}
OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, weight_decay=0.1),
    "adam": lambda p: torch.optim.Adam(p, 0.05),
    "adamw": lambda p: torch.optim.AdamW(p, 0.05, weight_decay=0.1),
}
KINDS = pytest.mark.parametrize("kind", MAKERS)


class Theirs(L.LightningModule):
    """A LightningModule as anyone would write it."""

    def __init__(self, kind: str, optimizer: str = "adamw"):
        super().__init__()
        torch.manual_seed(0)
        self.net, self.optimizer = MAKERS[kind](), optimizer

    def training_step(self, batch, index):
        return (self.net(batch) - 0.5).square().mean()

    def configure_optimizers(self):
        return OPTIMIZERS[self.optimizer](self.parameters())


def batches(count: int = 4) -> DataLoader:
    return DataLoader(torch.randn(2 * count, 5, WIDTH, generator=torch.Generator().manual_seed(1)), 2)


def fit(module, folder, *callbacks, **options) -> None:
    trainer = L.Trainer(
        max_epochs=2,
        callbacks=list(callbacks),
        accelerator="cpu",
        logger=False,
        enable_checkpointing=any(isinstance(c, ModelCheckpoint) for c in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    trainer.fit(module, batches(), **options)


def prune(**options) -> lrnn.Prune:
    return lrnn.Prune(0.8, **({"start": 1, "end": 5, "every": 2} | options))


class MaskedAreZero(L.Callback):
    """After every optimiser step, what a mask hides is exactly zero and what it shows is the dense weight."""

    checked = 0

    def on_train_batch_end(self, trainer, module, *_):
        for weight in trainer.callbacks[0].pruner.weights:
            for owner, attribute in weight.places:
                mask = find(owner, attribute).mask
                zeros = getattr(owner, attribute)[~mask.expand_as(weight.dense)]
                assert torch.equal(zeros, torch.zeros_like(zeros))
                assert torch.equal(weight.effective, torch.where(mask, weight.dense, 0.0))
                self.checked += zeros.numel()


@pytest.mark.filterwarnings("ignore:units died", "ignore:LSTM with projections")
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@KINDS
def test_pruned_while_it_trains(kind, optimizer, tmp_path):
    module, callback, law = Theirs(kind, optimizer), prune(), MaskedAreZero()
    plain = {name: p.shape for name, p in module.named_parameters()}
    fit(module, tmp_path, callback, law)
    assert law.checked > 0
    numel = sum(w.dense.numel() for w in callback.pruner.weights)
    assert abs(callback.pruner.total_sparsity() - 0.8) * numel <= 2 * len(callback.pruner.weights)

    x = next(iter(batches()))
    masked = module.eval().net(x)
    bake(module)
    assert torch.equal(module.net(x), masked)
    assert {name: p.shape for name, p in module.named_parameters()} == plain
    assert not any(parametrize.is_parametrized(m) for m in module.modules())
    fresh = MAKERS[kind]().eval()  # the original class, as its author would load it
    fresh.load_state_dict(module.net.state_dict())
    assert torch.equal(fresh(x), masked)


@pytest.mark.filterwarnings("ignore:units died", "ignore:Be aware that when using `ckpt_path`")
@KINDS
def test_a_resumed_run_is_the_same_run(kind, tmp_path):
    keep = ModelCheckpoint(tmp_path, filename="{epoch}", every_n_epochs=1, save_top_k=-1)
    whole, halves = Theirs(kind), Theirs(kind)
    fit(whole, tmp_path, prune(), keep)
    fit(halves, tmp_path, prune(), ckpt_path=tmp_path / "epoch=0.ckpt", weights_only=True)
    for (name, a), b in zip(whole.state_dict().items(), halves.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


@KINDS
def test_a_masked_state_in_a_fresh_module(kind):
    torch.manual_seed(0)
    module, x = MAKERS[kind]().eval(), next(iter(batches()))
    Pruner(module, 0.8).attach().step(0)
    fresh = MAKERS[kind]().eval()
    attach_masks(fresh, module.state_dict())
    fresh.load_state_dict(module.state_dict())
    assert torch.equal(fresh(x), module(x))
    twin = copy.deepcopy(module)
    bake(twin)
    assert torch.equal(twin(x), module(x))


@KINDS
def test_masks_follow_from_the_weights_alone(kind):
    """What DDP needs: equal weights, equal masks, whatever masks were there before."""
    torch.manual_seed(0)
    one = MAKERS[kind]()
    other = copy.deepcopy(one)
    first, second = (Pruner(m, 0.8, schedule=lrnn.prune.LinearSchedule(0, 9)).attach() for m in (one, other))
    for n in (0, 3, 6):
        first.step(n)
    second.step(6)
    for name, mask in one.named_buffers():
        assert torch.equal(mask, dict(other.named_buffers())[name]), name


@pytest.mark.filterwarnings("ignore:units died")
@pytest.mark.parametrize("kind", ["linear", "convolutions", "s5"])
def test_a_compiled_network(kind, tmp_path):
    """torch.compile inside the module: dynamo retraces for masks that are put on, not for new choices."""
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    plain, compiled = Theirs(kind), Theirs(kind)
    compiled.net = torch.compile(compiled.net, backend=backend)
    fit(plain, tmp_path, prune())
    fit(compiled, tmp_path, prune())
    assert len(graphs) == 1
    for a, b in zip(plain.parameters(), compiled.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-5)


@pytest.mark.filterwarnings("ignore:The tensor attributes self.rnn._flat_weights")
@pytest.mark.parametrize("kind", ["linear", "gru", "convolutions", "attention", "s5"])
def test_a_baked_network_is_exported(kind):
    torch.manual_seed(0)
    module, x = MAKERS[kind]().eval(), next(iter(batches()))
    Pruner(module, 0.8).attach().step(0)
    masked = module(x)
    bake(module)
    program = torch.export.export(module, (x,))
    assert torch.allclose(program.module()(x), masked, atol=1e-6)
    assert not any("parametrizations" in name for name in program.state_dict)


@pytest.mark.filterwarnings("ignore:units died")
def test_frozen_weights_are_pruned_and_stay_where_they_are(tmp_path):
    module = Theirs("linear")
    frozen = module.net.net[0].weight.requires_grad_(False)
    before, callback = frozen.clone(), prune()
    with pytest.warns(UserWarning, match=r"1 weights are frozen .* \(net\.net\.0\.weight\); exclude them"):
        fit(module, tmp_path, callback)
    assert torch.equal(frozen, before)
    assert callback.pruner.total_sparsity() == pytest.approx(0.8, abs=0.02)
    bake(module)
    weight = module.net.net[0].weight
    assert not weight.requires_grad
    assert torch.equal(weight[weight != 0], before[weight != 0])


def test_layers_made_after_setup_are_named(tmp_path):
    class Late(Theirs):
        def setup(self, stage):
            self.late = nn.Linear(4, 4)

    with pytest.raises(ValueError, match=r"late\.weight was made after Prune\.setup"):
        fit(Late("linear"), tmp_path, prune())
