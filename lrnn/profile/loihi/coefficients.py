"""The chip's limits, times and energies, read from coefficients.yaml: each with its source and its worth."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

FILE = Path(__file__).with_name("coefficients.yaml")
STATUSES = ("vendor", "measured", "fitted-loihi1", "vendor-ratio", "assumed")
_FIELDS = {"value", "unit", "source", "chip", "status"}


@dataclass(frozen=True)
class Coefficient:
    """One number of the chip.

    Attributes:
        favourable, unfavourable: its two ends; equal where it is one number.
        unit: in words.
        source: where it is from.
        chip: that it is of: "loihi1" or "loihi2".
        status: what it is worth, one of STATUSES.
    """

    favourable: float
    unfavourable: float
    unit: str
    source: str
    chip: str
    status: str

    def to_json(self) -> dict:
        """Plain values, as in the file."""
        values = asdict(self)
        return {"value": [values.pop("favourable"), values.pop("unfavourable")], **values}


class Coefficients(Mapping):
    """All coefficients by name; `favourable` and `unfavourable` are one end of each."""

    def __init__(self, found: dict[str, Coefficient]):
        self._found = found
        self.favourable = {name: c.favourable for name, c in found.items()}
        self.unfavourable = {name: c.unfavourable for name, c in found.items()}

    def __getitem__(self, name: str) -> Coefficient:
        return self._found[name]

    def __iter__(self):
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)

    def to_json(self) -> dict:
        """Plain values, as in the file."""
        return {name: c.to_json() for name, c in self._found.items()}


@cache
def coefficients() -> Coefficients:
    """Those of the file beside this one.

    Raises:
        ImportError: PyYAML is not installed.
    """
    return read(FILE)


def read(path: Path) -> Coefficients:
    """Coefficients of a YAML file.

    Raises:
        ValueError: an entry lacks a field, has another, or a value that is no number; names file and entry.
    """
    return Coefficients({name: _coefficient(path, name, entry) for name, entry in parse(path).items()})


def parse(path: Path) -> dict:
    """A YAML file that is a mapping.

    Raises:
        ImportError: PyYAML is not installed.
        ValueError: it is no such file; names it.
    """
    try:
        import yaml
    except ImportError:
        raise ImportError("what is known of Loihi 2 is YAML: pip install 'lrnn[loihi]'") from None
    try:
        found = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        text = " ".join(str(error).split())
        raise ValueError(f"{path}: not YAML ({text})") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path}: found {type(found).__name__}, expected a mapping")
    return found


def _coefficient(path: Path, name: str, entry: dict) -> Coefficient:
    if not isinstance(entry, dict) or set(entry) != _FIELDS:
        found = sorted(entry) if isinstance(entry, dict) else type(entry).__name__
        raise ValueError(f"{path}: {name} has {found}, expected the fields {sorted(_FIELDS)}")
    value = entry["value"]
    ends = value if isinstance(value, list) else [value, value]
    if len(ends) != 2 or not all(type(end) in (int, float) and math.isfinite(end) for end in ends):
        raise ValueError(f"{path}: {name} has value {value!r}, expected a number or two")
    if entry["status"] not in STATUSES:
        raise ValueError(f"{path}: {name} has status {entry['status']!r}, expected one of {STATUSES}")
    words = {key: entry[key] for key in ("unit", "source", "chip", "status")}
    if not all(isinstance(word, str) and word for word in words.values()):
        raise ValueError(f"{path}: {name} has an empty field, expected words in {sorted(words)}")
    return Coefficient(*ends, **words)
