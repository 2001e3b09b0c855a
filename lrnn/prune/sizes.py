"""Sizes that a model states beside its tensors: brought in line with them after units were removed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from lrnn.nn import (
    HGRN,
    S5,
    BatchNorm,
    HGRNBlock,
    HGRNStack,
    LanguageModel,
    S5Block,
    S5BlockConfig,
    SequenceModel,
)
from lrnn.prune.channels import scale_eps
from lrnn.prune.dependency import Example


def record_sizes(model: nn.Module) -> None:
    """Make the configurations of lrnn's blocks, and of what stacks them, say what sizes their layers have."""
    for module in model.modules():
        if isinstance(module, S5Block):
            ssm = module.ssm
            sizes = {"d_model": ssm.d_model, "d_state": ssm.d_state, "blocks": ssm.blocks}
            module.config = replace(module.config, **sizes)
        elif isinstance(module, HGRNBlock):
            sizes = {"d_state": module.mixer.d_state, "d_hidden": module.glu.up_proj.out_features}
            module.config = replace(module.config, d_model=module.mixer.d_model, **sizes)
    for module in model.modules():
        config, blocks = getattr(module, "config", None), getattr(module, "blocks", None)
        if not isinstance(blocks, nn.ModuleList):
            continue
        if isinstance(config, S5BlockConfig) and all(isinstance(b, S5Block) for b in blocks):
            each = {(b.config.d_state, b.config.blocks) for b in blocks}
            d_state = tuple(b.config.d_state for b in blocks)
            same = {"d_state": d_state[0], "blocks": blocks[0].config.blocks}
            several = {"d_state": d_state, "blocks": 1}
            sizes = same if len(each) == 1 else several
            module.config = replace(config, d_model=blocks[0].config.d_model, **sizes)
        elif isinstance(module, HGRNStack):
            d_hidden = tuple(b.config.d_hidden for b in blocks)
            d_hidden = d_hidden[0] if len(set(d_hidden)) == 1 else d_hidden
            module.config = replace(blocks[0].config, d_hidden=d_hidden)
    if isinstance(model, LanguageModel):
        model.config = replace(model.config, block=model.stack.config)


def example_of(model: nn.Module, batch: int = 2, time: int = 5) -> Example:
    """Sequences for one of lrnn's models to run on; ValueError for any other module."""
    seeded = torch.Generator().manual_seed(0)
    parameter = next(model.parameters())
    if isinstance(model, LanguageModel):
        tokens = torch.randint(model.config.vocabulary, (batch, time), generator=seeded)
        return tokens.to(parameter.device)
    if isinstance(model, SequenceModel):
        width = model.config.d_in
    elif isinstance(model, HGRNStack):
        width = model.config.d_model
    else:
        raise ValueError(
            f"example: found None for a {type(model).__name__}, expected a tensor that it runs on, or the "
            "tuple of its arguments"
        )
    return torch.randn(batch, time, width, generator=seeded).to(parameter)


def adopt_sizes(model: nn.Module, state_dict: Mapping[str, Tensor]) -> None:
    """Give the layers of a fresh model the sizes of a shrunk one's state dict, so that it can be loaded.

        model = Mine()
        lrnn.prune.adopt_sizes(model, state)
        model.load_state_dict(state)

    Args:
        model: as its class makes it; changed in place, its weights are no longer of use.
        state_dict: of a model of the same class after `shrink` or `structured`.

    Raises:
        ValueError: a tensor has no counterpart, or another number of axes.
    """
    for name, value in state_dict.items():
        path, _, attribute = name.rpartition(".")
        try:
            owner = model.get_submodule(path)
            old = owner._parameters.get(attribute)
            old = owner._buffers[attribute] if old is None else old
        except (AttributeError, KeyError):
            raise ValueError(
                f"state_dict has {name}, but {type(model).__name__} has no such tensor"
            ) from None
        if old.ndim != value.ndim:
            raise ValueError(f"{name} has {value.ndim} axes, expected {old.ndim}")
        if old.shape != value.shape:
            new = old.detach().new_empty(value.shape)
            is_parameter = attribute in owner._parameters
            setattr(owner, attribute, nn.Parameter(new, old.requires_grad) if is_parameter else new)
    in_stacks = {m for stack in model.modules() if isinstance(stack, HGRNStack) for m in stack.modules()}
    for module in model.modules():
        _state_sizes(module, module in in_stacks)
    record_sizes(model)


def _state_sizes(module: nn.Module, in_stack: bool) -> None:
    """The numbers that a layer keeps beside its tensors, from their shapes; a stack's eps is one for all."""
    if isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, nn.modules.conv._ConvNd) and not module.transposed:
        module.out_channels = module.weight.shape[0]
        module.in_channels = module.weight.shape[1] * module.groups
    elif isinstance(module, nn.Embedding):
        module.num_embeddings, module.embedding_dim = module.weight.shape
    elif isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
        module.num_features = len(module.running_mean)
    elif isinstance(module, BatchNorm):
        module.d = len(module.weight)
    elif isinstance(module, (nn.LayerNorm, nn.RMSNorm)) and module.weight is not None:
        module.normalized_shape = tuple(module.weight.shape)
    elif isinstance(module, S5):
        P, module.d_model, _ = module.B.shape
        d_state = P * (2 if module.options.conj_sym else 1)
        module.blocks = module.blocks if module.d_state == d_state else 1
        module.d_state = d_state
    elif isinstance(module, HGRN):
        was = module.d_state
        module.d_state, module.d_model = module.f_proj.weight.shape
        if not (in_stack or isinstance(module.norm, nn.LayerNorm)):
            scale_eps(module, was / module.d_state)
