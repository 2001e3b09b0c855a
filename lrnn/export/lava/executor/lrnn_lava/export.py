"""Reading an exported folder: program.json, weights.npz, vectors.npz, checked before anything is built."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.sparse import csr_matrix

FORMAT, VERSION = "lrnn-lava", 1
MOST_INPUTS, MOST_OUTPUTS = 8, 4  # ports of a group; those that are not connected cost nothing
_PARTS = ("input", "output", "latency", "steps", "groups", "synapses", "matrices", "files")


@dataclass(frozen=True)
class Export:
    """A network as it was exported.

    Attributes:
        folder: where it was read.
        program: what program.json holds.
        weights: the arrays of weights.npz.
    """

    folder: Path
    program: dict
    weights: dict[str, np.ndarray]

    @classmethod
    def read(cls, folder: str | Path) -> Export:
        """Read a folder; ValueError or OSError name a file that is missing, damaged or of another version."""
        folder = Path(folder)
        path = folder / "program.json"
        try:
            program = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path}: not JSON ({error})") from None
        found = (program.get("format"), program.get("version")) if isinstance(program, dict) else None
        if found != (FORMAT, VERSION):
            raise ValueError(f"{path}: found format and version {found}, expected {(FORMAT, VERSION)}")
        missing = [name for name in _PARTS if name not in program]
        if missing:
            raise ValueError(f"{path}: it lacks {missing[0]!r}")
        return cls(folder, program, _arrays(folder / "weights.npz", program))

    def vectors(self) -> Vectors:
        """The golden vectors."""
        arrays = _arrays(self.folder / "vectors.npz", self.program)
        values = {name.removeprefix("values/"): v for name, v in arrays.items() if name.startswith("values/")}
        return Vectors(arrays["resets"], values)

    def matrix(self, name: str) -> csr_matrix:
        """The int8 weights of a synapse, (rows, cols)."""
        rows, cols = self.program["matrices"][name]["shape"]
        parts = (self.weights[f"{name}/{part}"] for part in ("data", "indices", "indptr"))
        return csr_matrix(tuple(parts), shape=(rows, cols))

    def arrays(self, op: dict) -> dict[str, np.ndarray]:
        """The arrays of an operation by field, as int64."""
        return {field: self.weights[f"{op['node']}/{field}"].astype(np.int64) for field in op["arrays"]}


@dataclass(frozen=True)
class Vectors:
    """Integers of every value at every step, (T, width) by name; `resets` are the steps that start anew."""

    resets: np.ndarray
    values: dict[str, np.ndarray]


def _arrays(path: Path, program: dict) -> dict[str, np.ndarray]:
    """All arrays of a file whose hash program.json knows."""
    expected, found = program["files"][path.name], hashlib.sha256(path.read_bytes()).hexdigest()
    if found != expected:
        raise ValueError(f"{path}: its SHA-256 is {found}, expected {expected} as program.json has it")
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}
