"""`.net` files: HDF5 as lava-dl's slayer writes it and netx reads it, with what its integers mean beside it.

netx reads the group "layer" and ignores the rest. Everything of ours is in the group "lrnn": one JSON text.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

import numpy as np

from lrnn.export.netx.stack import Layer, Stack
from lrnn.files import written_whole
from lrnn.program.fixed.format import Format

FORMAT, VERSION = "lrnn-netx", 1
SEMANTICS = "y = max(W x + 64 b, 0) >> 6, rounding down; messages are differences of y from step to step"


def write_net(stack: Stack, path: str | os.PathLike) -> None:
    """Write one stack as a file that `lava.lib.dl.netx.hdf5.Network` loads, whole or not at all."""
    h5py = _h5py()
    # written_whole holds the lock that HDF5 would take.
    with written_whole(path) as temporary, h5py.File(temporary, "w", locking=False) as file:
        layers = file.create_group("layer")
        _write_neuron(layers.create_group("0"), b"input", stack.input_width)
        for i, layer in enumerate(stack.layers, 1):
            group = layers.create_group(str(i))
            _write_neuron(group, b"dense", len(layer.bias))
            group.create_dataset("weight", data=layer.weight.astype(np.int8), compression="gzip")
            group["bias"] = layer.bias.astype(np.int32)
        file.create_group("lrnn")["stack"] = json.dumps(describe(stack))


def _write_neuron(group, kind: bytes, width: int) -> None:
    group.create_dataset("type", (1,), "S10", [kind])
    group["shape"] = np.array([width])
    group.create_dataset("neuron/type", (1,), "S10", [b"SDNN"])
    group["neuron/vThMant"] = np.array(0)


def describe(stack: Stack) -> dict:
    """What the integers of a file mean, in plain values."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "semantics": SEMANTICS,
        "source": stack.source,
        "value": stack.value,
        "nodes": [layer.node for layer in stack.layers],
        "input": asdict(stack.input),
        "exponent": stack.exponent,
        "offset": stack.offset,
        "lag": stack.lag,
    }


def read_net(path: str | os.PathLike) -> Stack:
    """Read a file that `write_net` wrote.

    Raises:
        FileNotFoundError, or ValueError that names the file and what was found in it.
    """
    h5py = _h5py()
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        with h5py.File(path) as file:
            return _read(file, path)
    except OSError as error:
        raise ValueError(f"{path}: not an HDF5 file ({error})") from None


def _read(file, path) -> Stack:
    if "lrnn/stack" not in file or "layer" not in file:
        raise ValueError(f"{path}: found no group 'lrnn', expected a .net file that lrnn wrote")
    try:
        meta = json.loads(file["lrnn/stack"][()])
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: lrnn/stack is not JSON ({error})") from None
    found = (meta.get("format"), meta.get("version")) if isinstance(meta, dict) else None
    if found != (FORMAT, VERSION):
        raise ValueError(f"{path}: found format and version {found}, expected {(FORMAT, VERSION)}")
    try:
        layers = tuple(
            Layer(node, file[f"layer/{i}/weight"][()], file[f"layer/{i}/bias"][()].astype(np.int64))
            for i, node in enumerate(meta["nodes"], 1)
        )
        read = Format(**meta["input"])
        return Stack(layers, meta["source"], meta["value"], read, meta["exponent"], meta["offset"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: incomplete ({error})") from None


def _h5py():
    try:
        import h5py
    except ImportError:
        raise ImportError("netx files are HDF5: they need h5py (pip install h5py)") from None
    return h5py
