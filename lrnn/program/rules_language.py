"""How a language model becomes nodes, in the order of lrnn.nn's language.py and block.py."""

from __future__ import annotations

from lrnn.nn import LanguageModel, S5Stack
from lrnn.program import nodes as op
from lrnn.program.compiler import Graph, array, inside, lowers


@lowers(LanguageModel, input_width=lambda model: 1)
def language_model(graph: Graph, model: LanguageModel, path: str, x: str) -> str:
    """Embedding, blocks, logits; a tied matrix stands in the program twice, as it is read twice."""
    x = graph.lower(model.embedding, inside(path, "embedding"), x)
    x = graph.lower(model.stack, inside(path, "stack"), x)
    return graph.add(op.Linear(inside(path, "head"), (x,), array(model.output_matrix)))


@lowers(S5Stack)
def s5_stack(graph: Graph, stack: S5Stack, path: str, x: str) -> str:
    """ReLU, blocks, norm."""
    x = graph.lower(stack.relu, f"{path}.relu", x)
    for i, block in enumerate(stack.blocks):
        x = graph.lower(block, f"{path}.blocks.{i}", x)
    return graph.lower(stack.norm, f"{path}.norm", x)
