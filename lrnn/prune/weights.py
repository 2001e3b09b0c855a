"""Which weights of a module are pruned."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from lrnn.nn import S5
from lrnn.prune import mask

# Parameters that set time constants and multiply nothing: a zero there is no saving.
_TIME_CONSTANTS = ("log_step", "lower_bounds")
_NORMS = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.modules.batchnorm._NormBase)


@dataclass(frozen=True)
class Weight:
    """One tensor that is pruned.

    Attributes:
        names: as `named_parameters` of the plain module gives them; more than one where it is tied.
        places: the modules that use it and their attribute, in the same order.
    """

    names: tuple[str, ...]
    places: tuple[tuple[nn.Module, str], ...]

    @property
    def name(self) -> str:
        """The first of its names, which stands for it."""
        return self.names[0]

    @property
    def dense(self) -> Tensor:
        """The parameter that the optimiser sees: under a mask, its shadow."""
        module, attribute = self.places[0]
        if parametrize.is_parametrized(module, attribute):
            return module.parametrizations[attribute].original
        return getattr(module, attribute)

    @property
    def effective(self) -> Tensor:
        """What the module computes with."""
        module, attribute = self.places[0]
        return getattr(module, attribute).detach()


def find_weights(module: nn.Module, exclude: Sequence[str] = (), also: Sequence[str] = ()) -> list[Weight]:
    """Parameters of `module` with two axes or more, sorted by name; no biases, norms and time constants.

    Args:
        module: any module.
        exclude: globs; a parameter is left out where one matches its name, or that of a module it is in.
            `*` crosses dots. A tied parameter is left out by any of its names.
        also: attributes that are weights whatever their shape.

    Raises:
        ValueError that names the parameter or the pattern.
    """
    named = list(parameters_of(module))
    for pattern in exclude:
        if not any(matches(name, pattern) for name, *_ in named):
            raise ValueError(
                f"exclude has the pattern {pattern!r}, which matches no parameter of {_kind(module)}"
            )
    uses: dict[int, list[tuple[str, nn.Module, str]]] = {}
    for name, owner, attribute in named:
        if _is_candidate(owner, attribute, also):
            uses.setdefault(_identity(owner, attribute), []).append((name, owner, attribute))
    weights = [
        Weight(tuple(name for name, *_ in tied), tuple((owner, attribute) for _, owner, attribute in tied))
        for tied in uses.values()
        if not any(matches(name, pattern) for name, *_ in tied for pattern in exclude)
    ]
    if not weights:
        raise ValueError(f"{_kind(module)} has no parameter to prune (none with two axes or more is left)")
    for weight in weights:
        _check(weight)
    return sorted(weights, key=lambda weight: weight.name)


def match_overrides(weights: Sequence[Weight], overrides: Mapping[str, float]) -> dict[str, float]:
    """Sparsity by name of the weights that have one of their own; of several patterns the last one counts.

    Args:
        weights: what is pruned.
        overrides: sparsity by glob; one matches as in `find_weights`.

    Raises:
        ValueError that names a pattern which matches none of the weights.
    """
    fixed = {}
    for pattern, sparsity in overrides.items():
        matched = [w.name for w in weights if any(matches(name, pattern) for name in w.names)]
        if not matched:
            raise ValueError(f"overrides has the pattern {pattern!r}, which matches no weight that is pruned")
        fixed |= dict.fromkeys(matched, sparsity)
    return fixed


def parameters_of(module: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
    """Name, owner, attribute of every parameter; tied ones as often as used, masked ones by plain name."""
    for prefix, owner in module.named_modules():
        if "parametrizations" in prefix.split("."):
            continue
        attributes = [name for name, parameter in owner._parameters.items() if parameter is not None]
        if parametrize.is_parametrized(owner):
            attributes += list(owner.parametrizations)
        for attribute in attributes:
            yield f"{prefix}.{attribute}" if prefix else attribute, owner, attribute


def _is_candidate(owner: nn.Module, attribute: str, also: Sequence[str]) -> bool:
    if attribute in also:
        return True
    if isinstance(owner, _NORMS) or attribute in _TIME_CONSTANTS or attribute.startswith("bias"):
        return False
    if is_lazy(owner._parameters.get(attribute)):
        return True
    tensor = getattr(owner, attribute)
    return tensor.ndim > 1 and tensor.numel() > 0 and (tensor.is_floating_point() or tensor.is_complex())


def _identity(owner: nn.Module, attribute: str) -> int:
    """Equal for the uses of one tensor."""
    if parametrize.is_parametrized(owner, attribute):
        stack = owner.parametrizations[attribute]
        return id(getattr(stack, "original", stack))
    return id(owner._parameters[attribute])


def _check(weight: Weight) -> None:
    owner, attribute = weight.places[0]
    if is_lazy(owner._parameters.get(attribute)):
        raise ValueError(f"{weight.name} has no shape yet; run a batch through the module before pruning it")
    if parametrize.is_parametrized(owner, attribute):
        first = owner.parametrizations[attribute][0]
        if not isinstance(first, mask.Mask):
            raise ValueError(
                f"{weight.name} is parametrized by {type(first).__name__}; prune it before, or exclude it"
            )
    if len(weight.places) > 1 and any(isinstance(owner, S5) for owner, _ in weight.places):
        raise ValueError(
            f"{weight.name} is shared by several modules; a tied weight of an S5 cannot be pruned"
        )


def matches(name: str, pattern: str) -> bool:
    """Whether a glob matches a dotted name, or that of a module it is in."""
    parts = name.split(".")
    return any(fnmatchcase(".".join(parts[:n]), pattern) for n in range(1, len(parts) + 1))


def _kind(module: nn.Module) -> str:
    return parametrize.type_before_parametrizations(module).__name__
