"""Opening the compiled core with its functions typed."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator, Mapping

from lrnn.ops.libraries import core_library


def open_core(signatures: Mapping[str, tuple], what: str) -> ctypes.CDLL:
    """The core's library.

    Args:
        signatures: of the functions to be called, by name: the result's ctypes type, then the arguments'.
        what: needs it; begins the error.

    Raises:
        RuntimeError: the core is not built here; the message says why.
    """
    path, reason = core_library()
    if path is None:
        raise RuntimeError(f"{what} not available: {reason}")
    core = ctypes.CDLL(str(path))
    for name, (result, *arguments) in signatures.items():
        function = getattr(core, name)
        function.restype, function.argtypes = result, arguments
    return core


@contextlib.contextmanager
def running_isa(name: str | None) -> Iterator[str]:
    """Let the core pack and run with this instruction set for the while; yields the name of the active one.

    Args:
        name: "scalar", "avx2", "avx512", "avx512vnni" or "neon"; None changes nothing.

    Raises:
        RuntimeError: the core is not built here.
        ValueError: this machine lacks the instruction set, or there is none of the name.
    """
    signatures = {"lrnn_isa": (ctypes.c_char_p,), "lrnn_isa_select": (ctypes.c_char_p, ctypes.c_char_p)}
    core = open_core(signatures, "instruction sets are")
    before = core.lrnn_isa()
    refusal = core.lrnn_isa_select(name.encode()) if name else None
    if refusal:
        raise ValueError(refusal.decode())
    try:
        yield core.lrnn_isa().decode()
    finally:
        core.lrnn_isa_select(before)
