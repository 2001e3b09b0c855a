"""Where the values and weights of a SequenceModel and its S5 blocks are, in the order of lrnn.nn."""

from __future__ import annotations

from dataclasses import replace

from lrnn.nn import S5, BatchNorm, S5Block, SequenceModel
from lrnn.quant.found import Found, Site, Target, join


def add_model(found: Found, model: SequenceModel, path: str) -> None:
    """Encoder, blocks, decoder."""
    config = model.config
    rectified = config.relu != "none"
    source = join(path, "input" if config.input_exponent is None else "round")
    found.sites.append(Site(source, model.encoder, "input", narrow=True))
    last, owner = ("relu", model.relu) if rectified else ("encoder", model.encoder)
    x = Site(join(path, last), owner, "output")
    found.sites.append(x)
    for i, block in enumerate(model.blocks):
        x = add_block(found, block, join(path, f"blocks.{i}"), x)
    folded = None
    if isinstance(x.owner, BatchNorm) and x.side == "output" and not model.pools:
        folded = x.owner  # the decoder alone reads the last norm, and takes it in
        found.sites.remove(x)
        found.targets.remove(Target(folded, "weight", "scale", folded))
    elif not model.pools:  # a model pools whole sequences, its program from frame to frame: another range
        found.sites.append(replace(x, owner=model.decoder, side="input", narrow=True, again=True))
    found.targets.append(Target(model.encoder, "weight", "matrix"))
    found.targets.append(Target(model.decoder, "weight", "matrix", folded))


def add_block(found: Found, block: S5Block, path: str, x: Site) -> Site:
    """Norm, S5, activation, gate, residual; returns the site of what leaves it."""
    config = block.config
    rectified = config.relu != "none"
    batch_norm = block.norm if isinstance(block.norm, BatchNorm) else None
    if config.prenorm and batch_norm is None:
        x = Site(join(path, "norm"), block.norm, "output")
        found.sites.append(x)
    reader = block.norm if config.prenorm and batch_norm is not None else block.ssm
    found.sites.append(replace(x, owner=reader, side="input", narrow=True, again=True))
    add_s5(found, block.ssm, join(path, "ssm"), batch_norm if config.prenorm else None)
    if not rectified or config.glu == "half2":
        found.sites.append(Site(join(path, "ssm"), block.ssm, "output"))
    if block.out2 is not None:
        _add_gate(found, block, path)
    if not config.prenorm:
        found.sites.append(Site(join(path, "residual"), block.norm, "input"))
        if batch_norm is not None:
            found.targets.append(Target(batch_norm, "weight", "scale", batch_norm))
    if rectified:
        out = Site(join(path, "relu"), block.relu, "output")
    elif config.prenorm:
        out = Site(join(path, "residual"), block.relu, "output")
    else:
        out = Site(join(path, "norm"), block.norm, "output")
    found.sites.append(out)
    return out


def _add_gate(found: Found, block: S5Block, path: str) -> None:
    activation = Site(join(path, "activation"), block.activation, "output")
    found.sites.append(activation)
    for name in ("out1", "out2"):
        layer = getattr(block, name)
        if layer is not None:
            found.sites.append(replace(activation, owner=layer, side="input", narrow=True, again=True))
            kind = "message" if name == "out1" else "before_sigmoid"
            found.sites.append(Site(join(path, name), layer, "output", kind))
            found.targets.append(Target(layer, "weight", "matrix"))
    found.sites.append(Site(join(path, "sigmoid"), block.sigmoid, "output", "sigmoid"))


def add_s5(found: Found, ssm: S5, path: str, norm: BatchNorm | None = None) -> None:
    """State, and what C reads of it."""
    found.sites.append(Site(join(path, "state"), ssm.state_relu, "input", "state"))
    if ssm.relu == "none":
        found.sites.append(Site(join(path, "state"), ssm.state_relu, "output", "carried", narrow=True))
    else:
        found.sites.append(Site(join(path, "relu"), ssm.state_relu, "output", narrow=True))
    found.targets += [
        Target(ssm, "B", "input", norm),
        Target(ssm, "C", "output"),
        Target(ssm, "D", "diagonal", norm),
        Target(ssm, "Lambda_re", "decay"),
        Target(ssm, "Lambda_im", "decay"),
    ]
