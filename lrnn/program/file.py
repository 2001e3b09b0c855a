"""The file of a Program: one safetensors file whose metadata entry "lrnn" is the graph as JSON. No pickle.

    {"format": "lrnn-program", "version": 1, "meta": {...},
     "input": "input", "input_width": 257, "output": "decoder",
     "nodes": [{"name": "encoder", "op": "linear", "inputs": ["input"], "attributes": {},
                "tensors": {"weight": {"shape": [192, 257], "mask": "encoder.weight.mask",
                                       "values": "encoder.weight.values"},
                            "bias": "encoder.bias"}}, ...]}

A tensor is the name of an entry of the file or, where that is smaller, sparse: `mask` holds one bit for
each element in row-major order (the first in the lowest bit, uint8, padded with zero bits) and `values` the
elements whose bit is set. A float32 matrix that keeps a tenth of its weights takes 0.125 + 0.4 bytes per
element instead of 4, an int8 matrix 0.125 + 0.1: 2.25 bytes for each weight that is not zero. What counts as
zero is decided by the bits of an element, so that a round trip is exact.

Version 2 may hold the nodes of lrnn.program.fixed; what holds none is written as version 1.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import fields

import numpy as np
from safetensors.numpy import load_file, save_file

from lrnn.files import read_header, written_whole
from lrnn.program.fixed.nodes import FIXED_NODES
from lrnn.program.node import Node, tensor_fields
from lrnn.program.nodes import NODES
from lrnn.program.program import Program, attributes, tensors

FORMAT = "lrnn-program"
VERSION, FIXED_VERSION = 1, 2  # of files without and with fixed-point nodes

_KINDS = NODES | FIXED_NODES
_PLAIN = {"int": int, "float": (int, float), "str": str, "bool": bool}


def save(program: Program, path: str | os.PathLike) -> None:
    """Write a program, whole or not at all.

    Raises:
        ValueError: `program.meta` holds what JSON cannot.
    """
    stored: dict[str, np.ndarray] = {}
    header = {
        "format": FORMAT,
        "version": FIXED_VERSION if program.is_fixed else VERSION,
        "input": program.input,
        "input_width": program.input_width,
        "output": program.output,
        "nodes": [_pack_node(node, stored) for node in program.nodes],
        "meta": program.meta,
    }
    try:
        text = json.dumps(header, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"program.meta is not made of JSON values: {error}") from None
    with written_whole(path) as temporary:
        save_file(stored, temporary, metadata={"lrnn": text})


def load(path: str | os.PathLike) -> Program:
    """Read a program.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is damaged, of another kind or from a newer version; names the file and what
            was found.
    """
    header = read_header(path, FORMAT)
    version = header.get("version")
    if version not in (VERSION, FIXED_VERSION):
        raise ValueError(
            f"{path}: found version {version!r} of {FORMAT}, expected {VERSION} or {FIXED_VERSION}"
        )
    try:
        stored = load_file(path)
    except (TypeError, KeyError) as error:  # numpy has no bfloat16, and no 8-bit floats
        raise ValueError(f"{path}: a tensor's type is unknown to numpy ({error})") from None
    for name, array in stored.items():
        if array.dtype.type.__module__ != "numpy":  # where ml_dtypes is imported, as onnx does
            raise ValueError(f"{path}: a tensor's type is unknown to numpy ({name!r} is {array.dtype})")
    try:
        nodes = tuple(
            _unpack_node(_typed(record, dict, "a node"), stored) for record in _get(header, "nodes", list)
        )
        if stored:
            raise ValueError(f"tensor {min(stored)!r} belongs to no node")
        return Program(
            _get(header, "input", str),
            _get(header, "input_width", int),
            nodes,
            _get(header, "output", str),
            _get(header, "meta", dict),
        )
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _pack_node(node: Node, stored: dict[str, np.ndarray]) -> dict:
    return {
        "name": node.name,
        "op": node.op,
        "inputs": list(node.inputs),
        "attributes": attributes(node),
        "tensors": {k: _pack(f"{node.name}.{k}", v, stored) for k, v in tensors(node).items()},
    }


def _pack(key: str, value: np.ndarray, stored: dict[str, np.ndarray]) -> str | dict:
    value = np.ascontiguousarray(value)
    present = value.reshape(-1).view(f"u{value.itemsize}") != 0  # by bits, so that -0.0 survives
    mask = np.packbits(present, bitorder="little")
    if mask.nbytes + present.sum() * value.itemsize >= value.nbytes:
        stored[key] = value
        return key
    stored[f"{key}.mask"], stored[f"{key}.values"] = mask, value.reshape(-1)[present]
    return {"shape": list(value.shape), "mask": f"{key}.mask", "values": f"{key}.values"}


def _unpack_node(record: dict, stored: dict[str, np.ndarray]) -> Node:
    name = _get(record, "name", str)
    try:
        kind = _KINDS.get(_get(record, "op", str))
        if kind is None:
            raise ValueError(f"op {record['op']!r} is unknown, expected one of {', '.join(_KINDS)}")
        values = _checked_attributes(kind, _get(record, "attributes", dict))
        for field, entry in _get(record, "tensors", dict).items():
            if field not in tensor_fields(kind):
                raise ValueError(f"{kind.op} has no tensor {field!r}")
            values[field] = _unpack(entry, stored)
        missing = [k for k, f in tensor_fields(kind).items() if k not in values and f.default is not None]
        if missing:
            raise ValueError(f"tensor {missing[0]!r} of {kind.op} is missing")
        inputs = tuple(_typed(i, str, "an input") for i in _get(record, "inputs", list))
    except ValueError as error:
        raise ValueError(f"node {name!r}: {error}") from None
    return kind(name, inputs, **values)


def _checked_attributes(kind: type[Node], found: dict) -> dict:
    expected = {
        f.name: f.type for f in fields(kind) if f.name not in ("name", "inputs", *tensor_fields(kind))
    }
    if set(found) != set(expected):
        raise ValueError(f"{kind.op} has attributes {sorted(found)}, expected {sorted(expected)}")
    return {k: _typed(v, _PLAIN[expected[k]], f"attribute {k!r}") for k, v in found.items()}


def _unpack(entry: str | dict, stored: dict[str, np.ndarray]) -> np.ndarray:
    if isinstance(entry, str):
        return _take(stored, entry)
    _typed(entry, dict, "a tensor's entry")
    shape = tuple(_typed(n, int, "a length in a shape") for n in _get(entry, "shape", list))
    mask, values = _take(stored, _get(entry, "mask", str)), _take(stored, _get(entry, "values", str))
    size = math.prod(shape)
    if min(shape, default=0) < 0 or mask.dtype != np.uint8 or mask.shape != ((size + 7) // 8,):
        raise ValueError(
            f"mask {entry['mask']!r} is {mask.dtype} {mask.shape}, expected one bit per element of {shape}"
        )
    bits = np.unpackbits(mask, bitorder="little")
    if bits[size:].any() or values.shape != (bits.sum(),):
        raise ValueError(
            f"values {entry['values']!r} have shape {values.shape}, expected ({bits[:size].sum()},) as mask "
            f"{entry['mask']!r} has it, and no bit beyond {size} elements (found {bits[size:].sum()})"
        )
    dense = np.zeros(size, values.dtype)
    dense[bits[:size].astype(bool)] = values
    return dense.reshape(shape)


def _take(stored: dict[str, np.ndarray], key: str) -> np.ndarray:
    if key not in stored:
        raise ValueError(f"tensor {key!r} is missing, or named twice")
    return stored.pop(key)


def _get(record: dict, key: str, kind: type):
    if key not in record:
        raise ValueError(f"its header lacks {key!r}")
    return _typed(record[key], kind, repr(key))


def _typed(value, kind: type | tuple[type, ...], what: str):
    # JSON's true is a Python int as well; a width is not true.
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        names = " or ".join(k.__name__ for k in kind) if isinstance(kind, tuple) else kind.__name__
        raise ValueError(f"{what} is {value!r}, expected {names}")
    return value
