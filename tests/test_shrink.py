"""lrnn.shrink changes nothing but sizes; lrnn.prune.structured keeps to its budget."""

from __future__ import annotations

import copy
import sys
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import lrnn
from lrnn.nn.hgrn_stack import GLU
from lrnn.profile import count
from lrnn.prune import Pruner, adopt_sizes, cost, prune_once, shrink, structured
from lrnn.prune.dependency import tensors

tp = pytest.importorskip("torch_pruning")

few = settings(max_examples=15, deadline=None)
small = lrnn.SequenceModelConfig(d_in=3, d_out=4, d_model=8, d_state=12, blocks=2, n_layers=2)
configs = st.builds(
    replace,
    st.just(small),
    relu=st.sampled_from(["none", "parts", "pair"]),
    glu=st.sampled_from(["half1", "half2", "full", "none"]),
    norm=st.sampled_from(["batch", "frozen_batch"]),
    prenorm=st.booleans(),
    head=st.sampled_from(["regression", "classification"]),
    pooling=st.sampled_from(["mean", "last"]),
    ssm=st.builds(
        lrnn.S5Options, conj_sym=st.booleans(), discretization=st.sampled_from(["zoh", "bilinear"])
    ),
)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def shaken(module: nn.Module) -> nn.Module:
    """A float64 module in evaluation, no tensor where initialisation left it."""
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if tensor.is_floating_point():
                tensor += (
                    0.3 * torch.rand_like(tensor) if "running" in name else 0.3 * torch.randn_like(tensor)
                )
    return module.double().eval()


@torch.no_grad()
def cut(model: lrnn.SequenceModel) -> lrnn.SequenceModel:
    """States and channels of every kind of uselessness: unread, unfed, constant."""
    unread, constant = 2, 5
    model.decoder.weight[:, unread] = 0
    model.encoder.weight[constant] = 0
    for k, block in enumerate(model.blocks):
        ssm = block.ssm
        ssm.B[1 + k] = 0  # states: unfed, and two unread
        ssm.C[:, 3:5] = 0
        ssm.B[:, [unread, constant]] = 0
        ssm.C[constant] = 0
        for linear in (block.out1, block.out2):
            if linear is not None:
                linear.weight[:, unread] = 0
                linear.weight[constant] = 0
    return model


def difference(a, b) -> float:
    """Largest difference of two nests of tensors, where they have the same shape."""
    return max(
        (x - y).abs().max().item() for x, y in zip(tensors(a), tensors(b), strict=True) if x.shape == y.shape
    )


@few
@given(configs, st.integers(0, 2**16))
def test_a_model_computes_what_it_did_at_any_split_of_time(config, seed):
    torch.manual_seed(seed)
    model = cut(shaken(lrnn.SequenceModel(config)))
    whole = copy.deepcopy(model)
    report = shrink(model)
    kept = model.blocks[0].ssm.n_states
    assert kept <= whole.blocks[0].ssm.n_states - 3
    assert model.config.d_model == 6, str(report)
    x = torch.randn(2, 9, 3, dtype=torch.float64)
    reset = torch.rand(2, 9) < 0.2
    assert difference(whole(x, None, reset)[0], model(x, None, reset)[0]) < 1e-10
    z, ours = model(x[:, 4:], model(x[:, :4])[1])
    theirs = whole(x[:, 4:], whole(x[:, :4])[1])
    assert difference(z, theirs[0]) < 1e-10
    first = ours[0]  # the states that stayed carry on as they were
    distances = (first[:, :, None] - theirs[1][0][:, None]).abs().amax(0)  # (kept, all)
    assert distances.amin(1).max() < 1e-10


def test_in_float32_to_a_millionth():
    model = lrnn.SequenceModel(replace(small, d_model=32, d_state=64, d_in=20)).eval()
    prune_once(model, 0.9)
    whole, x = copy.deepcopy(model), torch.randn(3, 50, 20)
    report = shrink(model)
    assert (model(x)[0] - whole(x)[0]).abs().max() < 1e-6
    assert report.after.parameters < 0.7 * report.before.parameters
    assert "states" in str(report)


