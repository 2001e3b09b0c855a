"""`lrnn bench spmm`: a sparse matrix times many columns, beside dense and sparse products of other libraries.

One pinned thread and one thread per library, everything interleaved in one process, weights warm, after
every row gave the dense product. A row's first figure is the kernel inside C++, from x (T, cols) to y
(T, rows), both transpositions counted in; "panels" leaves them out; "called" is the op as called from
Python. The others:

- `F.linear`: torch's dense product (MKL or oneDNN), as called from Python.
- `XNNPACK-style`: our rendering of its kernel, inside C++, on x (cols, T) as it wants it.
- `torch CSR`, `SciPy`: their compressed rows, as called from Python, on x (cols, T) as they want it.

The limits are multiply-adds from registers, and with a load of x each, measured in the same run.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from lrnn.engine.spmm import TimedProduct, isa, load_multiply_add_rate
from lrnn.ops import SparseWeight, sparse_linear
from lrnn.profile.bench.limits import multiply_add_rate
from lrnn.profile.bench.timing import interleaved_inside, timed, torch_threads

SIZES = ((192, 192), (512, 512), (1024, 1024), (1024, 256), (256, 1024))
COLUMNS = (64, 256, 1024)
SPARSITY, SWEEP = (0.9,), (0.2, 0.3, 0.5, 0.7, 0.8, 0.95)
KERNEL, PANELS, OP, DENSE = "kernel", "without transposing", "sparse_linear", "F.linear"
_XNNPACK = "XNNPACK-style"
_FLIPPED = ("torch CSR", "SciPy")  # give y as (rows, T)


def run(
    sizes: Sequence[tuple[int, int]] = SIZES,
    columns: Sequence[int] = COLUMNS,
    sparsities: Sequence[float] = SPARSITY,
    sweep: Sequence[float] = SWEEP,
    rounds: int = 9,
    seed: int = 0,
) -> dict:
    """Measure and return the figures, ready for JSON.

    Args:
        sizes: (rows, cols) of the matrices.
        columns: T, how many columns they meet.
        sparsities: fractions of zeros, Bernoulli.
        sweep: further ones, for the middle one of `columns` alone.
        rounds: timed rounds.
        seed: of weights, masks and inputs.

    Raises:
        ValueError: an argument is out of range.
        RuntimeError: the core is not built here, or a row's result is wrong.
    """
    if not all(0 <= s < 1 for s in (*sparsities, *sweep)):
        raise ValueError(f"sparsity is {[*sparsities, *sweep]}, expected 0 <= sparsity < 1")
    if rounds < 1 or min([*columns, *(n for size in sizes for n in size)], default=0) < 1 or not columns:
        raise ValueError(f"rounds, columns, sizes are {rounds}, {columns}, {sizes}, expected at least 1")
    middle = sorted(columns)[len(columns) // 2]
    with torch_threads(1, pin=True), torch.inference_mode():
        rows = [
            _measure(size, T, sparsity, rounds, seed)
            for size in sizes
            for T in columns
            for sparsity in sorted({*sparsities, *(sweep if middle == T else ())})
        ]
        limits = {
            "multiply-add": multiply_add_rate() / 1e9,
            "with a load": max(load_multiply_add_rate() for _ in range(20)) / 1e9,
        }
    for row in rows:
        row["of_limit"] = {
            ours: {name: gflops / limit for name, limit in limits.items()}
            for ours, gflops in row["gflops"].items()
        }
    return {
        "bench": "spmm",
        "isa": isa(),
        "torch": torch.__version__,
        "limits_gflops": limits,
        "rows": rows,
        "crossover": _crossovers(rows),
    }


def _measure(size: tuple[int, int], T: int, sparsity: float, rounds: int, seed: int) -> dict:
    """One row: seconds of every subject, ratios, and the kernel's useful operations per second."""
    generator = torch.Generator().manual_seed(seed)
    dense = torch.randn(size, generator=generator)
    dense[torch.rand(size, generator=generator) < sparsity] = 0
    x = torch.randn(T, size[1], generator=generator)
    w = SparseWeight.from_dense(dense)
    subjects = _subjects(w, dense, x)
    samples = interleaved_inside(subjects, rounds=rounds, chunk=0.004)
    times = {name: timing.to_dict() for name, timing in samples.items()}
    operations = 2 * w.pattern.nonzeros * T
    others = [name for name in (DENSE, _XNNPACK, *_FLIPPED) if name in times]
    return {
        "size": list(size),
        "columns": T,
        "sparsity": sparsity,
        "nonzeros": w.pattern.nonzeros,
        "seconds": times,
        # of the kernel, in C++ with and without transposing, and called from Python, over each of the others
        "times_faster": {
            ours: {name: times[name]["median"] / times[ours]["median"] for name in others}
            for ours in (KERNEL, PANELS, OP)
            if ours in times
        },
        "gflops": {
            ours: 1e-9 * operations / times[ours]["median"] for ours in (KERNEL, PANELS) if ours in times
        },
    }


