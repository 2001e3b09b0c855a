"""The scripts of experiments/, imported as they see each other when they run."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

EXPERIMENTS = Path(__file__).resolve().parents[1] / "experiments"


def script(name: str) -> ModuleType:
    """A script as a module."""
    sys.path.insert(0, str(EXPERIMENTS))
    try:
        return import_module(name)
    finally:
        sys.path.remove(str(EXPERIMENTS))