def test_layers_of_different_sizes_are_saved_loaded_compiled(tmp_path):
    model = shaken(lrnn.SequenceModel(small)).float()
    with torch.no_grad():
        model.blocks[1].ssm.B[:3] = 0
    shrink(model)
    assert model.config.d_state == (12, 6)
    model.save(tmp_path / "m.safetensors")
    loaded = lrnn.SequenceModel.load(tmp_path / "m.safetensors").eval()
    x = torch.randn(2, 7, 3)
    assert difference(model(x), loaded(x)) == 0
    assert loaded.config == model.config
    program = lrnn.compile(loaded)
    assert abs(program.stream("numpy").run(x[0].numpy()) - model(x)[0][0].detach().numpy()).max() < 1e-5


def test_what_it_reports_is_what_the_profiler_counts():
    model = shaken(lrnn.SequenceModel(replace(small, d_model=16, d_state=32))).float()
    frame = torch.randn(1, 1, 3)
    figures = count(lrnn.compile(model))
    assert cost(model, frame).macs == sum(c.macs for c in figures)
    prune_once(model, 0.6)
    shrink(model)  # the compiler leaves dead states out by itself
    figures, ours = count(lrnn.compile(model)), cost(model, frame)
    assert ours.macs == sum(c.macs for c in figures)
    assert ours.macs_weights == sum(c.macs_weights for c in figures)


def test_nothing_to_remove_removes_nothing():
    model = shaken(lrnn.SequenceModel(small))
    before = copy.deepcopy(model.state_dict())
    report = shrink(model)
    assert report.removed == report.left == {}
    assert model.config == small
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())


class Net(nn.Module):
    """A plain model: convolutions, norm, residual sum, concatenation."""

    def __init__(self):
        super().__init__()
        self.conv1, self.norm, self.conv2 = nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6), nn.Conv2d(6, 5, 3)
        self.a, self.b, self.c = nn.Linear(20, 7), nn.Linear(20, 4), nn.Linear(11, 6)
        self.d, self.head = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        x = torch.relu(self.norm(self.conv1(x)))
        x = torch.relu(self.conv2(x)).flatten(1)
        x = torch.tanh(self.c(torch.cat([self.a(x), torch.sigmoid(self.b(x))], -1)))
        return self.head(x + torch.relu(self.d(x)))


@torch.no_grad()
def cut_net(net: Net) -> Net:
    net.conv1.weight[1] = 0  # a constant behind a norm and a ReLU, read by a convolution without padding
    net.conv2.weight[:, 4] = 0  # unread
    for linear in (net.a, net.b):
        linear.weight.view(-1, 5, 4)[:, 2] = 0  # a map that both leave unread, flattened to four columns
    net.a.weight[3] = 0  # constants, folded
    net.b.weight[1] = 0
    net.c.weight[:, 7 + 3] = 0  # unread behind the concatenation
    net.head.weight[:, 2] = 0
    net.d.weight[:, 2] = 0
    return net


def test_plain_models_and_their_state_dicts():
    net = cut_net(shaken(Net()))
    whole, x = copy.deepcopy(net), torch.randn(5, 2, 6, 6, dtype=torch.float64)
    report = shrink(net, x)
    assert (net(x) - whole(x)).abs().max() < 1e-12, str(report)
    sizes = {name: tuple(p.shape[:2]) for name, p in net.named_parameters() if p.ndim > 1}
    assert sizes == {
        "conv1.weight": (4, 2),
        "conv2.weight": (4, 4),
        "a.weight": (6, 16),
        "b.weight": (2, 16),
        "c.weight": (5, 8),
        "d.weight": (5, 5),
        "head.weight": (3, 5),
    }
    fresh = Net().double().eval()
    adopt_sizes(fresh, net.state_dict())
    fresh.load_state_dict(net.state_dict())
    assert torch.equal(fresh(x), net(x))
    assert str(fresh) == str(net)


