"""The penalty on activations: what it measures, and that training with it empties them."""

from __future__ import annotations

import math

import pytest
import torch

from lrnn.nn import SequenceModel, SequenceModelConfig
from lrnn.nn.activation import rectifiers
from lrnn.train.activity import spread, watched

SMALL = SequenceModelConfig(d_in=5, d_out=5, d_model=8, d_state=8, blocks=1, n_layers=2)


def test_spread_of_known_shapes():
    constant = torch.ones(2, 50, 3)
    share = constant.clone()
    share[:, :40] = 0  # active on a fifth of the frames
    assert spread([constant]).item() == pytest.approx(1)
    assert spread([share]).item() == pytest.approx(math.sqrt(0.2))
    assert spread([constant, share]).item() == pytest.approx((1 + math.sqrt(0.2)) / 2)
    assert spread([torch.zeros(2, 50, 3)]).item() == 0  # a dead unit costs nothing


@pytest.mark.parametrize("scale", [1e-2, 1e2])
def test_spread_does_not_see_scale(scale):
    h = torch.randn(3, 40, 6, 2).relu()
    torch.testing.assert_close(spread([scale * h]), spread([h]))


def test_every_rectifier_is_watched_and_left_alone_afterwards():
    model = SequenceModel(SMALL)
    x = torch.randn(2, 30, 5)
    with watched(model) as outputs:
        y, _ = model(x)
    assert len(outputs) == len(rectifiers(model)) == 1 + 3 * SMALL.n_layers
    assert all((h >= 0).all() and (h == 0).any() for h in outputs)
    assert not any(m._forward_hooks for m in model.modules())
    assert torch.equal(model.eval()(x)[0], model(x)[0])
    assert torch.isfinite(y).all()


def test_a_network_without_rectifiers_is_named():
    gelu = SequenceModel(SequenceModelConfig(d_in=5, d_out=5, d_model=8, d_state=8, blocks=1, relu="none"))
    with watched(gelu) as outputs:
        gelu(torch.randn(2, 30, 5))
    with pytest.raises(ValueError, match="relu is 'none'"):
        spread(outputs)


def density(outputs) -> float:
    return torch.cat([(h != 0).float().flatten() for h in outputs]).mean().item()


def test_descending_it_empties_activations():
    torch.manual_seed(0)
    model = SequenceModel(SMALL)
    x = torch.randn(4, 60, 5)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    seen = []
    for _ in range(40):
        with watched(model) as outputs:
            model(x)
        seen.append(density(outputs))
        optimizer.zero_grad()
        spread(outputs).backward()
        optimizer.step()
    assert seen[-1] < 0.7 * seen[0]
