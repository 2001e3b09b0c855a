"""Finding what is quantised below a module."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn
from torch.nn.utils import parametrize

from lrnn.nn import HGRN, S5, BatchNorm, HGRNBlock, HGRNStack, LanguageModel, S5Block, SequenceModel
from lrnn.prune.weights import matches, parameters_of
from lrnn.quant.found import Found, Site, Target, join
from lrnn.quant.sites_hgrn import add_hgrn, add_hgrn_block, add_stack
from lrnn.quant.sites_language import add_language_model
from lrnn.quant.sites_s5 import add_block, add_model, add_s5

_PARTS = (S5Block, S5, HGRNStack, HGRNBlock, HGRN, nn.Linear)
_NORMS = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.modules.batchnorm._NormBase, BatchNorm)


def find(module: nn.Module, exclude: Sequence[str] = ()) -> Found:
    """What is quantised below a module: SequenceModels and LanguageModels, and outside of them HGRNStacks,
    blocks and layers of both kinds, and Linear layers.

    Args:
        module: any module.
        exclude: globs of names of parameters or modules to leave in float; `*` crosses dots.

    Raises:
        ValueError: a module has weights of a kind that has no quantised form and is not excluded, a pattern
            matches nothing, or nothing is found.
    """
    if isinstance(exclude, str):
        raise TypeError(f"exclude is the string {exclude!r}, expected a sequence of globs")
    parameters = {name: (owner, attribute) for name, owner, attribute in parameters_of(module)}
    for pattern in exclude:
        if not any(matches(name, pattern) for name in parameters):
            raise ValueError(
                f"exclude has the pattern {pattern!r}, which matches no parameter of {_kind(module)}"
            )
    found = walk(module, exclude)
    known = {(id(target.owner), target.attribute) for target in found.targets}
    for name, (owner, attribute) in parameters.items():
        plain = isinstance(owner, _NORMS) or getattr(owner, attribute).ndim < 2 or _is_left_out(name, exclude)
        if not plain and (id(owner), attribute) not in known:
            raise ValueError(
                f"{name} belongs to a {_kind(owner)}, which has no quantised form; "
                "exclude it to leave it in float"
            )
    if not found.targets:
        raise ValueError(f"{_kind(module)} has no weight to quantise")
    return found


def walk(module: nn.Module, exclude: Sequence[str] = ()) -> Found:
    """`find` without its checks."""
    found, covered = Found(), set()
    paths = {id(part): path for path, part in module.named_modules()}
    for path, part in module.named_modules():
        if path and path.rpartition(".")[0] in covered:
            covered.add(path)
        elif path and _is_left_out(path, exclude):
            continue
        elif isinstance(part, SequenceModel):
            add_model(found, part, path)
            covered.add(path)
        elif isinstance(part, LanguageModel):
            add_language_model(found, part, path)
            covered.add(path)
        elif isinstance(part, _PARTS):
            _add_part(found, part, path)
            covered.add(path)
    found.sites = [site for site in found.sites if not _is_left_out(paths[id(site.owner)], exclude)]
    found.targets = [
        t for t in found.targets if not _is_left_out(join(paths[id(t.owner)], t.attribute), exclude)
    ]
    return found


def _add_part(found: Found, part: nn.Module, path: str) -> None:
    """What stands outside of a model: what it reads is a value of its own."""
    narrow = not isinstance(part, (S5Block, HGRNStack, HGRNBlock))  # a matrix reads it
    x = Site(join(path, "frames" if isinstance(part, HGRN) else "input"), part, "input", narrow=narrow)
    found.sites.append(x)
    if isinstance(part, S5Block):
        add_block(found, part, path, x)
    elif isinstance(part, S5):
        add_s5(found, part, path)
    elif isinstance(part, HGRNStack):
        add_stack(found, part, path)
    elif isinstance(part, HGRNBlock):
        add_hgrn_block(found, part, path, bounded=False)
    elif isinstance(part, HGRN):
        add_hgrn(found, part, path, bounded=False)
    else:
        found.targets.append(Target(part, "weight", "matrix"))


def _is_left_out(name: str, exclude: Sequence[str]) -> bool:
    return any(matches(name, pattern) for pattern in exclude)


def _kind(module: nn.Module) -> str:
    return parametrize.type_before_parametrizations(module).__name__