def test_a_padded_convolution_cannot_take_a_constant():
    net = shaken(nn.Sequential(nn.Conv1d(2, 4, 3), nn.ReLU(), nn.Conv1d(4, 3, 3, padding=1)))
    with torch.no_grad():
        net[0].weight[:2] = 0
        net[0].bias[:2] = torch.tensor([1.0, -1.0])  # one stays a constant, the other is silent
    whole, x = copy.deepcopy(net), torch.randn(2, 2, 9, dtype=torch.float64)
    report = shrink(net, x)
    assert report.removed == {"0 channels": (4, 3)}
    assert (net(x) - whole(x)).abs().max() < 1e-12


@pytest.mark.parametrize("kind", ["real", "complex"])
@pytest.mark.parametrize("bias", [False, True])
def test_hgrn_states_that_never_move(kind, bias):
    options = lrnn.HGRNOptions(kind, bias=bias)
    layer = shaken(lrnn.HGRN(6, 10, relu=bias, options=options))
    per = 2 if kind == "complex" else 1
    with torch.no_grad():
        layer.i_proj.weight[: 4 * per] = 0
        if bias:
            layer.i_proj.bias[: 4 * per] = -1  # below a ReLU
    whole, x = copy.deepcopy(layer), torch.randn(2, 7, 6, dtype=torch.float64)
    shrink(layer, x)
    assert layer.d_state == 6
    (y, last), (wanted, whole_last) = layer(x), whole(x)
    assert (y - wanted).abs().max() < 1e-12
    assert (last - whole_last[:, 4:]).abs().max() < 1e-12
    again = lrnn.HGRN(6, 6, relu=bias, options=layer.options).double()
    again.load_state_dict(layer.state_dict())
    assert (again(x)[0] - wanted).abs().max() < 1e-12


@pytest.mark.parametrize("remove", [shrink, lambda net, x: structured(net, cost(net, x).macs // 2, x)])
def test_a_model_with_an_hgrn_that_adopts_sizes_has_its_eps(remove):
    class Mine(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.mixer = nn.Linear(6, 6), lrnn.HGRN(6, 10)

        def forward(self, x):
            return self.mixer(self.first(x))[0]

    model, x = shaken(Mine()), torch.randn(2, 7, 6, dtype=torch.float64)
    with torch.no_grad():
        model.mixer.i_proj.weight[:6] = 0
        model.mixer.i_proj.weight *= 0.01  # so that the eps counts
    remove(model, x)
    assert model.mixer.d_state < 10
    fresh = Mine().double().eval()
    adopt_sizes(fresh, model.state_dict())
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh(x), model(x))


def test_layers_called_by_keyword():
    class Mine(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 2)

        def forward(self, x):
            return self.b(input=torch.relu(self.a(input=x)))

    model = shaken(Mine())
    with torch.no_grad():
        model.b.weight[:, 3] = 0
    x = torch.randn(3, 4, dtype=torch.float64)
    wanted = model(x)
    assert shrink(model, x).removed == {"a channels": (6, 5)}
    assert (model(x) - wanted).abs().max() < 1e-12


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_in_half_precision_constants_are_folded_too(dtype):
    model = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3))
    with torch.no_grad():
        model[2].weight[:4] = 0
    model, x = model.to(dtype).eval(), torch.randn(9, 16).to(dtype)
    wanted = model(x)
    assert shrink(model, x).removed["2 channels"] == (16, 12)
    torch.testing.assert_close(model(x), wanted, atol=8 * torch.finfo(dtype).eps, rtol=0)


def test_an_hgrn_stack_loses_hidden_units():
    stack = shaken(lrnn.HGRNStack(lrnn.HGRNBlockConfig(d_model=6, d_state=4, d_hidden=10), 2))
    with torch.no_grad():
        stack.blocks[0].glu.gate_proj.weight[1] = 0
        stack.blocks[0].glu.up_proj.weight[2] = 0
        stack.blocks[1].glu.down_proj.weight[:, 3] = 0
        for block in stack.blocks:
            block.mixer.i_proj.weight[1] = 0
    whole, x = copy.deepcopy(stack), torch.randn(2, 7, 6, dtype=torch.float64)
    report = shrink(stack)
    assert stack.config.d_hidden == (8, 9)
    assert difference(stack(x), whole(x)) < 1e-12
    assert "eps" in report.left["states"]
    again = lrnn.HGRNStack(stack.config, 2).double()
    again.load_state_dict(stack.state_dict())
    assert difference(again(x), stack(x)) == 0


class Odd(nn.Module):
    """What must be left alone, and why."""

    def __init__(self):
        super().__init__()
        self.normed, self.norm, self.after = nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 6)
        self.soft, self.last = nn.Linear(6, 6), nn.Linear(6, 6)
        self.twice, self.out = nn.Linear(6, 6), nn.Linear(6, 5)

    def forward(self, x):
        x = self.after(self.norm(self.normed(x)))
        x = self.last(self.soft(x).softmax(-1))
        return self.out(self.twice(torch.relu(self.twice(x))))


