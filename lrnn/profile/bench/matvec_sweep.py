"""Speed-up against sparsity, and the crossover: the sparsity from which on the packed matrix beats dense."""

from __future__ import annotations

import numpy as np

from lrnn.profile.bench.matrices import pack, random_matrix
from lrnn.profile.bench.timing import interleaved_cold, interleaved_inside

SPARSITIES = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
PRECISIONS = ("float32", "w8a16")


def measure(
    sizes: tuple[int, ...], sparsities: tuple[float, ...], rounds: int, seed: int, other: np.ndarray
) -> list[dict]:
    """A row for each size, precision and sparsity, whose speed-ups are over dense of the same precision.

    Args:
        sizes, sparsities: of square matrices with Bernoulli masks.
        rounds: timed rounds; a size's matrices of one precision are interleaved.
        seed: of weights and masks.
        other: memory that empties the caches.
    """
    rows = []
    for n in sizes:
        for precision in PRECISIONS:
            rows += _measure(n, precision, sorted(sparsities), rounds, seed, other)
    return rows


def _measure(
    n: int, precision: str, sparsities: list[float], rounds: int, seed: int, other: np.ndarray
) -> list[dict]:
    matrices = {"dense": pack(random_matrix(n, n, 0, seed), precision, "dense")}
    for sparsity in sparsities:
        matrices[sparsity] = pack(random_matrix(n, n, sparsity, seed), precision, "sparse")
    warm = interleaved_inside(
        {
            key: lambda repeats, packed=packed: packed.seconds(repeats, whole=True)
            for key, (packed, _) in matrices.items()
        },
        rounds=rounds,
    )
    cold = interleaved_cold(
        {
            key: lambda packed=packed: packed.seconds_cold(other, whole=True)
            for key, (packed, _) in matrices.items()
        },
        rounds,
    )
    return [
        {
            "name": f"{n:>4} {precision} {100 * sparsity:g} %",
            "size": n,
            "sparsity": sparsity,
            **matrices[sparsity][1],
            "seconds": {"warm": warm[sparsity].to_dict(), "cold": cold[sparsity].to_dict()},
            "dense_seconds": {"warm": warm["dense"].to_dict(), "cold": cold["dense"].to_dict()},
            "speedup": {
                "warm": warm["dense"].median / warm[sparsity].median,
                "cold": cold["dense"].median / cold[sparsity].median,
            },
        }
        for sparsity in sparsities
    ]


def crossovers(rows: list[dict]) -> list[dict]:
    """Where the speed-up passes 1, for each size, precision and state of the weights.

    Returns:
        rows with "size", "precision", "weights" and "sparsity": interpolated between the two measured
        sparsities around it; None where dense wins at all of them. "below" says that the packed matrix wins
        at all of them, and the crossover is below the least.
    """
    found = []
    for size, precision in dict.fromkeys((row["size"], row["precision"]) for row in rows):
        mine = [row for row in rows if (row["size"], row["precision"]) == (size, precision)]
        for weights in ("warm", "cold"):
            curve = [(row["sparsity"], row["speedup"][weights]) for row in mine]
            sparsity = _crossing(curve)
            below = sparsity is not None and sparsity == curve[0][0]
            found.append(
                {
                    "size": size,
                    "precision": precision,
                    "weights": weights,
                    "sparsity": sparsity,
                    "below": below,
                }
            )
    return found


def _crossing(curve: list[tuple[float, float]]) -> float | None:
    """The sparsity above which every measured speed-up is at least 1; None where the last is not."""
    if curve[-1][1] < 1:
        return None
    at = len(curve) - 1
    while at > 0 and curve[at - 1][1] >= 1:
        at -= 1
    if at == 0:
        return curve[0][0]
    (low, slow), (high, fast) = curve[at - 1], curve[at]
    return low + (high - low) * (1 - slow) / (fast - slow)


def table(result: dict) -> str:
    """Speed-ups by size and precision, a column for each sparsity, and the crossover."""
    rows, found = result["sweep"], result["crossovers"]
    sparsities = list(dict.fromkeys(row["sparsity"] for row in rows))
    lines = [
        "speed-up over dense of the same precision, whole, by sparsity; * where the cost model would choose "
        "the other one",
        f"{'':22}" + "".join(f"{f'{100 * s:g} %':>8}" for s in sparsities) + f"{'crossover':>11}",
    ]
    for cross in found:
        size, precision, weights = cross["size"], cross["precision"], cross["weights"]
        mine = [row for row in rows if (row["size"], row["precision"]) == (size, precision)]
        cells = "".join(f"{_cell(row, weights):>8}" for row in mine)
        lines.append(f"{size:>5} {precision:9}{weights:7}{cells}{crossover_text(cross):>11}")
    return "\n".join(lines)


def _cell(row: dict, weights: str) -> str:
    speedup = row["speedup"][weights]
    wrong = weights == "warm" and (row["chosen"] == "sparse") != (speedup >= 1)
    return f"{speedup:.2f}" + ("*" if wrong else " ")


def crossover_text(cross: dict) -> str:
    """The crossover in per cent; "none" where dense always wins."""
    if cross["sparsity"] is None:
        return "none"
    return ("< " if cross["below"] else "") + f"{100 * cross['sparsity']:.0f} %"
