"""Where the values and weights of a LanguageModel are, in the order of lrnn.nn's language.py and block.py."""

from __future__ import annotations

from dataclasses import replace

from lrnn.nn import BatchNorm, HGRNStack, LanguageModel
from lrnn.quant.found import Found, Site, Target, join
from lrnn.quant.sites_hgrn import add_stack
from lrnn.quant.sites_s5 import add_block


def add_language_model(found: Found, model: LanguageModel, path: str) -> None:
    """Embedding, blocks, the last norm, logits.

    Raises:
        ValueError: a tied matrix that takes in a batch norm where logits are made: it would need two grids.
    """
    stack, inside = model.stack, join(path, "stack")
    embedding = Site(join(path, "embedding"), model.embedding, "output")
    found.targets.append(Target(model.embedding, "weight", "matrix"))
    folded = None
    if isinstance(stack, HGRNStack):
        found.sites.append(embedding)
        add_stack(found, stack, inside)
    else:
        rectified = stack.config.relu != "none"
        x = Site(join(inside, "relu"), stack.relu, "output") if rectified else embedding
        found.sites.append(x)
        for i, block in enumerate(stack.blocks):
            x = add_block(found, block, join(inside, f"blocks.{i}"), x)
        folded = stack.norm if isinstance(stack.norm, BatchNorm) else None
    if folded is None:
        found.sites.append(Site(join(inside, "norm"), stack.norm, "output", narrow=True))
    elif model.head is None:
        raise ValueError(
            "a tied embedding behind a batch norm needs two grids, expected a layer norm or a head"
        )
    else:
        found.sites.append(replace(x, owner=stack.norm, side="input", narrow=True, again=True))
    if model.head is not None:
        found.targets.append(Target(model.head, "weight", "matrix", folded))