def test_what_cannot_be_removed_is_named():
    model = shaken(Odd())
    with torch.no_grad():
        for linear in (model.after, model.last, model.twice, model.out):
            linear.weight[:, 1] = 0
        model.out.weight[2] = 0  # an output is an output
    whole, x = copy.deepcopy(model), torch.randn(3, 4, dtype=torch.float64)
    report = shrink(model, x)
    assert torch.equal(model(x), whole(x))
    assert report.removed == {}
    assert "LayerNorm" in report.left["normed channels"]
    assert "Softmax" in report.left["soft channels"]
    assert any("more than once" in reason for reason in report.left.values())


def test_inputs_and_outputs_keep_their_sizes():
    model = shaken(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)))
    with torch.no_grad():
        model[0].weight[:, 1] = 0
        model[2].weight[1] = 0
    assert shrink(model, torch.randn(5, 4, dtype=torch.float64)).removed == {}


def test_all_dead_leaves_one():
    model = shaken(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)))
    layer = shaken(lrnn.S5(4, 8))
    with torch.no_grad():
        model[2].weight.zero_()
        layer.B.zero_()
    whole, x = copy.deepcopy(model), torch.randn(5, 4, dtype=torch.float64)
    shrink(model, x)
    shrink(layer, x[None])
    assert model[0].out_features == layer.n_states == 1
    assert torch.equal(model(x), whole(x))


def test_frozen_weights_stay_frozen_and_modes_stay():
    net = cut_net(shaken(Net())).train()
    net.a.weight.requires_grad_(False)
    shrink(net, torch.randn(5, 2, 6, 6, dtype=torch.float64))
    assert not net.a.weight.requires_grad
    assert net.b.weight.requires_grad
    assert net.norm.training


def test_errors(monkeypatch):
    model = lrnn.SequenceModel(small)
    Pruner(model, 0.5).attach()
    with pytest.raises(ValueError, match="bake"):
        shrink(model)
    with pytest.raises(ValueError, match="example: found None for a Net"):
        shrink(Net())
    with pytest.raises(ValueError, match="equal numbers"):
        shrink(Net(), torch.zeros(1, 2, 6, 6))
    with pytest.raises(ValueError, match=r"shape \(0, 2, 6, 6\)"):
        shrink(Net(), torch.zeros(0, 2, 6, 6))
    with pytest.raises(ValueError, match="has no such tensor"):
        adopt_sizes(Net(), {"other.weight": torch.zeros(2)})
    with pytest.raises(ValueError, match="3 numbers, expected one for each of 2"):
        replace(small, d_state=(2, 4, 6))
    with pytest.raises(ValueError, match="expected one number"):
        lrnn.S5Block(lrnn.S5BlockConfig(d_state=(2, 4)))
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    with pytest.raises(ImportError, match=r"lrnn\[shrink\]"):
        shrink(lrnn.SequenceModel(small))


