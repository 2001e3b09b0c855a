"""Running a Program frame by frame: one Stream interface over three engines.

`native` is the C++ engine (fast, needs the compiled core), `numpy` the normative executor, `torch` the
batched one.
"""

from __future__ import annotations

from lrnn.engine.stream import Stream
from lrnn.ops.libraries import core_library
from lrnn.program.program import Program

__all__ = ["ENGINES", "Stream", "default_engine", "open_stream"]

ENGINES = ("native", "numpy", "torch")


def default_engine() -> str:
    """The fastest engine that runs here: "native" where it is built, else "numpy"."""
    return "native" if core_library()[0] else "numpy"


def open_stream(program: Program, engine: str = "native") -> Stream:
    """A new stream of `program` with its own state, at zero.

    Args:
        program: an lrnn.Program.
        engine: "native", "numpy" or "torch".

    Raises:
        RuntimeError: the native engine is not built here; the message says why.
        ValueError: no such engine.
    """
    if engine == "native":
        from lrnn.engine.native import NativeStream

        return NativeStream(program)
    if engine == "numpy":
        from lrnn.engine.portable import NumpyStream

        return NumpyStream(program)
    if engine == "torch":
        from lrnn.engine.portable import TorchStream

        return TorchStream(program)
    raise ValueError(f"engine is {engine!r}, expected one of {', '.join(ENGINES)}")
