"""Golden vectors of the paper's JAX code: where they lie, and how its names and options map to lrnn's.

The files and their origin are described in golden/README.md. The mapping is strict: an option, a value or an
array it does not know is an error that names it, so that no part of a file goes unchecked in silence.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from lrnn.nn import S5Options, SequenceModelConfig


def golden_dir() -> Path:
    """The directory that holds golden_s5/: LRNN_GOLDEN, else the subset beside this file."""
    root = Path(os.environ.get("LRNN_GOLDEN") or Path(__file__).parent / "golden")
    if not (root / "golden_s5" / "index.json").is_file():
        raise FileNotFoundError(f"LRNN_GOLDEN: {root} has no golden_s5/index.json")
    return root / "golden_s5"


@dataclass(frozen=True)
class Golden:
    """One listed file: its entry in the index and its arrays by name ("/" separates levels)."""

    entry: dict

    @property
    def name(self) -> str:
        return self.entry["name"]

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        with np.load(golden_dir() / self.entry["file"], allow_pickle=False) as file:
            arrays = dict(file)
        if self.entry.get("arrays", arrays).keys() != arrays.keys():
            raise ValueError(f"{self.entry['file']}: its arrays are not those that the index lists")
        return arrays

    def __getitem__(self, key: str) -> torch.Tensor:
        return torch.from_numpy(self.arrays[key])

    def under(self, prefix: str) -> dict[str, torch.Tensor]:
        """The arrays below `prefix`, without it."""
        return {k[len(prefix) + 1 :]: self[k] for k in self.arrays if k.startswith(prefix + "/")}


def listed(*kinds: str) -> list[Golden]:
    """Every file of these kinds ("eval", "hippo", "train", ...) that index.json or index2.json lists."""
    entries = json.loads((golden_dir() / "index.json").read_text())["files"]
    more = golden_dir() / "index2.json"
    if more.is_file():
        entries += json.loads(more.read_text())
    return [Golden(entry) for entry in entries if entry["kind"] in kinds]


def _choose(options: dict, field: str, table: dict):
    """`table[options[field]]`, or an error that names the field and the value found."""
    value = options.pop(field)
    if value not in table:
        raise ValueError(f"golden config: {field} is {value!r}, expected one of {list(table)}")
    return table[value]


def model_config(reference: dict) -> SequenceModelConfig:
    """lrnn's configuration of the model that the reference's constructor options describe."""
    options = dict(reference)
    options.pop("associative_scan")  # the order of summation only
    ssm = S5Options(
        discretization=_choose(options, "discretization", {"zoh": "zoh", "bilinear": "bilinear"}),
        c_init=options.pop("C_init"),
        dt_min=options.pop("dt_min"),
        dt_max=options.pop("dt_max"),
        conj_sym=options.pop("conj_sym"),
        clip_eigs=options.pop("clip_eigs"),
        bidirectional=options.pop("bidirectional"),
        step_rescale=options.pop("step_rescale"),
    )
    norm = _choose(options, "batchnorm", {True: "batch", False: "layer"})
    prenorm = options.pop("prenorm")
    if options.pop("fuse_batchnorm_linear"):
        if norm != "batch" or not prenorm:
            raise ValueError(
                "golden config: fuse_batchnorm_linear without batchnorm and prenorm has no like here"
            )
        norm = "frozen_batch"
    head = _choose(options, "task", {"regression": "regression", "classification": "classification"})
    pooling = _choose(options, "mode", {"pool": "mean", "last": "last"})
    exponent = options.pop("quant_input")
    config = SequenceModelConfig(
        d_in=options.pop("d_in"),
        d_out=options.pop("d_out"),
        d_model=options.pop("d_model"),
        d_state=options.pop("ssm_size_base"),
        blocks=options.pop("blocks"),
        n_layers=options.pop("n_layers"),
        relu=_choose(options, "relufication", {True: "pair", False: "none"}),
        glu=options.pop("glu_variant"),
        norm=norm,
        prenorm=prenorm,
        dropout=options.pop("p_dropout"),
        norm_momentum=1 - options.pop("bn_momentum"),  # the reference's is the share that stays
        head=head,
        pooling=pooling,
        input_exponent=exponent if head == "regression" else None,  # the reference's classifier ignores it
        ssm=ssm,
    )
    if options:
        raise ValueError(f"golden config: unknown field {next(iter(options))!r}")
    return config


def _same(tensor: torch.Tensor) -> torch.Tensor:
    return tensor


_LEAVES = {
    "kernel": ("weight", torch.t),  # (in, out) there, (out, in) here
    "scale": ("weight", _same),
    "mean": ("running_mean", _same),
    "var": ("running_var", _same),
    "log_step": ("log_step", lambda column: column[:, 0]),
    "C1": ("C", _same),
    "C2": ("C", _same),
    **{name: (name, _same) for name in ("bias", "Lambda_re", "Lambda_im", "B", "C", "D")},
}
_MODULES = {"mixer": "ssm", "norm": "norm", "out1": "out1", "out2": "out2"}


def _module(path: tuple[str, ...]) -> str:
    """lrnn's module of a path of the reference: ("encoder", "layers_0", "mixer") is "blocks.0.ssm"."""
    match path:
        case ("decoder",):
            return "decoder"
        case ("encoder", "encoder"):
            return "encoder"
        case ("encoder", layer, name) if layer.startswith("layers_") and name in _MODULES:
            return f"blocks.{layer.removeprefix('layers_')}.{_MODULES[name]}"
    raise ValueError(f"golden file: unknown module {'/'.join(path)!r}")


def lrnn_name(key: str) -> str:
    """lrnn's name of a parameter or statistic of the reference."""
    *path, leaf = key.split("/")
    if leaf not in _LEAVES:
        raise ValueError(f"golden file: unknown parameter {key!r}")
    return f"{_module(tuple(path))}.{_LEAVES[leaf][0]}"


def named_tensors(tree: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A tree of the reference (parameters, gradients, statistics) under lrnn's names and in its shapes."""
    out = {}
    for key in sorted(tree):
        name, leaf = lrnn_name(key), key.rpartition("/")[2]
        value = _LEAVES[leaf][1](tree[key])
        # C1 and C2 are the forward and backward halves of a bidirectional layer, side by side on its states.
        out[name] = torch.cat([out[name], value], dim=1) if leaf == "C2" else value
    return out
