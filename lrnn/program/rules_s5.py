"""How an S5 model becomes nodes, in the order of lrnn.nn's model.py, block.py and s5.py."""

from __future__ import annotations

import numpy as np
import torch

from lrnn.nn import S5, S5Block, SequenceModel
from lrnn.program import nodes as op
from lrnn.program.compiler import Graph, array, lowers


@lowers(SequenceModel, input_width=lambda model: model.config.d_in)
def sequence_model(graph: Graph, model: SequenceModel, path: str, x: str) -> str:
    """Encoder, blocks, decoder."""
    config = model.config
    if config.input_exponent is not None:
        x = graph.add(op.Round("round", (x,), config.input_exponent))
    x = graph.lower(model.encoder, "encoder", x)
    if config.relu != "none":
        x = graph.add(op.Relu("relu", (x,)))
    for i, block in enumerate(model.blocks):
        x = graph.lower(block, f"blocks.{i}", x)
    if model.pools:
        x = graph.add(op.MeanPool("pool", (x,), config.d_model))
    x = graph.lower(model.decoder, "decoder", x)
    return x if config.head == "regression" else graph.add(op.LogSoftmax("log_softmax", (x,)))


@lowers(S5Block)
def s5_block(graph: Graph, block: S5Block, path: str, x: str) -> str:
    """Norm, S5, activation, gate, residual."""
    config = block.config
    y = graph.lower(block.norm, f"{path}.norm", x) if config.prenorm else x
    y = graph.lower(block.ssm, f"{path}.ssm", y)
    y = graph.add(op.Add(f"{path}.residual", (x, _gate(graph, block, path, y))))
    if not config.prenorm:
        y = graph.lower(block.norm, f"{path}.norm", y)
    return graph.add(op.Relu(f"{path}.relu", (y,))) if config.relu != "none" else y


def _gate(graph: Graph, block: S5Block, path: str, y: str) -> str:
    activation = op.Relu if block.config.relu != "none" else op.Gelu
    x1 = graph.add(activation(f"{path}.activation", (y,)))
    if block.out2 is None:
        return x1
    gate = graph.add(op.Sigmoid(f"{path}.sigmoid", (graph.lower(block.out2, f"{path}.out2", x1),)))
    if block.out1 is not None:
        gated = graph.lower(block.out1, f"{path}.out1", x1)
    else:
        gated = x1 if block.config.glu == "half1" else y
    return graph.add(op.Product(f"{path}.gate", (gated, gate)))


@lowers(S5)
def s5(graph: Graph, ssm: S5, path: str, x: str) -> str:
    """B_bar, the recurrence, its ReLU, C, and D beside them.

    lambda_bar and the matrices are those the layer itself uses, not recomputed in float64: one unit in the
    last place of lambda_bar grows over thousands of frames in a slow state.
    """
    if ssm.options.bidirectional:
        raise ValueError(f"{path}: a bidirectional S5 reads the future and cannot stream")
    lambda_bar, gain = ssm.discretize()
    h = graph.add(op.Linear(f"{path}.B", (x,), array(ssm.input_matrix(gain))))
    h = graph.add(op.Diagonal(f"{path}.state", (h,), array(torch.view_as_real(lambda_bar))))
    if ssm.relu != "none":
        h = graph.add((op.Relu if ssm.relu == "parts" else op.PairRelu)(f"{path}.relu", (h,)))
    y = graph.add(op.Linear(f"{path}.C", (h,), array(ssm.output_matrix())))
    D = array(ssm.D)
    skip = graph.add(op.Affine(f"{path}.D", (x,), D, np.zeros_like(D)))
    return graph.add(op.Add(path, (y, skip)))
