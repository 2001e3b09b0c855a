"""Finds the compiled libraries: `_C`, kernels for the dispatcher, and `_core`, the engine with its C ABI.

Both stand beside the package and both may be missing: a build without a compiler leaves them out.
LRNN_LIBRARIES names another folder to take them from, such as the one that `make sanitize` builds.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import importlib.util
import os
import warnings
from pathlib import Path
from types import ModuleType

import torch

_FOLDER = Path(os.environ.get("LRNN_LIBRARIES") or Path(__file__).resolve().parents[1])
_BUILD = "build it with `pip install --no-build-isolation .` (needs a C++20 compiler)"


def _find(stem: str) -> Path | None:
    """The library of this stem in the folder of libraries."""
    found = (p for p in _FOLDER.glob(f"{stem}.*") if p.suffix in (".so", ".pyd", ".dylib"))
    return next(iter(sorted(found)), None)


def _isa(library: Path) -> str:
    """Name of the instruction set this library runs; ValueError where LRNN_ISA names one it cannot."""
    handle = ctypes.CDLL(str(library))
    for name in ("lrnn_isa", "lrnn_isa_error"):
        getattr(handle, name).restype = ctypes.c_char_p
    error = handle.lrnn_isa_error()
    if error:
        raise ValueError(error.decode())
    return handle.lrnn_isa().decode()


@functools.cache
def load_op_library() -> tuple[Path | None, str]:
    """Load `_C`, whose kernels then serve CPU tensors. Returns its path and "", or None and why not."""
    path = _find("_C")
    if path is None:
        return None, f"no compiled op library in {_FOLDER}; {_BUILD}"
    try:
        torch.ops.load_library(path)
    except OSError as error:
        return None, f"{path.name} does not load with torch {torch.__version__}: {error}"
    _isa(path)
    return path, ""


@functools.cache
def core_library() -> tuple[Path | None, str]:
    """Find `_core`, which the native engine opens. Returns its path and "", or None and why not."""
    path = _find("_core")
    if path is None:
        return None, f"no compiled engine in {_FOLDER}; {_BUILD}"
    try:
        _isa(path)
    except OSError as error:
        return None, f"{path.name} does not load: {error}"
    return path, ""


def triton_problem() -> str:
    """Why Triton kernels cannot run here, or "" where they can. Does not import Triton."""
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed; `pip install lrnn[gpu]`"
    if not torch.cuda.is_available():
        return f"torch {torch.__version__} sees no CUDA device"
    return ""


@functools.cache
def cuda_kernels(name: str) -> ModuleType:
    """The Triton kernels of lrnn.kernels.<name>; where there is no Triton its reference, with a warning."""
    problem = triton_problem()
    if problem:
        warnings.warn(f"lrnn runs the slow reference of {name} on this device: {problem}", stacklevel=4)
    return importlib.import_module(f"lrnn.kernels.{name}.{'reference' if problem else 'gpu'}")


def backends() -> dict[str, str]:
    """For `cpu` ops, the native `engine` and `cuda` ops: "live: ..." or "off: ..." with the reason."""
    ops, no_ops = load_op_library()
    core, no_core = core_library()
    no_triton = triton_problem()
    return {
        "cpu": f"live: C++, {_isa(ops)}" if ops else f"off: reference loops instead; {no_ops}",
        "engine": f"live: C++, {_isa(core)}" if core else f"off: numpy or torch instead; {no_core}",
        "cuda": f"off: {no_triton}" if no_triton else "live: Triton",
    }
