"""NeuroBench's figures by its own definitions, and equal to the package's where its hooks see the layers.

The package is no dependency: the Makefile installs it without its own, which are heavy and not needed here.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import lrnn
from lrnn.profile.loihi.neurobench import neurobench_metrics
from lrnn.program import nodes as op


def pair(density: float, binary: bool = False) -> tuple[nn.Sequential, lrnn.Program, np.ndarray]:
    """The same network for torch and as a Program, and frames."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 12), nn.Sigmoid(), nn.Linear(12, 5))
    with torch.no_grad():
        for layer in net[::2]:
            layer.weight.mul_(torch.rand_like(layer.weight) < density)
    made, last = [], "x"
    for i, layer in enumerate(net):
        if isinstance(layer, nn.Linear):
            made.append(
                op.Linear(f"{i}", (last,), layer.weight.detach().numpy(), layer.bias.detach().numpy())
            )
        else:
            made.append((op.Relu if isinstance(layer, nn.ReLU) else op.Sigmoid)(f"{i}", (last,)))
        last = f"{i}"
    x = torch.randn(64, 20).relu()
    frames = (x > 0.5).float() if binary else x
    return net, lrnn.Program("x", 20, tuple(made), last), frames.numpy()


def test_figures_of_a_small_network_by_hand():
    weight = np.array([[1, 0, 2], [0, 0, 3]], np.float32)
    first = op.Linear("a", ("x",), weight)
    second = op.Linear("b", ("relu",), np.ones((1, 2), np.float32))
    program = lrnn.Program("x", 3, (first, op.Relu("relu", ("a",)), second), "b")
    frames = np.array([[2, 5, 0], [-3, 0, 1]], np.float32)  # a: (2, 0), (-1, 3)
    found = neurobench_metrics(program, frames)
    assert found == {
        "footprint": 4 * (6 + 2),
        "connection_sparsity": 3 / 8,
        "activation_sparsity": 2 / 4,
        "synaptic_operations": {"Effective_MACs": (1 + 3) / 2 + 1.0, "Effective_ACs": 0.0, "Dense": 8},
    }


def test_what_depends_on_data_is_unmeasured_without():
    found = neurobench_metrics(pair(0.3)[1])
    assert found["activation_sparsity"] is None
    assert found["synaptic_operations"]["Effective_MACs"] is None
    assert found["synaptic_operations"]["Dense"] == 20 * 30 + 30 * 12 + 12 * 5


@pytest.mark.parametrize("density", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("binary", [False, True])
def test_the_package_counts_the_same(density, binary):
    pytest.importorskip("snntorch", reason="neurobench and snntorch are not installed")
    metrics = pytest.importorskip("neurobench.metrics.workload", reason="neurobench is not installed")
    from neurobench.metrics.static import ConnectionSparsity, Footprint
    from neurobench.models import TorchModel

    net, program, frames = pair(density, binary)
    model = TorchModel(net)
    model.register_hooks()
    assert len(model.connection_hooks) == 3
    assert len(model.activation_hooks) == 2
    x = torch.from_numpy(frames)
    with torch.inference_mode():
        preds = model(x)
        operations = metrics.SynapticOperations()(model, preds, (x, preds))
    found = neurobench_metrics(program, frames)
    assert found["synaptic_operations"] == pytest.approx(operations)
    assert found["footprint"] == Footprint()(model)
    assert found["connection_sparsity"] == pytest.approx(ConnectionSparsity()(model), abs=5e-5)  # it rounds
    assert found["activation_sparsity"] == pytest.approx(
        metrics.ActivationSparsity()(model, preds, (x, preds))
    )
