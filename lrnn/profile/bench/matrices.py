"""The matrices that products are timed with: random ones, and those of a file."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np

from lrnn.engine.packed import PackedMatrix
from lrnn.program import load, nodes
from lrnn.quant.exponent import quantize_weight


def random_matrix(rows: int, cols: int, sparsity: float, seed: int = 0) -> np.ndarray:
    """(rows, cols) float32: normal numbers, of which each is zero with the probability `sparsity`."""
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((rows, cols), dtype=np.float32)
    if sparsity:
        weight[rng.random((rows, cols), dtype=np.float32) < sparsity] = 0
    return weight


def pack(weight: np.ndarray, precision: str, format: str) -> tuple[PackedMatrix, dict]:
    """A float32 matrix packed, and what is known of it before it runs.

    Integers have a power-of-two scale for each row (lrnn.quant); small weights that round to zero are zeros
    then. Packing is timed without that.
    """
    if precision.startswith("w8"):
        weight = quantize_weight(weight, 8)[0].astype(np.int8)
    start = time.perf_counter()
    packed = PackedMatrix(weight, precision, format)
    seconds = time.perf_counter() - start
    nonzeros = int(np.count_nonzero(weight))
    return packed, {
        "rows": weight.shape[0],
        "cols": weight.shape[1],
        "precision": precision,
        "format": format,
        "kernel": packed.kernel,
        "chosen": "sparse" if packed.costs["sparse"] < packed.costs["dense"] else "dense",
        "nonzeros": nonzeros,
        "bytes": packed.nbytes,
        "bytes_per_nonzero": packed.nbytes / max(nonzeros, 1),
        "packing_seconds": seconds,
    }


def read_matrices(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Every matrix of a file, by name, as (rows, cols) float32.

    Args:
        path: a Program (.lrnn) or another safetensors file, whose two-dimensional tensors of floats count;
            or one matrix in Matrix Market's format (.mtx, also .mtx.gz), for which scipy is needed.

    Raises:
        FileNotFoundError, ImportError, or ValueError that names the file and what was found in it.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file")
    readers = {".mtx": _matrix_market, ".lrnn": _program}
    read = next((reader for suffix, reader in readers.items() if suffix in Path(path).suffixes), _safetensors)
    matrices = read(path)
    if not matrices:
        raise ValueError(f"{path}: found no matrix, expected tensors of floats with two dimensions")
    for name, matrix in matrices.items():
        if not np.isfinite(matrix).all():
            raise ValueError(f"{path}: {name} has NaN or infinite values")
    return matrices


def _matrix_market(path: str | os.PathLike) -> dict[str, np.ndarray]:
    try:
        from scipy.io import mmread
    except ImportError:
        raise ImportError(f"{path}: reading Matrix Market files needs scipy: pip install scipy") from None
    try:
        found = mmread(path)
        matrix = np.asarray(found.todense() if hasattr(found, "todense") else found)
    except (ValueError, OSError, TypeError, EOFError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path}: not a Matrix Market file that scipy reads ({reason})") from None
    if matrix.dtype.kind not in "fiub" or matrix.ndim != 2:
        raise ValueError(f"{path}: found {matrix.dtype} of shape {matrix.shape}, expected real numbers")
    return {Path(path).name.split(".")[0]: np.ascontiguousarray(matrix, np.float32)}


def _program(path: str | os.PathLike) -> dict[str, np.ndarray]:
    return {node.name: node.weight for node in load(path).nodes if isinstance(node, nodes.Linear)}


def _safetensors(path: str | os.PathLike) -> dict[str, np.ndarray]:
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(str(path))
    except SafetensorError as error:
        raise ValueError(f"{path}: not a safetensors file ({error})") from None
    return {
        name: np.ascontiguousarray(tensor.to(torch.float32).numpy())
        for name, tensor in tensors.items()
        if tensor.dim() == 2 and tensor.is_floating_point() and tensor.numel()
    }
