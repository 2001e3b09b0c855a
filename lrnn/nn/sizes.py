"""One size for all layers of a model, or one for each."""

from __future__ import annotations

from collections.abc import Iterable

Sizes = int | tuple[int, ...]


def several(sizes: Sizes) -> tuple[int, ...]:
    """The numbers as a tuple."""
    return (sizes,) if isinstance(sizes, int) else tuple(sizes)


def plain(sizes: Sizes | Iterable[int]) -> Sizes:
    """A number, or the tuple that JSON and YAML write as a list; where it has one element, that."""
    if isinstance(sizes, int):
        return sizes
    numbers = tuple(sizes)
    return numbers[0] if len(numbers) == 1 else numbers


def one_size(name: str, size: Sizes) -> int:
    """The number; ValueError where there are several, one per layer of a stack."""
    if not isinstance(size, int):
        raise ValueError(f"{name} is {size}, expected one number; a stack passes config.layer(i) to a block")
    return size


def one_each(name: str, sizes: Sizes, n_layers: int) -> None:
    """ValueError where there are several numbers, but not as many as layers."""
    if not isinstance(sizes, int) and len(sizes) != n_layers:
        raise ValueError(f"{name} has {len(sizes)} numbers, expected one for each of {n_layers} layers")
