"""The structure holds: one import graph, late imports, names of other projects left alone."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# Each package may import those before it, and itself.
# Two arrows point up, when they are asked to: a Program opens its own stream, a layer explains itself.
UPWARD = {("lrnn.program.program", "lrnn.engine"), ("lrnn.nn.sparse_linear", "lrnn.profile.explain")}
ORDER = [
    "kernels",
    "memory",
    "files",
    "ops",
    "nn",
    "models",
    "prune",
    "quant",
    "program",
    "engine",
    "data",
    "export",
    "profile",
    "train",
    "cli",
]


def modules():
    for folder, package in ((ROOT / "lrnn", "lrnn"), (ROOT / "kernels", "lrnn.kernels")):
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            yield path, ".".join([package, *parts]).removesuffix(".__init__")


def imported(path: Path) -> set[str]:
    """Modules of lrnn that a file imports anywhere, type-checking blocks left out."""
    found = set()
    tree = ast.parse(path.read_text())
    skipped = {
        id(n)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test)
        for n in ast.walk(block)
    }
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module)
            if node.module == "lrnn":
                found |= {f"lrnn.{alias.name}" for alias in node.names}
    return {name for name in found if name.split(".")[0] == "lrnn"}


def rank(module: str) -> int | None:
    parts = module.split(".")
    return ORDER.index(parts[1]) if len(parts) > 1 and parts[1] in ORDER else None


@pytest.mark.parametrize(("path", "module"), [pytest.param(p, m, id=m) for p, m in modules()])
def test_imports_follow_the_graph(path, module):
    mine = rank(module)
    if module == "lrnn":
        return  # the front door imports what it shows
    assert mine is not None, f"{module} has no place in the import graph"
    for other in imported(path):
        theirs = rank(other)
        if (module, other) in UPWARD:
            continue
        assert theirs is None or theirs <= mine, f"{module} imports {other}, which stands above it"
    if module.startswith("lrnn.kernels"):
        assert not {name for name in imported(path) if not name.startswith("lrnn.kernels")}


def run(code: str, cwd: Path, **options) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, **options)


def test_import_needs_torch_only(tmp_path):
    late = [
        "triton",
        "lightning",
        "soundfile",
        "soxr",
        "safetensors",
        "matplotlib",
        "onnxruntime",
        "jsonargparse",
        "scipy",
        "yaml",
        "torch_pruning",
        "huggingface_hub",
    ]
    done = run(f"import lrnn, sys; print([m for m in {late} if m in sys.modules])", tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_every_public_name_is_there(tmp_path):
    done = run("import lrnn; [getattr(lrnn, n) for n in lrnn.__all__]; print(len(lrnn.__all__))", tmp_path)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 10


def test_an_installed_package_named_kernels_is_found_from_the_checkout(tmp_path):
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels" / "__init__.py").write_text("WHOSE = 'theirs'\n")
    (tmp_path / "kernels" / "more.py").write_text("WORD = 'submodule'\n")
    code = (
        f"import sys; sys.path.append({str(tmp_path)!r}); import kernels; from kernels import more; "
        "print(kernels.WHOSE, more.WORD)"
    )
    done = run(code, ROOT)
    assert done.stdout.strip() == "theirs submodule", done.stderr


def test_without_such_a_package_the_error_says_what_the_folder_is():
    code = "import sys; sys.path = [p for p in sys.path if 'site-packages' not in p]; import kernels"
    done = run(code, ROOT)
    assert done.returncode != 0
    assert "lrnn.kernels" in done.stderr.splitlines()[-1]