@few
@given(st.integers(0, 2**16), st.floats(0.2, 0.9))
def test_structured_keeps_to_its_budget_and_comes_close(seed, share):
    torch.manual_seed(seed)
    model = shaken(lrnn.SequenceModel(replace(small, d_model=24, d_state=32)))
    frame = torch.randn(1, 1, 3, dtype=torch.float64)
    budget = int(share * cost(model, frame).macs)
    report = structured(model, budget)
    assert report.after == cost(model, frame)
    assert 0.8 * budget < report.after.macs <= budget
    y, _ = model(torch.randn(2, 5, 3, dtype=torch.float64))
    assert y.shape == (2, 5, 4)
    y.sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_structured_hgrn_stack():
    stack = shaken(lrnn.HGRNStack(lrnn.HGRNBlockConfig(d_model=6, d_state=8, d_hidden=10), 2))
    x = torch.randn(1, 3, 6, dtype=torch.float64)
    report = structured(stack, cost(stack, x).macs // 2, x)
    assert "removed" in str(report)
    assert stack.config.d_state < 8
    again = lrnn.HGRNStack(stack.config, 2).double()
    again.load_state_dict(stack.state_dict())
    assert difference(again(x), stack(x)) == 0


def test_structured_removes_what_torch_pruning_removes():
    x = torch.randn(2, 2, 6, 6)
    ours = nn.Sequential(
        nn.Conv2d(2, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.Flatten(), nn.Linear(24, 3)
    )
    ours = shaken(ours).float()
    theirs = copy.deepcopy(ours)
    importance = tp.importance.GroupMagnitudeImportance(p=2, group_reduction="sum", normalizer=None)
    tp.pruner.MagnitudePruner(theirs, x, importance, pruning_ratio=0.5, ignored_layers=[theirs[-1]]).step()
    report = structured(ours, cost(theirs, x).macs, x)
    assert report.after == cost(theirs, x)
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


def test_structured_without_need_or_hope():
    model = lrnn.SequenceModel(small)
    assert structured(model, 10**9).share == 0
    assert model.config == small
    with pytest.raises(ValueError, match="one channel of every group"):
        structured(model, 10)
    assert model.config == small


def test_the_gated_linear_unit_alone():
    glu = shaken(GLU(5, 7))
    with torch.no_grad():
        glu.down_proj.weight[:, 2] = 0
    whole, x = copy.deepcopy(glu), torch.randn(2, 3, 5, dtype=torch.float64)
    assert shrink(glu, x).removed == {"hidden units": (7, 6)}
    assert (glu(x) - whole(x)).abs().max() < 1e-12


@pytest.mark.parametrize("tied", [False, True])
def test_a_language_models_logits_are_a_reader(tied):
    """Of the residual stream; where the embedding makes them, through a product that no layer stands for."""
    block = lrnn.HGRNBlockConfig(d_model=32, d_state=12, d_hidden=24)
    config = lrnn.LanguageModelConfig(vocabulary=32, n_layers=2, block=block, tied=tied)
    model, tokens = shaken(lrnn.LanguageModel(config)), torch.randint(32, (2, 7))
    with torch.no_grad():
        model.stack.blocks[1].glu.down_proj.weight[:, :3] = 0
    before = model(tokens)[0]
    report = shrink(model)
    assert report.removed == {"stack.blocks.1.glu hidden units": (24, 21)}
    assert (model(tokens)[0] - before).abs().max() < 1e-10
    if not tied:
        assert structured(model, report.after.macs // 2).after.macs <= report.after.macs // 2
        assert model.config.d_model < 32


@pytest.mark.parametrize("kind", ["hgrn", "s5"])
def test_a_language_model_is_saved_with_its_sizes(kind, tmp_path):
    hgrn = lrnn.HGRNBlockConfig(d_model=6, d_state=4, d_hidden=10)
    s5 = lrnn.S5BlockConfig(d_model=6, d_state=8, blocks=2, norm="layer")
    config = lrnn.LanguageModelConfig(vocabulary=20, n_layers=2, block=hgrn if kind == "hgrn" else s5)
    model = shaken(lrnn.LanguageModel(config)).float()
    block, tokens = model.stack.blocks[0], torch.randint(20, (2, 7))
    assert cost(model, tokens[:1, :1]).macs == sum(c.macs for c in count(lrnn.compile(model)))
    with torch.no_grad():
        (block.glu.up_proj.weight if kind == "hgrn" else block.ssm.B)[:3] = 0
    before = model(tokens)[0]
    shrink(model)
    assert (model(tokens)[0] - before).abs().max() < 1e-5
    model.save(tmp_path / "m.safetensors")
    again = lrnn.LanguageModel.load(tmp_path / "m.safetensors").eval()
    assert again.config == model.config != config
    assert torch.equal(again(tokens)[0], model(tokens)[0])
