"""A Program's step in a file that other runtimes load: torch.export, AOTInductor, ONNX Runtime."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

from lrnn.files import written_whole
from lrnn.program.program import Program
from lrnn.program.step_module import StepModule


def save_step(program: Program, path: str | os.PathLike, *, streams: int = 1, compiled: bool = False) -> None:
    """Write one frame of a float program, dense, as a pure function: a frame and states to output and states.

    All arguments and results are float32: the frame (streams, input_width), then each state (streams, width)
    in the order of `program.state_widths`, zeros at first; the output (streams, output_width), then the next
    states. What is written needs no lrnn to run, and does what the program's nodes do: a front end in its
    `meta` stays outside.

    Args:
        program: in float32.
        path: ends in `.onnx` (see lrnn.export.onnx for the names of inputs and outputs) or `.pt2`, which
            torch.export.load reads.
        streams: of a frame, each with its own state.
        compiled: with `.pt2`: machine code by AOTInductor for this machine, which
            torch._inductor.aoti_load_package reads. Making it takes a C++ compiler.

    Raises:
        ValueError: the path has another ending, streams is no count, the program is in fixed point, or too
            large for `.onnx`, which holds less than 2 GiB.
        ImportError: `.onnx` without onnx.
    """
    path = Path(path)
    if path.suffix not in (".onnx", ".pt2"):
        raise ValueError(f"{path}: its name ends in {path.suffix!r}, expected '.onnx' or '.pt2'")
    if compiled and path.suffix != ".pt2":
        raise ValueError(f"{path}: its name ends in {path.suffix!r}, expected '.pt2' for compiled code")
    if streams < 1:
        raise ValueError(f"streams is {streams}, expected at least 1")
    with written_whole(path) as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the compilers' own
        if path.suffix == ".onnx":
            _save_onnx(program, temporary, streams)
        else:
            _save_torch(program, temporary, streams, compiled)


def _save_onnx(program: Program, path: Path, streams: int) -> None:
    from lrnn.export.onnx import onnx_model

    path.write_bytes(onnx_model(program, streams).SerializeToString())


def _save_torch(program: Program, path: Path, streams: int, compiled: bool) -> None:
    import torch

    step = StepModule(program).eval()
    frame = torch.zeros(streams, program.input_width)
    exported = torch.export.export(step, (frame, *step.zero_states(streams)))
    if compiled:
        torch._inductor.aoti_compile_and_package(exported, package_path=str(path))
    else:
        torch.export.save(exported, path)
