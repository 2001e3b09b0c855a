"""Opening the compiled core with its functions typed."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping

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
