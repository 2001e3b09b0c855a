"""Compiles Triton kernels for an H100 with no GPU there: what the interpreter accepts, a compiler may not."""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

_TYPES = {
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
    torch.float32: "fp32",
    torch.float64: "fp64",
    torch.uint8: "u8",
    torch.int8: "i8",
    torch.int32: "i32",
}


@dataclass(frozen=True)
class Built:
    """One compiled variant: its PTX, registers per thread, and bytes per thread spilled to memory."""

    ptx: str
    registers: int
    spilled: int


class Offline:
    """Takes a kernel's place in its module: a launch compiles for sm_90 and runs nothing."""

    def __init__(self, kernel):
        self.kernel, self.__name__ = kernel, kernel.__name__
        self.built: list[Built] = []

    def __getitem__(self, grid):
        return self._build

    def _build(self, *values, num_warps: int = 4, **constants) -> None:
        import triton
        from triton.backends.compiler import GPUTarget
        from triton.compiler import ASTSource

        names = self.kernel.arg_names
        signature, attributes = dict.fromkeys(names, "constexpr"), {}
        specialised = {n for n in names if n not in (self.kernel.do_not_specialize or ())}
        for at, (name, value) in enumerate(zip(names, values, strict=False)):
            if value is None:
                constants[name] = None
                continue
            if name in specialised and isinstance(value, int) and value == 1:
                constants[name] = 1
                continue
            signature[name] = f"*{_TYPES[value.dtype]}" if isinstance(value, Tensor) else "i32"
            if isinstance(value, Tensor) or (name in specialised and value % 16 == 0):
                attributes[at,] = [["tt.divisibility", 16]]
        source = ASTSource(self.kernel, signature, constants, attributes)
        options = {"num_warps": num_warps}
        compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
        self.built.append(Built(compiled.asm["ptx"], *_resources(compiled.asm["cubin"])))


def _resources(cubin: bytes) -> tuple[int, int]:
    """Registers and stack bytes per thread."""
    import triton.backends.nvidia

    tool = Path(triton.backends.nvidia.__file__).parent / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [str(tool), "-res-usage", file.name]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(re.search(r"REG:(\d+)", done.stdout)[1]), int(re.search(r"STACK:(\d+)", done.stdout)[1])
