"""Builds lrnn: Python, the torch-free engine (`lrnn._core`) and, beside torch, the op layer (`lrnn._C`).

Neither extension is a Python module: `_core` is a C ABI opened with ctypes, `_C` registers kernels with the
dispatcher through libtorch's stable ABI, so that one binary serves torch >= 2.10 and every Python >= 3.10.
Without a compiler both are left out and lrnn runs on its reference kernels. LRNN_NATIVE=require turns a
failed build into an error, LRNN_NATIVE=skip builds nothing. LRNN_SANITIZE=1 builds with AddressSanitizer and
UndefinedBehaviorSanitizer, for `make sanitize`, which keeps such a build in a folder of its own.
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
# GCC 12 warns about its own intrinsics (bug 105593).
QUIET = ["-Wno-uninitialized", "-Wno-maybe-uninitialized"]
AVX512 = ["-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mfma", *QUIET]
# One translation unit per ISA, compiled with its own flags and chosen at run time (csrc/core/isa.h): files
# whose names end in a key belong to that family of machines and are left out of the builds of others.
ISA_FLAGS = {
    "x86": {
        "_avx2": ["-mavx2", "-mfma", "-mf16c"],
        "_avx512": AVX512,
        "_avx512vnni": [*AVX512, "-mavx512vbmi", "-mavx512vnni"],
        "_avx512bf16": [*AVX512, "-mavx512bf16"],
    },
    "arm": {"_neon": ["-march=armv8.2-a+dotprod"]},
}
FAMILY = {"x86_64": "x86", "amd64": "x86", "aarch64": "arm", "arm64": "arm"}.get(platform.machine().lower())
COMMON = ["-std=c++20", "-O3", "-fvisibility=hidden", "-fno-math-errno", "-Wall", "-Wextra", "-g0"]
# Runs in the interpreter that has Lava, not in this one: shipped as data.
LAVA_EXECUTOR = "executor/lrnn_lava"
NATIVE = os.environ.get("LRNN_NATIVE", "auto")
# Whatever undefined behaviour is found ends the program: what is only printed is overlooked. -O2, because
# the compiler fuses no multiply-adds below it, and then products of one step and of many differ in a bit.
SANITIZE = ["-O2", "-g1", "-fno-omit-frame-pointer", "-fsanitize=address,undefined", "-fno-sanitize-recover"]
if os.environ.get("LRNN_SANITIZE", "0") in ("", "0"):
    SANITIZE = []


def isa_of(source):
    """The family of machines and the compiler's flags that a source is for; (None, []) for most."""
    for family, flags in ISA_FLAGS.items():
        for ending, extra in flags.items():
            if Path(source).stem.endswith(ending):
                return family, extra
    return None, []


class BuildPerIsa(build_ext):
    """Builds files of this machine's family with their own flags, and leaves other families' files out."""

    def build_extension(self, ext):
        ext.sources = [s for s in ext.sources if isa_of(s)[0] in (None, FAMILY)]
        compile_one = self.compiler._compile

        def compile_isa(obj, src, suffix, cc_args, extra, pp_opts):
            return compile_one(obj, src, suffix, cc_args, [*extra, *isa_of(src)[1]], pp_opts)

        self.compiler._compile = compile_isa
        try:
            super().build_extension(ext)
        finally:
            self.compiler._compile = compile_one


def extensions():
    if NATIVE == "skip":
        return []
    common = {"language": "c++", "py_limited_api": True, "optional": NATIVE != "require", "depends": HEADERS}
    common["extra_link_args"] = SANITIZE
    flags = [*COMMON, *SANITIZE]
    core = Extension("lrnn._core", CORE, include_dirs=["csrc"], extra_compile_args=flags, **common)
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
        extra_compile_args=[*flags, "-isystem", str(root / "include")],
        **common,
    )
    return [core, ops]


setup(
    packages=[
        *find_packages(include=["lrnn", "lrnn.*"]),
        "lrnn.kernels",
        "lrnn.kernels.scan",
        "lrnn.kernels.sparse_linear",
        "lrnn.kernels.sparse_matvec",
    ],
    package_dir={
        "lrnn.kernels": "kernels",
        "lrnn.kernels.scan": "kernels/scan",
        "lrnn.kernels.sparse_linear": "kernels/sparse_linear",
        "lrnn.kernels.sparse_matvec": "kernels/sparse_matvec",
    },
    package_data={
        "lrnn": ["models/*", "profile/loihi/*.yaml", "py.typed"],
        "lrnn.export.lava": [f"{LAVA_EXECUTOR}/*.py", f"{LAVA_EXECUTOR}/*/*.py"],
    },
    ext_modules=extensions(),
    cmdclass={"build_ext": BuildPerIsa},
    options={"bdist_wheel": {"py_limited_api": "cp310"}},  # neither library knows Python
)
