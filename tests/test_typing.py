"""The package is typed: py.typed ships, and what is public says what it takes and what it gives.

`make lint` has mypy check what people build with (lrnn.nn, lrnn.ops); see pyproject.toml.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import lrnn

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = [
    "lrnn",
    *sorted(
        f"lrnn.{p.parent.name}" for p in (ROOT / "lrnn").glob("*/__init__.py") if "__all__" in p.read_text()
    ),
]


def public_functions(package: str) -> Iterator[tuple[str, Callable[..., Any]]]:
    """What a package exports: functions, and the public methods that its classes define themselves."""
    module = import_module(package)
    for name in module.__all__:
        thing = getattr(module, name)
        if inspect.isclass(thing):
            if thing.__module__.startswith("lrnn"):
                yield from ((f"{name}.{m}", f) for m, f in methods(thing))
        elif inspect.isfunction(thing):
            yield name, thing


def methods(cls: type) -> Iterator[tuple[str, Callable[..., Any]]]:
    if getattr(cls, "_is_protocol", False):
        return  # its __init__ is typing's
    for name, member in vars(cls).items():
        function = member.__func__ if isinstance(member, (classmethod, staticmethod)) else member
        function = function.fget if isinstance(function, property) else function
        if inspect.isfunction(function) and (name == "__init__" or not name.startswith("_")):
            yield name, function


def unannotated(function: Callable[..., Any]) -> list[str]:
    signature = inspect.signature(function)
    parameters = [p for p in signature.parameters.values() if p.name not in ("self", "cls", "ctx")]
    missing = [p.name for p in parameters if p.annotation is p.empty]
    if signature.return_annotation is signature.empty and function.__name__ != "__init__":
        missing.append("return")
    return missing


@pytest.mark.parametrize("package", PACKAGES)
def test_what_is_public_is_annotated(package):
    missing = {name: found for name, f in public_functions(package) if (found := unannotated(f))}
    assert not missing


def test_what_it_looks_for_is_found():
    class A:
        def f(self, x, *, y: int) -> None: ...

        @property
        def p(self): ...

        def _g(self, x): ...

    assert {name: unannotated(f) for name, f in methods(A)} == {"f": ["x"], "p": ["return"]}
    assert len(PACKAGES) > 5


def test_the_marker_ships():
    assert lrnn.__file__ is not None
    assert (Path(lrnn.__file__).parent / "py.typed").is_file()
    assert '"py.typed"' in (ROOT / "setup.py").read_text()
