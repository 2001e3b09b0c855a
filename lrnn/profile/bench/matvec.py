"""`lrnn bench matvec`: sparse matrices times one vector, beside the best dense kernels.

One pinned thread, everything interleaved in one process. Kernels are timed inside C++; "warm" back to back,
with the weights where they stay between calls, "cold" once after a read of more memory than all caches hold,
which leaves weights, tables and code there. "whole" counts the rounding of a float32 x to integers and the
scaling of the sums. A row's floor is a plain read of its packed bytes, measured in the same run.
"""

from __future__ import annotations

import numpy as np
import torch

from lrnn.engine.core import running_isa
from lrnn.engine.packed import PRECISIONS, PackedMatrix, read_seconds
from lrnn.profile.bench import limits as machine_limits
from lrnn.profile.bench import matvec_file, matvec_python, matvec_sweep
from lrnn.profile.bench.matrices import pack, random_matrix, read_matrices
from lrnn.profile.bench.timing import interleaved_cold, interleaved_inside, torch_threads
from lrnn.profile.energy import Rapl, joules_per_call, processor_energy

SIZES = (192, 512, 1024, 4096)


def run(
    sizes: tuple[int, ...] = SIZES,
    sparsity: float = 0.9,
    rounds: int = 15,
    seed: int = 0,
    *,
    sweep: tuple[float, ...] = matvec_sweep.SPARSITIES,
    weights: str | None = None,
    isa: str | None = None,
    energy: bool = False,
) -> dict:
    """Measure and return the figures, ready for JSON.

    Args:
        sizes: rows and columns of the square matrices.
        sparsity: fraction of zeros, Bernoulli.
        rounds: timed rounds.
        seed: of weights and masks.
        sweep: sparsities at which the crossover with dense is looked for; none leaves it out.
        weights: a file whose matrices are measured, in place of `sizes`: see `matrices.read_matrices`.
        energy: also measure joules, a second for each kernel; where none can be read, say why.
        isa: instruction set of lrnn's own kernels, dense and sparse; None is the best.

    Raises:
        ValueError: an argument is out of range, or the file holds no matrix.
        RuntimeError: the core is not built here.
    """
    for share in (sparsity, *sweep):
        if not 0 <= share < 1:
            raise ValueError(f"sparsity is {share}, expected 0 <= sparsity < 1")
    if rounds < 1 or not all(n >= 1 for n in sizes):
        raise ValueError(f"rounds is {rounds} and sizes are {sizes}, expected at least 1")
    matrices = read_matrices(weights) if weights else {}
    other = machine_limits.more_than_caches()
    with torch_threads(1, pin=True), torch.inference_mode(), running_isa(isa) as active:
        result = {
            "bench": "matvec",
            "isa": active,
            "torch": torch.__version__,
            "rounds": rounds,
            "limits": machine_limits.measure(),
        }
        if weights:
            return {**result, "weights": weights, "rows": matvec_file.measure(matrices, rounds, other, seed)}
        result |= {"sparsity": sparsity, "rows": []}
        counter, reason = processor_energy() if energy else (None, "")
        if energy:
            result["energy"] = counter.name if counter else f"not measured: {reason}"
        for n in sizes:
            result["rows"] += _measure(n, sparsity, rounds, seed, other, counter)
        result["python"] = matvec_python.measure(sizes, sparsity, rounds, seed, other)
        if sweep:
            result["sweep"] = matvec_sweep.measure(sizes, sweep, rounds, seed, other)
            result["crossovers"] = matvec_sweep.crossovers(result["sweep"])
        return result


def _measure(
    n: int, sparsity: float, rounds: int, seed: int, other: np.ndarray, counter: Rapl | None
) -> list[dict]:
    """A row for each precision and format, with its seconds, bytes and ratios."""
    full, thin = random_matrix(n, n, 0, seed), random_matrix(n, n, sparsity, seed)
    rows, warm, cold = [], {}, {}
    for precision in PRECISIONS:
        for format in ("dense", "sparse"):
            packed, row = pack(full if format == "dense" else thin, precision, format)
            key = len(rows)
            rows.append({"name": f"{n:>4} {precision} {format}", **row})
            warm |= _subjects(key, packed)
            if counter:
                rows[key]["joules"] = joules_per_call(counter, warm[key, "whole"])
            cold[key] = lambda packed=packed: packed.seconds_cold(other, whole=True)
    samples = interleaved_inside(warm, rounds=rounds)
    cold_samples = interleaved_cold(cold, rounds)
    for key, row in enumerate(rows):
        row["seconds"] = {what: t.to_dict() for (at, what), t in samples.items() if at == key}
        row["seconds"]["cold"] = cold_samples[key].to_dict()
    for row in rows:
        row["ratios"] = _ratios(row, rows)
    return rows


