"""`lrnn info`: versions, and which backends are live or why they are not."""

from __future__ import annotations

import json
import os
import platform
from importlib.metadata import PackageNotFoundError, version

PACKAGES = (
    "torch",
    "triton",
    "lightning",
    "numpy",
    "safetensors",
    "soundfile",
    "soxr",
    "torchaudio",
    "matplotlib",
    "onnxruntime",
    "pesq",
    "pystoi",
)


def add(commands) -> None:
    """Declare the command."""
    parser = commands.add_parser("info", help="versions, and which backends are live or why they are not")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.set_defaults(run=run)


def collect() -> dict:
    """Versions, machine and backends."""
    import torch

    import lrnn
    from lrnn.data import audio

    return {
        "lrnn": lrnn.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, torch threads {torch.get_num_threads()}",
        "packages": {name: _version(name) for name in PACKAGES},
        "backends": {**lrnn.backends(), **audio.backends()},
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def run(args) -> int:
    """Print what `collect` finds."""
    found = collect()
    if args.json:
        print(json.dumps(found))
        return 0
    print(f"lrnn {found['lrnn']}, Python {found['python']}, {found['machine']}")
    print("\npackages")
    for name, number in found["packages"].items():
        print(f"  {name:<12} {number or 'not installed'}")
    print("\nbackends")
    for name, state in found["backends"].items():
        print(f"  {name:<12} {state}")
    return 0
