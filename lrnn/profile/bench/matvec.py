"""`lrnn bench matvec`: sparse matrices times one vector, beside the best dense kernels, inside C++.

One pinned thread, everything interleaved in one process, weights where they stay between calls (warm).
Kernels are timed inside C++, back to back; "whole" counts the rounding of a float32 x to integers and the
scaling of the sums. The floor is a plain read of the packed bytes, measured in the same run.
"""

from __future__ import annotations

import statistics

import numpy as np
import torch

from lrnn.engine.packed import PRECISIONS, PackedMatrix, read_seconds
from lrnn.profile.bench.timing import torch_threads

_CHUNK = 3e-4  # seconds of one timed run


def run(
    sizes: tuple[int, ...] = (192, 512, 1024), sparsity: float = 0.9, rounds: int = 15, seed: int = 0
) -> dict:
    """Measure and return the figures, ready for JSON.

    Args:
        sizes: rows and columns of the square matrices.
        sparsity: fraction of zeros, Bernoulli.
        rounds: timed rounds.
        seed: of weights and masks.

    Raises:
        ValueError: an argument is out of range.
        RuntimeError: the core is not built here.
    """
    if not 0 <= sparsity < 1:
        raise ValueError(f"sparsity is {sparsity}, expected 0 <= sparsity < 1")
    if rounds < 1 or not all(n >= 1 for n in sizes):
        raise ValueError(f"rounds is {rounds} and sizes are {sizes}, expected at least 1")
    with torch_threads(1, pin=True), torch.inference_mode():
        return {
            "bench": "matvec",
            "sparsity": sparsity,
            "isa": PackedMatrix(np.zeros((1, 1), np.float32)).isa,
            "torch": torch.__version__,
            "sizes": {str(n): _measure(n, sparsity, rounds, seed) for n in sizes},
        }


def _measure(n: int, sparsity: float, rounds: int, seed: int) -> list[dict]:
    """A row for each precision and format, with its seconds, bytes and ratios."""
    rng = np.random.default_rng(seed)
    weight, keep = rng.standard_normal((n, n)).astype(np.float32), rng.random((n, n)) >= sparsity
    small = np.clip(np.round(weight * 40), -127, 127).astype(np.int8)
    subjects, rows = {}, []
    for precision in PRECISIONS:
        matrix = small if precision.startswith("w8") else weight
        for format in ("dense", "sparse"):
            packed = PackedMatrix(matrix if format == "dense" else matrix * keep, precision, format)
            key = len(rows)
            rows.append({"precision": precision, "format": format, "kernel": packed.kernel})
            rows[key] |= {"bytes": packed.nbytes, "seconds": {}}
            subjects[key, "kernel"] = packed.seconds
            if precision.startswith("w8"):
                subjects[key, "whole"] = lambda repeats, packed=packed: packed.seconds(repeats, whole=True)
            subjects[key, "read"] = lambda repeats, size=packed.nbytes: read_seconds(size, repeats)
    samples = _interleaved(subjects, rounds)
    for (key, what), times in samples.items():
        rows[key]["seconds"][what] = {"median": statistics.median(times), "minimum": min(times)}
    for row in rows:
        row["ratios"] = _ratios(row, rows)
    return rows


def _interleaved(subjects: dict, rounds: int) -> dict[tuple, list[float]]:
    repeats = {key: max(1, int(_CHUNK / max(time(3), 1e-9))) for key, time in subjects.items()}
    samples: dict[tuple, list[float]] = {key: [] for key in subjects}
    for _ in range(rounds):
        for key, time in subjects.items():
            time(2)  # pays for the caches that the one before left behind
            samples[key].append(time(repeats[key]))
    return samples


def _whole(row: dict) -> dict[str, float]:
    return row["seconds"].get("whole", row["seconds"]["kernel"])


def _ratios(row: dict, rows: list[dict]) -> dict[str, float]:
    """Times faster than dense float32 and than dense of the same precision, and share of the read's speed."""
    dense = {r["precision"]: _whole(r)["median"] for r in rows if r["format"] == "dense"}
    return {
        "dense float32": dense["float32"] / _whole(row)["median"],
        "dense same": dense[row["precision"]] / _whole(row)["median"],
        "of a read": row["seconds"]["read"]["median"] / row["seconds"]["kernel"]["median"],
    }


def table(result: dict) -> str:
    """The figures as a table for people."""
    lines = [
        f"matvec: {100 * result['sparsity']:g} % zeros (Bernoulli), one pinned thread, warm weights, "
        f"{result['isa']}; inside C++, us, median (min)",
        f"{'':22}{'layout':>9}{'KiB':>7}{'kernel':>18}{'whole':>18}"
        f"{'x dense f32':>13}{'x dense same':>14}{'of a read':>11}",
    ]
    for n, rows in result["sizes"].items():
        for row in rows:
            name = f"{n:>5} {row['precision']} {row['format']}"
            ratios = "".join(
                f"{r:>{w}.2f}" for r, w in zip(row["ratios"].values(), (13, 14, 11), strict=True)
            )
            kernel, whole = _us(row["seconds"]["kernel"]), _us(_whole(row))
            lines.append(
                f"{name:22}{row['kernel']:>9}{row['bytes'] / 1024:>7.0f}{kernel:>18}{whole:>18}{ratios}"
            )
    return "\n".join(lines)


def _us(times: dict[str, float]) -> str:
    return f"{times['median'] * 1e6:.3f} ({times['minimum'] * 1e6:.3f})"