def _subjects(key: int, packed: PackedMatrix) -> dict:
    return {
        (key, "kernel"): packed.seconds,
        (key, "whole"): lambda repeats: packed.seconds(repeats, whole=True),
        (key, "read"): lambda repeats: read_seconds(packed.nbytes, repeats),
    }


def _ratios(row: dict, rows: list[dict]) -> dict[str, float]:
    """Times faster than dense float32 and than dense of the same precision, and share of the read's speed."""
    dense = {r["precision"]: r for r in rows if r["format"] == "dense"}
    warm = {
        name: r["seconds"]["whole"]["median"] / row["seconds"]["whole"]["median"] for name, r in dense.items()
    }
    cold = {
        name: r["seconds"]["cold"]["median"] / row["seconds"]["cold"]["median"] for name, r in dense.items()
    }
    return {
        "dense float32": warm["float32"],
        "dense same": warm[row["precision"]],
        "of a read": row["seconds"]["read"]["median"] / row["seconds"]["kernel"]["median"],
        "cold dense float32": cold["float32"],
        "cold dense same": cold[row["precision"]],
    }


def table(result: dict) -> str:
    """The figures as tables for people."""
    head = f"matvec: one pinned thread, {result['isa']}, {result['rounds']} rounds; us, median (min)"
    parts = [head + "\n" + machine_limits.table(result["limits"])]
    if "weights" in result:
        return "\n\n".join([*parts, matvec_file.table(result)])
    parts += [_kernels(result), matvec_python.table(result)]
    if "energy" in result:
        parts.insert(2, _energy(result))
    if "sweep" in result:
        parts.append(matvec_sweep.table(result))
    return "\n\n".join(parts)


def _kernels(result: dict) -> str:
    lines = [
        f"kernels inside C++, {100 * result['sparsity']:g} % zeros (Bernoulli); x f32, x same: times faster "
        "than dense float32, dense of the same precision; read: speed, a plain read of as many bytes is 1",
        f"{'':38}{'B per':>7}{'pack':>8}{'------------------ warm ------------------':>50}"
        f"{'-------- cold --------':>27}",
        f"{'':22}{'layout':>8}{'KiB':>8}{'nonzero':>8}{'ms':>7}{'kernel':>15}{'whole':>15}"
        f"{'x f32':>7}{'x same':>7}{'read':>6}{'whole':>14}{'x f32':>7}{'x same':>7}",
    ]
    for row in result["rows"]:
        ratios = row["ratios"]
        shown = [ratios[name] for name in ("dense float32", "dense same", "of a read")]
        colds = [ratios[name] for name in ("cold dense float32", "cold dense same")]
        lines.append(
            f"{row['name']:22}{row['kernel']:>8}{row['bytes'] / 1024:>8.0f}{row['bytes_per_nonzero']:>8.2f}"
            f"{1e3 * row['packing_seconds']:>7.1f}{us(row['seconds']['kernel']):>15}"
            f"{us(row['seconds']['whole']):>15}"
            f"{shown[0]:>7.2f}{shown[1]:>7.2f}{shown[2]:>6.2f}"
            f"{us(row['seconds']['cold']):>14}{colds[0]:>7.2f}{colds[1]:>7.2f}"
        )
    return "\n".join(lines)


def _energy(result: dict) -> str:
    lines = [f"energy: {result['energy']}"]
    lines += [
        f"{row['name']:22}{row['joules'] * 1e6:>10.3f} uJ a product, "
        f"{row['bytes'] / row['joules'] / 1e9:.2f} GB/J"
        for row in result["rows"]
        if row.get("joules")
    ]
    return "\n".join(lines)


def us(times: dict[str, float]) -> str:
    """Microseconds, median (minimum)."""
    digits = 2 if times["median"] < 5e-5 else 0
    return f"{times['median'] * 1e6:.{digits}f} ({times['minimum'] * 1e6:.{digits}f})"
