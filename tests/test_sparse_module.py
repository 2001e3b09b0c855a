"""lrnn.SparseLinear and lrnn.sparsify: the masked layer as a module, in training, in files, in models."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from torch import nn
from torch.nn.functional import linear

import lrnn
from lrnn.prune import Pruner, bake

CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def make(rows=24, cols=40, density=0.2, seed=0, **options):
    torch.manual_seed(seed)
    return lrnn.SparseLinear.from_dense(nn.Linear(cols, rows, **options), density=density)


def test_is_the_dense_layer_with_the_smallest_weights_gone():
    dense = nn.Linear(40, 24)
    layer = lrnn.SparseLinear.from_dense(dense, density=0.25)
    weight = layer.weight.detach()
    assert layer.pattern.nonzeros == 240
    assert torch.equal(weight[weight != 0], dense.weight.detach()[weight != 0])
    assert dense.weight[weight == 0].abs().max() <= weight[weight != 0].abs().min()
    x = torch.randn(3, 5, 40)
    torch.testing.assert_close(layer(x), linear(x, weight, dense.bias), **CLOSE)
    torch.testing.assert_close(layer.to_dense()(x), layer(x), **CLOSE)
    assert "in_features=40, out_features=24, bias=True, nonzeros=240, density=0.2500" in repr(layer)


def test_keeps_a_mask_even_where_it_is_zero_and_without_one_what_is_not():
    dense, mask = nn.Linear(6, 4, bias=False), torch.rand(4, 6) < 0.5
    with torch.no_grad():
        dense.weight[0] = 0
    mask[0, 0] = True
    masked = lrnn.SparseLinear.from_dense(dense, mask=mask)
    assert masked.pattern.nonzeros == mask.sum()
    assert torch.equal(masked.weight, dense.weight * mask)
    assert lrnn.SparseLinear.from_dense(dense).pattern.nonzeros == 18


def test_optimiser_moves_the_weights_as_those_of_a_masked_layer_and_the_zeros_stay():
    layer, target = make(), torch.randn(64, 24)
    dense, mask = layer.to_dense(), layer.weight.detach() != 0
    x = torch.randn(64, 40)
    optimizers = [torch.optim.SGD(m.parameters(), 0.1, momentum=0.9) for m in (layer, dense)]
    for _ in range(5):
        for model, optimizer in zip((layer, dense), optimizers, strict=True):
            optimizer.zero_grad()
            weight = model.weight if model is layer else model.weight * mask
            y = model(x) if model is layer else linear(x, weight, model.bias)
            (y - target).square().mean().backward()
            optimizer.step()
    assert not torch.equal(layer.values, make().values)
    assert torch.equal(layer.weight != 0, mask)
    torch.testing.assert_close(layer.weight, dense.weight * mask, **CLOSE)
    torch.testing.assert_close(layer.bias, dense.bias, **CLOSE)


def test_gradcheck():
    layer = make(5, 7, 0.4, dtype=torch.float64)
    x = torch.randn(2, 3, 7, dtype=torch.float64, requires_grad=True)

    def call(x, values, bias):
        return torch.func.functional_call(layer, {"values": values, "bias": bias}, (x,))

    assert torch.autograd.gradcheck(call, (x, layer.values, layer.bias))
    (gradient,) = torch.autograd.grad(layer.weight.square().sum(), layer.values)
    torch.testing.assert_close(gradient, 2 * layer.values)


@pytest.mark.parametrize("other", ["empty", "another pattern", "the same pattern"])
@pytest.mark.parametrize("assign", [False, True])
def test_state_dict_brings_its_pattern(other, assign, tmp_path):
    layer = make()
    target = {
        "empty": lambda: lrnn.SparseLinear(40, 24),
        "another pattern": lambda: make(density=0.7, seed=1),
        "the same pattern": lambda: copy.deepcopy(layer),
    }[other]()
    with torch.no_grad():
        target.values.mul_(2)
    parameter = target.values
    state = layer.state_dict()
    assert set(state) == {"values", "bias", "starts", "columns"}
    torch.save(state, tmp_path / "state.pt")
    found = torch.load(tmp_path / "state.pt", weights_only=True)
    assert str(target.load_state_dict(found, assign=assign)) == "<All keys matched successfully>"
    assert all(torch.equal(a, b) for a, b in zip(target.pattern, layer.pattern, strict=True))
    assert torch.equal(target.weight, layer.weight)
    assert assign or target.values is parameter
    x = torch.randn(9, 40)
    assert torch.equal(target(x), layer(x))
    target(x).sum().backward()
    assert target.values.grad.shape == layer.values.shape


def test_loads_within_a_model_and_says_what_does_not_fit():
    state = nn.Sequential(make(), nn.ReLU()).state_dict()
    model = nn.Sequential(lrnn.SparseLinear(40, 24), nn.ReLU())
    model.load_state_dict(state)
    assert torch.equal(model[0].weight, make().weight)
    with pytest.raises(RuntimeError, match=r"0: starts: found 25 of them, expected 31 for 30 rows"):
        nn.Sequential(lrnn.SparseLinear(40, 30)).load_state_dict(state)
    columns = state["0.columns"].clone()
    columns[-1] = 99
    with pytest.raises(RuntimeError, match=r"0: columns: found 0 to 99, expected 0 to 39"):
        model.load_state_dict({**state, "0.columns": columns})
    with pytest.raises(RuntimeError, match=r"0: values: shape is \(3,\), expected \(192,\)"):
        model.load_state_dict({**state, "0.values": torch.ones(3)})
    with pytest.raises(RuntimeError, match=r'Missing key\(s\) in state_dict: "0\.starts"'):
        model.load_state_dict({k: v for k, v in state.items() if k != "0.starts"})
    assert torch.equal(model[0].weight, make().weight)
    with pytest.raises(RuntimeError, match=r'Unexpected key\(s\) in state_dict: "0\.extra"'):
        model.load_state_dict({**state, "0.extra": torch.ones(1)})


def test_a_file_of_safetensors_round_trips(tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    layer, again = make(), lrnn.SparseLinear(40, 24)
    safetensors.save_model(layer, str(tmp_path / "layer.safetensors"))
    safetensors.load_model(again, str(tmp_path / "layer.safetensors"))
    assert torch.equal(again.weight, layer.weight)


def test_copies_are_whole_and_their_own():
    layer = make()
    other = copy.deepcopy(layer)
    with torch.no_grad():
        other.values.zero_()
    assert torch.equal(layer.weight, make().weight)
    assert other.pattern.columns.data_ptr() != layer.pattern.columns.data_ptr()


def test_changes_dtype_and_leaves_the_pattern():
    layer = make().double()
    assert layer.values.dtype == layer.bias.dtype == torch.float64
    assert layer.pattern.columns.dtype == torch.int16
    x = torch.randn(9, 40)
    torch.testing.assert_close(layer(x.double()).float(), make()(x), **CLOSE)
    with pytest.raises(TypeError, match=r"w: values are torch.bfloat16, expected float32 or float64"):
        layer.to(torch.bfloat16)(x.bfloat16())


def test_under_autocast_it_takes_what_the_layer_before_gives():
    layer, first, x = make(), nn.Linear(8, 40), torch.randn(70, 8)
    with torch.autocast("cpu", torch.bfloat16):
        between = first(x)
        y = layer(between)
    assert between.dtype == torch.bfloat16
    assert y.dtype == torch.float32
    torch.testing.assert_close(y, layer(between.float()))


def test_compiles_and_exports_without_a_break():
    layer, x = make(), torch.randn(70, 40)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    y = compiled(x)
    torch.testing.assert_close(y, layer(x))
    gradients = [torch.autograd.grad(f(x).square().sum(), layer.values)[0] for f in (compiled, layer)]
    torch.testing.assert_close(*gradients)
    exported = torch.export.export(layer, (x,))
    torch.testing.assert_close(exported.module()(x), layer(x))


def test_traces_show_the_op_by_its_name():
    layer, x = make(), torch.randn(70, 40, requires_grad=True)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as trace:
        layer(x).sum().backward()
    names = {event.key for event in trace.key_averages()}
    assert {"lrnn::sparse_linear", "lrnn::sparse_linear_backward"} <= names


def test_new_layers_are_drawn_by_what_reaches_a_row():
    mask = torch.zeros(2, 400, dtype=torch.bool)
    mask[0, :400], mask[1, :4] = True, True
    layer = lrnn.SparseLinear(400, 2, lrnn.SparsePattern.from_mask(mask))
    assert layer.weight[0].abs().max() <= 0.05
    assert 0.05 < layer.weight[1].abs().max() <= 0.5
    assert lrnn.SparseLinear(3, 2, bias=False)(torch.ones(5, 3)).eq(0).all()


def test_errors_name_what_was_found():
    dense = nn.Linear(6, 4)
    from_dense = lrnn.SparseLinear.from_dense
    with pytest.raises(TypeError, match=r"linear: found Conv1d, expected a torch.nn.Linear"):
        from_dense(nn.Conv1d(1, 1, 1))
    with pytest.raises(TypeError, match=r"linear: weight is torch.bfloat16"):
        from_dense(nn.Linear(6, 4, dtype=torch.bfloat16))
    with pytest.raises(ValueError, match=r"density is 1.5, expected 0 to 1"):
        from_dense(dense, density=1.5)
    with pytest.raises(ValueError, match="density and mask: found both"):
        from_dense(dense, density=0.5, mask=torch.ones(4, 6, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"mask: shape is \(6, 4\)"):
        from_dense(dense, mask=torch.ones(6, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"pattern: shape is \(4, 6\), expected .* \(6, 4\)"):
        lrnn.SparseLinear(4, 6, from_dense(dense).pattern)
    with pytest.raises(TypeError, match=r"dtype: found torch.float16"):
        lrnn.SparseLinear(4, 6, dtype=torch.float16)
    with pytest.raises(ValueError, match=r"x: shape is \(2, 5\), expected \(\.\.\., 6\)"):
        from_dense(dense)(torch.ones(2, 5))
    with torch.no_grad():
        dense.weight[0, 0] = torch.nan
    with pytest.raises(ValueError, match="linear: weight has NaN"):
        from_dense(dense)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(40, 64), nn.ReLU(), nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 8)))


@pytest.mark.parametrize("baked", [False, True])
def test_sparsify_after_pruning_changes_no_output(baked):
    model, x = network(), torch.randn(5, 40)
    Pruner(model, 0.9, exclude=["2.1"]).attach().step(0)
    with torch.no_grad():
        bias = model[0].bias.clone()
    if baked:
        bake(model)
    before = model(x)
    report = lrnn.sparsify(model)
    torch.testing.assert_close(model(x), before)
    assert list(report.replaced) == ["0", "2.0"]
    assert model[2][0] is report.replaced["2.0"]
    assert report.left == {"2.1": "0.0 % zeros, expected at least 50 %"}
    assert "2.0: 64 x 64, " in str(report)
    assert "2.1: left dense, 0.0 % zeros" in str(report)
    assert torch.equal(model[0].bias, bias)
    assert all(p.requires_grad for p in model.parameters())


def test_sparsify_by_density_and_name():
    model = network()
    report = lrnn.sparsify(model, 0.25, names=["2"])
    assert list(report.replaced) == ["2.0", "2.1"]
    assert type(model[0]) is nn.Linear
    assert model[2][1].pattern.nonzeros == 128
    with pytest.raises(ValueError, match=r"names has the pattern 'encoder', which matches no nn.Linear"):
        lrnn.sparsify(model, 0.25, names=["encoder"])


def test_sparsify_leaves_what_it_must_and_keeps_what_is_shared():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.once = nn.Linear(8, 8)
            self.again = self.once
            self.embed = nn.Embedding(30, 8)
            self.head = nn.Linear(8, 30, bias=False)
            self.head.weight = self.embed.weight
            self.attention = nn.MultiheadAttention(8, 2)

    net = Net()
    with torch.no_grad():
        report = lrnn.sparsify(net, 0.5)
    assert net.once is net.again is report.replaced["once"]
    assert set(report.left) == {"head", "attention.out_proj"}
    assert net.head.weight is net.embed.weight
    with pytest.raises(TypeError, match=r"found an nn.Linear"):
        lrnn.sparsify(net.head)


def test_explains_itself():
    layer = make(64, 96, 0.1)
    found = layer.explain(steps=64)
    assert found.shape == (64, 96)
    assert found.nonzeros == layer.pattern.nonzeros
    assert [case.steps for case in found.cases] == [1, 64]
    for case in found.cases:
        assert case.speed_up == pytest.approx(case.dense_seconds / case.sparse_seconds)
        assert 0 <= case.crossover_density <= 1
    kept, pattern = layer.values, layer.pattern
    assert found.bytes["dense"] == 4 * 64 * 96
    assert found.bytes["sparse"] == kept.nbytes + pattern.columns.nbytes + pattern.cuts.nbytes
    parsed = json.loads(found.to_json())
    assert parsed["cases"][1]["speed_up"] == found.cases[1].speed_up
    text = str(found)
    assert "SparseLinear 64 x 96: 614 weights, density 10.0 %" in text
    assert "T = 64: " in text
    assert found.engine is None or "native engine" in text
    assert [case.steps for case in layer.explain(steps=1).cases] == [1]
    with pytest.raises(ValueError, match="steps is 0"):
        layer.explain(0)
    with pytest.raises(ValueError, match="found 0 x 4, expected some entries"):
        lrnn.SparseLinear(4, 0).explain()


def test_explains_that_sparse_pays_below_the_density_where_the_lines_meet(monkeypatch):
    from lrnn.profile import explain
    from lrnn.profile.bench.timing import Timing

    layer = make(50, 40, 0.1)
    pattern = layer.pattern

    def measured(subjects, **options):
        assert set(subjects) == {"dense", "own", "other"}
        other = subjects["other"].__closure__
        densities = [c.cell_contents.pattern.density for c in other if hasattr(c.cell_contents, "pattern")]
        (other_density,) = [d for d in densities if d != pattern.density]
        times = {"dense": 60.0, "own": 10 + 100 * pattern.density, "other": 10 + 100 * other_density}
        return {name: Timing(t, t, 1) for name, t in times.items()}

    monkeypatch.setattr(explain, "interleaved", measured)
    for case in layer.explain().cases:
        assert case.crossover_density == pytest.approx(0.5)
        assert case.speed_up == pytest.approx(3.0)
    assert "3.0 times faster; pays below about 50 % density" in str(layer.explain())