def _subjects(w: SparseWeight, dense: Tensor, x: Tensor) -> dict[str, Callable[[int], float]]:
    """What is timed, by name; RuntimeError where one does not compute x W^T."""
    inside = {KERNEL: TimedProduct(w, x), _XNNPACK: TimedProduct(w, x, "xnnpack")}
    if len(x) % 64 == 0:
        inside[PANELS] = TimedProduct(w, x, "panels")
    flipped = x.T.contiguous()
    calls = {
        OP: lambda: sparse_linear(x, w),
        DENSE: lambda: F.linear(x, dense),
        "torch CSR": _torch_csr(dense, flipped),
    }
    scipy = _scipy_csr(dense, flipped)
    if scipy is not None:
        calls["SciPy"] = scipy
    results = {name: torch.as_tensor(call()) for name, call in calls.items()}
    for name, product in inside.items():
        product(1)
        results[name] = product.y
    expected = F.linear(x.double(), dense.double())
    for name, y in results.items():
        error = ((y.T if name in _FLIPPED else y) - expected).abs().max()
        if not error <= 1e-4 * expected.abs().max().clamp(min=1):
            raise RuntimeError(f"{name} differs from the dense product by {error:.1e}")
    return {**inside, **{name: timed(call) for name, call in calls.items()}}


def _torch_csr(dense: Tensor, x: Tensor) -> Callable[[], Tensor]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that CSR is in beta
        csr = dense.to_sparse_csr()
    return lambda: csr @ x


def _scipy_csr(dense: Tensor, x: Tensor) -> Callable[[], object] | None:
    try:
        from scipy.sparse import csr_matrix
    except ImportError:
        return None
    csr, array = csr_matrix(dense.numpy()), x.numpy()
    return lambda: csr @ array


def _crossovers(rows: list[dict]) -> list[dict]:
    """Per size and T, the sparsity from which the op as called beats F.linear, where some were measured."""
    found = []
    for size, T in dict.fromkeys((tuple(r["size"]), r["columns"]) for r in rows):
        curve = sorted(
            (r["sparsity"], math.log(r["times_faster"][OP][DENSE]))
            for r in rows
            if (tuple(r["size"]), r["columns"]) == (size, T)
        )
        at = None
        for (s0, g0), (s1, g1) in itertools.pairwise(curve):
            if g0 < 0 <= g1:
                at = s0 + (s1 - s0) * -g0 / (g1 - g0)
        below = curve[0][1] >= 0
        if len(curve) > 1:
            found.append({"size": list(size), "columns": T, "sparsity": at, "always": at is None and below})
    return found


def table(result: dict) -> str:
    """The figures as a table for people."""
    limits = result["limits_gflops"]
    fma, load = limits
    lines = [
        f"spmm: y = x W^T, x (T, cols), Bernoulli zeros, one pinned thread, warm, {result['isa']}, "
        f"torch {result['torch']}; us, median (min)",
        f"limits: {limits[fma]:.0f} GFLOP/s of multiply-adds, {limits[load]:.0f} with a load of x each; "
        "panels: without transposing, as XNNPACK-style and CSR",
        f"{'rows x cols':>12}{'T':>6}{'zeros':>7}{'in C++':>18}{'panels':>9}{'called':>9}"
        f"{'x F.linear':>12}{'called':>8}{'x XNNPACK':>11}{'panels':>8}{'x CSR':>7}"
        f"{'x SciPy':>9}{'panels':>8}"
        f"{'GFLOP/s':>9}{'of FMA':>8}{'panels of load':>16}",
    ]
    for row in result["rows"]:
        times, faster = row["seconds"], row["times_faster"]
        whole, panels = faster[KERNEL], faster.get(PANELS, {})
        lines.append(
            f"{row['size'][0]:>5} x {row['size'][1]:<4}{row['columns']:>6}{100 * row['sparsity']:>5.0f} %"
            f"{_us(times[KERNEL]):>18}{_number(times.get(PANELS, {}).get('median'), 9, 1, 1e6)}"
            f"{_number(times[OP]['median'], 9, 1, 1e6)}"
            f"{_number(whole[DENSE], 12)}{_number(faster[OP][DENSE], 8)}"
            f"{_number(whole[_XNNPACK], 11)}{_number(panels.get(_XNNPACK), 8)}"
            f"{_number(whole['torch CSR'], 7)}"
            f"{_number(whole.get('SciPy'), 9)}{_number(panels.get('SciPy'), 8)}"
            f"{_number(row['gflops'][KERNEL], 9, 1)}{_number(row['of_limit'][KERNEL][fma], 8)}"
            f"{_number(row['of_limit'].get(PANELS, {}).get(load), 16)}"
        )
    for cross in result["crossover"]:
        size = f"{cross['size'][0]} x {cross['size'][1]}, T = {cross['columns']}"
        when = f"from {100 * cross['sparsity']:.0f} % zeros" if cross["sparsity"] else "nowhere above"
        lines.append(
            f"{size}: called, faster than F.linear {'wherever measured' if cross['always'] else when}"
        )
    return "\n".join(lines)


def _us(times: dict[str, float]) -> str:
    return f"{times['median'] * 1e6:.1f} ({times['minimum'] * 1e6:.1f})"


def _number(x: float | None, width: int, digits: int = 2, scale: float = 1.0) -> str:
    return f"{'-' if x is None else format(x * scale, f'.{digits}f'):>{width}}"
