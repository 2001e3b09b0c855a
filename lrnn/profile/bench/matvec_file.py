"""The matrices of a file, each beside a random one of its shape and density."""

from __future__ import annotations

import numpy as np

from lrnn.profile.bench.matrices import pack, random_matrix
from lrnn.profile.bench.timing import interleaved_cold, interleaved_inside

PRECISIONS = ("float32", "w8a16")


def measure(matrices: dict[str, np.ndarray], rounds: int, other: np.ndarray, seed: int) -> list[dict]:
    """A row for each matrix and precision: dense, packed, and a random one packed, whole.

    Args:
        matrices: (rows, cols) float32 by name.
        rounds: timed rounds.
        other: memory that empties the caches.
        seed: of the random masks.
    """
    rows = []
    for name, weight in matrices.items():
        for precision in PRECISIONS:
            rows.append(_measure(name, weight, precision, rounds, other, seed))
    return rows


def _measure(
    name: str, weight: np.ndarray, precision: str, rounds: int, other: np.ndarray, seed: int
) -> dict:
    density = np.count_nonzero(weight) / weight.size
    random = random_matrix(*weight.shape, 1 - density, seed)
    packed, row = pack(weight, precision, "sparse")
    subjects = {
        "dense": pack(weight, precision, "dense")[0],
        "sparse": packed,
        "random": pack(random, precision, "sparse")[0],
    }
    warm = interleaved_inside(
        {key: lambda repeats, p=p: p.seconds(repeats, whole=True) for key, p in subjects.items()},
        rounds=rounds,
    )
    cold = interleaved_cold(
        {key: lambda p=p: p.seconds_cold(other, whole=True) for key, p in subjects.items()}, rounds
    )
    return {
        "name": f"{name} {precision}",
        "matrix": name,
        "density": density,
        **row,
        "random_bytes": subjects["random"].nbytes,
        "seconds": {key: t.to_dict() for key, t in warm.items()},
        "seconds_cold": {key: t.to_dict() for key, t in cold.items()},
        "speedup": {
            "warm": warm["dense"].median / warm["sparse"].median,
            "cold": cold["dense"].median / cold["sparse"].median,
        },
        "of_random": warm["random"].median / warm["sparse"].median,
    }


def table(result: dict) -> str:
    """The figures for people."""
    wide = max(len(row["matrix"]) for row in result["rows"]) + 1
    lines = [
        f"matrices of {result['weights']}, whole, inside C++; x dense: over dense of the same precision; "
        "of random: speed of a random mask of its density is 1",
        f"{'matrix':{wide}}{'':8}{'shape':>12}{'density':>9}{'chosen':>8}{'KiB':>7}{'B/nonzero':>10}"
        f"{'dense us':>10}{'sparse us':>16}{'x dense':>9}{'cold':>7}{'of random':>11}",
    ]
    for row in result["rows"]:
        sparse, dense = row["seconds"]["sparse"], row["seconds"]["dense"]
        lines.append(
            f"{row['matrix']:{wide}}{row['precision']:8}{row['rows']:>6} x{row['cols']:>4}"
            f"{row['density']:>9.3f}{row['chosen']:>8}{row['bytes'] / 1024:>7.1f}"
            f"{row['bytes_per_nonzero']:>10.2f}{dense['median'] * 1e6:>10.3f}"
            f"{sparse['median'] * 1e6:>8.3f} ({sparse['minimum'] * 1e6:.3f})"
            f"{row['speedup']['warm']:>8.2f}{row['speedup']['cold']:>7.2f}{row['of_random']:>11.2f}"
        )
    return "\n".join(lines)
