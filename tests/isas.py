"""A compiled library's instruction sets, so that a test can run once for each."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from pathlib import Path


class Library:
    """The C ABI of `_C` or `_core`; without a library there are no ISAs."""

    def __init__(self, path: Path | None):
        self.handle = ctypes.CDLL(str(path)) if path else None
        self.isas: list[str] = []
        if self.handle is None:
            return
        for name in ("lrnn_isa", "lrnn_isa_supported", "lrnn_isa_select"):
            getattr(self.handle, name).restype = ctypes.c_char_p
        self.handle.lrnn_isa_select.argtypes = [ctypes.c_char_p]
        self.isas = self.handle.lrnn_isa_supported().decode().split(",")

    @property
    def isa(self) -> str:
        return self.handle.lrnn_isa().decode()

    @contextlib.contextmanager
    def running(self, isa: str) -> Iterator[str]:
        """Everything inside runs this ISA."""
        before = self.isa
        assert self.handle.lrnn_isa_select(isa.encode()) is None
        try:
            yield isa
        finally:
            self.handle.lrnn_isa_select(before.encode())
