"""Builds lrnn: Python, the torch-free engine (`lrnn._core`) and, beside torch, the op layer (`lrnn._C`).

Neither extension is a Python module: `_core` is a C ABI opened with ctypes, `_C` registers kernels with the
dispatcher through libtorch's stable ABI, so that one binary serves torch >= 2.10 and every Python >= 3.10.
Without a compiler both are left out and lrnn runs on its reference kernels. LRNN_NATIVE=require turns a
failed build into an error, LRNN_NATIVE=skip builds nothing.
"""

import os
import platform
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

try:
    import torch
except ImportError:
    torch = None

CORE = sorted(str(p) for p in Path("csrc/core").rglob("*.cpp"))
HEADERS = sorted(str(p) for p in Path("csrc").rglob("*.h"))
X86 = platform.machine().lower() in ("x86_64", "amd64")
# One translation unit per ISA, compiled with its own flags and chosen at run time (csrc/core/isa.h).
ISA_FLAGS = {
    "_avx2": ["-mavx2", "-mfma", "-mf16c"],
    "_avx512": ["-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mfma"],
}
COMMON = ["-std=c++20", "-O3", "-fvisibility=hidden", "-fno-math-errno", "-Wall", "-Wextra", "-g0"]
NATIVE = os.environ.get("LRNN_NATIVE", "auto")


class BuildPerIsa(build_ext):
    """Adds the flags of ISA_FLAGS to files whose names end in its keys; other machines go without them."""

    def build_extension(self, ext):
        ext.sources = [s for s in ext.sources if X86 or not any(Path(s).stem.endswith(k) for k in ISA_FLAGS)]
        compile_one = self.compiler._compile

        def compile_isa(obj, src, suffix, cc_args, extra, pp_opts):
            flags = next((f for k, f in ISA_FLAGS.items() if Path(src).stem.endswith(k)), [])
            return compile_one(obj, src, suffix, cc_args, [*extra, *flags], pp_opts)

        self.compiler._compile = compile_isa
        try:
            super().build_extension(ext)
        finally:
            self.compiler._compile = compile_one


def extensions():
    if NATIVE == "skip":
        return []
    common = {"language": "c++", "py_limited_api": True, "optional": NATIVE != "require", "depends": HEADERS}
    core = Extension("lrnn._core", CORE, include_dirs=["csrc"], extra_compile_args=COMMON, **common)
    if torch is None:
        return [core]
    root = Path(torch.__path__[0])
    ops = Extension(
        "lrnn._C",
        sorted(str(p) for p in Path("csrc/torch").glob("*.cpp")) + CORE,
        include_dirs=["csrc"],
        library_dirs=[str(root / "lib")],
        libraries=["torch_cpu", "torch", "c10"],
        define_macros=[("TORCH_TARGET_VERSION", "0x020a000000000000")],
        extra_compile_args=[*COMMON, "-isystem", str(root / "include")],
        **common,
    )
    return [core, ops]


setup(
    packages=[
        *find_packages(include=["lrnn", "lrnn.*"]),
        "lrnn.kernels",
        "lrnn.kernels.scan",
        "lrnn.kernels.sparse_linear",
    ],
    package_dir={
        "lrnn.kernels": "kernels",
        "lrnn.kernels.scan": "kernels/scan",
        "lrnn.kernels.sparse_linear": "kernels/sparse_linear",
    },
    package_data={"lrnn": ["models/*"]},
    ext_modules=extensions(),
    cmdclass={"build_ext": BuildPerIsa},
    options={"bdist_wheel": {"py_limited_api": "cp310"}},  # neither library knows Python
)
