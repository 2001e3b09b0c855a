"""What of a model is quantised: weights, and those values that an integer program rounds to few bits.

Such a value, a *message*, is one that a matrix, a diagonal map, a table, a product, a norm or a mean reads.
What only sums and recurrences read stays wider and is left alone. Before a ReLU a value saturates where it
does after it, so that rounding after it is enough.

Names are those of the values of the Program that `lrnn.compile` makes of a SequenceModel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from torch import nn
from torch.nn.utils import parametrize

from lrnn.nn import S5, BatchNorm, S5Block, SequenceModel
from lrnn.prune.weights import matches, parameters_of

Kind = Literal["message", "carried", "state", "sigmoid", "before_sigmoid"]
Role = Literal["matrix", "input", "output", "diagonal", "decay", "scale"]
_NORMS = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.modules.batchnorm._NormBase, BatchNorm)


@dataclass(frozen=True)
class Site:
    """One place where a value can be had.

    Attributes:
        name: of the value.
        owner: a module that it enters or leaves.
        side: which of the two.
        kind: "message" is rounded; so is "carried", what a recurrence carries and a matrix reads, and
            "sigmoid" and "before_sigmoid", whose ranges are bounded by that function; "state" is only
            bounded.
        narrow: matrices read it here, see Scheme.message_bits.
        again: it was rounded at another site already, and differs here at most by being narrow.
    """

    name: str
    owner: nn.Module
    side: Literal["input", "output"]
    kind: Kind = "message"
    narrow: bool = False
    again: bool = False


@dataclass(frozen=True)
class Target:
    """One weight.

    Attributes:
        owner: the module.
        attribute: the parameter's name there.
        role: "matrix"; of an S5 "input" (B), "output" (C), "diagonal" (D), "decay" (Lambda_re and Lambda_im);
            "scale" of a batch norm that is folded into nothing and runs as a diagonal map.
        norm: a batch norm that is folded into it, or that it is part of, or None.
    """

    owner: nn.Module
    attribute: str
    role: Role
    norm: BatchNorm | None = None


@dataclass
class Found:
    """What is quantised below a module."""

    sites: list[Site] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)

    def add_model(self, model: SequenceModel, path: str) -> None:
        """Encoder, blocks, decoder."""
        config = model.config
        rectified = config.relu != "none"
        source = _join(path, "input" if config.input_exponent is None else "round")
        self.sites.append(Site(source, model.encoder, "input", narrow=True))
        last, owner = ("relu", model.relu) if rectified else ("encoder", model.encoder)
        x = Site(_join(path, last), owner, "output")
        self.sites.append(x)
        for i, block in enumerate(model.blocks):
            x = self.add_block(block, _join(path, f"blocks.{i}"), x)
        folded = None
        if isinstance(x.owner, BatchNorm) and x.side == "output" and not model.pools:
            folded = x.owner  # the decoder alone reads the last norm, and takes it in
            self.sites.remove(x)
            self.targets.remove(Target(folded, "weight", "scale", folded))
        elif not model.pools:  # a model pools whole sequences, its program from frame to frame: another range
            self.sites.append(replace(x, owner=model.decoder, side="input", narrow=True, again=True))
        self.targets.append(Target(model.encoder, "weight", "matrix"))
        self.targets.append(Target(model.decoder, "weight", "matrix", folded))

    def add_block(self, block: S5Block, path: str, x: Site) -> Site:
        """Norm, S5, activation, gate, residual; returns the site of what leaves it."""
        config = block.config
        rectified = config.relu != "none"
        batch_norm = block.norm if isinstance(block.norm, BatchNorm) else None
        if config.prenorm and batch_norm is None:
            x = Site(_join(path, "norm"), block.norm, "output")
            self.sites.append(x)
        reader = block.norm if config.prenorm and batch_norm is not None else block.ssm
        self.sites.append(replace(x, owner=reader, side="input", narrow=True, again=True))
        self.add_s5(block.ssm, _join(path, "ssm"), batch_norm if config.prenorm else None)
        if not rectified or config.glu == "half2":
            self.sites.append(Site(_join(path, "ssm"), block.ssm, "output"))
        if block.out2 is not None:
            self._add_gate(block, path)
        if not config.prenorm:
            self.sites.append(Site(_join(path, "residual"), block.norm, "input"))
            if batch_norm is not None:
                self.targets.append(Target(batch_norm, "weight", "scale", batch_norm))
        if rectified:
            out = Site(_join(path, "relu"), block.relu, "output")
        elif config.prenorm:
            out = Site(_join(path, "residual"), block.relu, "output")
        else:
            out = Site(_join(path, "norm"), block.norm, "output")
        self.sites.append(out)
        return out

    def _add_gate(self, block: S5Block, path: str) -> None:
        activation = Site(_join(path, "activation"), block.activation, "output")
        self.sites.append(activation)
        for name in ("out1", "out2"):
            layer = getattr(block, name)
            if layer is not None:
                self.sites.append(replace(activation, owner=layer, side="input", narrow=True, again=True))
                kind = "message" if name == "out1" else "before_sigmoid"
                self.sites.append(Site(_join(path, name), layer, "output", kind))
                self.targets.append(Target(layer, "weight", "matrix"))
        self.sites.append(Site(_join(path, "sigmoid"), block.sigmoid, "output", "sigmoid"))

    def add_s5(self, ssm: S5, path: str, norm: BatchNorm | None = None) -> None:
        """State, and what C reads of it."""
        self.sites.append(Site(_join(path, "state"), ssm.state_relu, "input", "state"))
        if ssm.relu == "none":
            self.sites.append(Site(_join(path, "state"), ssm.state_relu, "output", "carried", narrow=True))
        else:
            self.sites.append(Site(_join(path, "relu"), ssm.state_relu, "output", narrow=True))
        self.targets += [
            Target(ssm, "B", "input", norm),
            Target(ssm, "C", "output"),
            Target(ssm, "D", "diagonal", norm),
            Target(ssm, "Lambda_re", "decay"),
            Target(ssm, "Lambda_im", "decay"),
        ]


def find(module: nn.Module, exclude: Sequence[str] = ()) -> Found:
    """What is quantised below a module: SequenceModels, and S5Blocks, S5s and Linear layers outside of them.

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
            found.add_model(part, path)
            covered.add(path)
        elif isinstance(part, S5Block | S5 | nn.Linear):
            _add_part(found, part, path)
            covered.add(path)
    found.sites = [site for site in found.sites if not _is_left_out(paths[id(site.owner)], exclude)]
    found.targets = [
        t for t in found.targets if not _is_left_out(_join(paths[id(t.owner)], t.attribute), exclude)
    ]
    return found


def _add_part(found: Found, part: S5Block | S5 | nn.Linear, path: str) -> None:
    """What stands outside of a SequenceModel: what it reads is a value of its own."""
    x = Site(_join(path, "input"), part, "input", narrow=not isinstance(part, S5Block))
    found.sites.append(x)
    if isinstance(part, S5Block):
        found.add_block(part, path, x)
    elif isinstance(part, S5):
        found.add_s5(part, path)
    else:
        found.targets.append(Target(part, "weight", "matrix"))


def _is_left_out(name: str, exclude: Sequence[str]) -> bool:
    return any(matches(name, pattern) for pattern in exclude)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _kind(module: nn.Module) -> str:
    return parametrize.type_before_parametrizations(module).__name__
