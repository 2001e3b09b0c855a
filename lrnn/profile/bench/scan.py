"""`lrnn bench scan`: lrnn.scan beside the best forms of pure PyTorch, forward and backward, as ratios.

All forms run in one process, interleaved, and only after they gave the reference's result. Outputs are
allocated within the time, from memory that the C library keeps (`keep_freed_memory`); arrays beyond 32 MB
come in fresh pages all the same, which can cost more than the scan (THP_MEM_ALLOC_ENABLE=1 makes torch ask
for large ones). Bandwidth counts each array once: b and h, and a varying a, forward; both gradients and h,
and a varying a and its gradient, backward. It is set against torch's copy of as many bytes, half of them read
and half written, between two arrays that stay in place. A copy that reads what it writes into the caches
first moves half as much again; lrnn writes large outputs past the caches, and so can pass 1.

An S5 layer around the scan follows: `s5_tiles`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lrnn.memory import keep_freed_memory
from lrnn.ops import backends, scan
from lrnn.profile.bench import s5_tiles
from lrnn.profile.bench.scan_forms import CONSTANT_ONLY, FORMS, FORWARD_ONLY
from lrnn.profile.bench.timing import Timing, interleaved, torch_threads

_ARRAYS = {
    ("constant", "forward"): 2,
    ("varying", "forward"): 3,
    ("constant", "backward"): 3,
    ("varying", "backward"): 5,
}


def run(
    batch: int = 8,
    length: int = 4000,
    width: int = 128,
    rounds: int = 15,
    threads: int = 1,
    *,
    dtype: torch.dtype = torch.complex64,
    budget: float = 15.0,
    seed: int = 0,
) -> dict:
    """Measure lrnn.scan against every form of `scan_forms` and return the figures, ready for JSON.

    Args:
        batch: sequences.
        length: steps.
        width: channels (complex states with a complex dtype).
        rounds: most rounds of each of the four cases.
        threads: that torch and lrnn may use.
        dtype: of a and b.
        budget: seconds for each case.
        seed: of the data.
    """
    kept = keep_freed_memory()
    generator = torch.Generator().manual_seed(seed)
    with torch_threads(threads):
        b = torch.randn(batch, length, width, dtype=dtype, generator=generator)
        cases = []
        for kind in ("constant", "varying"):
            shape = (width,) if kind == "constant" else (batch, length, width)
            a = _decay(shape, dtype, generator)
            for direction in ("forward", "backward"):
                cases.append(_case(kind, direction, a, b, rounds, budget))
        layer = s5_tiles.run(batch, length, rounds, budget, seed)
    return {
        "bench": "scan",
        "batch": batch,
        "length": length,
        "width": width,
        "dtype": str(dtype).removeprefix("torch."),
        "threads": threads,
        "torch": torch.__version__,
        "backend": backends()["cpu"],
        "freed_memory_kept": kept,
        "cases": cases,
        "s5": layer,
    }


def _decay(shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    """Factors of magnitude 0.9 to 1, with any phase where complex."""
    size = 0.9 + 0.1 * torch.rand(shape, generator=generator, dtype=dtype.to_real())
    if not dtype.is_complex:
        return size
    return torch.polar(size, 2 * torch.pi * torch.rand(shape, generator=generator, dtype=dtype.to_real()))


def _case(kind: str, direction: str, a: Tensor, b: Tensor, rounds: int, budget: float) -> dict:
    """One row of the table: every form that can do it, and lrnn."""
    forms = {"lrnn": lambda a, b: scan(a, b)[0], **FORMS}
    calls, left_out = {}, {}
    want = _result(FORMS["loop"], direction, a, b)
    for name, form in forms.items():
        if (kind == "varying" and name in CONSTANT_ONLY) or (
            direction == "backward" and name in FORWARD_ONLY
        ):
            continue
        try:
            error = _difference(_result(form, direction, a, b), want)
        except (ImportError, RuntimeError) as problem:
            left_out[name] = str(problem).splitlines()[0]
            continue
        if not error < 1e-3:
            left_out[name] = f"differs from the loop by {error:.1e} of its largest value"
            continue
        calls[name] = _call(form, direction, a, b)
    if "lrnn" in left_out:
        raise RuntimeError(f"lrnn.scan, {kind} a, {direction}: {left_out['lrnn']}")
    traffic = _ARRAYS[kind, direction] * b.numel() * b.element_size()
    source = torch.ones(traffic // 8)  # float32: half the bytes
    copy = torch.empty_like(source)
    times = interleaved({"copy": lambda: copy.copy_(source), **calls}, rounds=rounds, budget=budget)
    return {
        "name": f"{kind} {direction}",
        "a": kind,
        "pass": direction,
        **_figures(traffic, times),
        "left_out": left_out,
    }


def _figures(traffic: int, times: dict[str, Timing]) -> dict:
    """Ratios and bandwidths from timings of what moves `traffic` bytes."""
    ours, copy = times["lrnn"], times["copy"]
    best = min((name for name in times if name not in ("lrnn", "copy")), key=lambda name: times[name].median)
    return {
        "best_form": best,
        "ratio_median": times[best].median / ours.median,
        "ratio_minimum": times[best].minimum / ours.minimum,
        "bytes_per_second": traffic / ours.minimum,
        "copy_bytes_per_second": traffic / copy.minimum,
        "fraction_of_copy": copy.minimum / ours.minimum,
        "seconds": {name: timing.to_dict() for name, timing in times.items()},
    }


def _tracked(form: Callable, a: Tensor, b: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """h with its graph, and the leaves to differentiate."""
    leaves = a.detach().requires_grad_(), b.detach().requires_grad_()
    return form(*leaves), leaves


def _result(form: Callable, direction: str, a: Tensor, b: Tensor) -> tuple[Tensor, ...]:
    """What the case computes: h, or the gradients of a and b for ones at h."""
    if direction == "forward":
        with torch.no_grad():
            return (form(a, b),)
    h, leaves = _tracked(form, a, b)
    return torch.autograd.grad(h, leaves, torch.ones_like(h))


def _call(form: Callable, direction: str, a: Tensor, b: Tensor) -> Callable[[], object]:
    """The function that is timed: without autograd forward; one backward pass over a kept graph."""
    if direction == "forward":

        def forward():
            with torch.no_grad():
                return form(a, b)

        return forward
    h, leaves = _tracked(form, a, b)
    cotangent = torch.ones_like(h)
    return lambda: torch.autograd.grad(h, leaves, cotangent, retain_graph=True)


def _difference(found: tuple[Tensor, ...], want: tuple[Tensor, ...]) -> float:
    """Largest difference, relative to the largest value of its tensor; NaN where there is one."""
    return max(((x - y).abs().max() / y.abs().max()).item() for x, y in zip(found, want, strict=True))


def table(result: dict) -> str:
    """The figures as a table for people."""
    lines = [
        f"scan: B={result['batch']} T={result['length']} N={result['width']} {result['dtype']}, "
        f"{result['threads']} thread(s), torch {result['torch']}; lrnn {result['backend']}",
        f"{'a':9}{'pass':10}{'lrnn ms (min)':>17}  {'best pure torch':18}{'ms (min)':>17}{'ratio (min)':>16}"
        f"{'GB/s':>7}{'copy':>6}{'of copy':>9}",
    ]
    for case in result["cases"]:
        ours, best = case["seconds"]["lrnn"], case["seconds"][case["best_form"]]
        lines.append(
            f"{case['a']:9}{case['pass']:10}{_ms(ours):>17}  {case['best_form']:18}{_ms(best):>17}"
            f"{case['ratio_median']:8.1f} ({case['ratio_minimum']:.1f})".ljust(87)
            + f"{case['bytes_per_second'] / 1e9:7.0f}{case['copy_bytes_per_second'] / 1e9:6.0f}"
            + f"{case['fraction_of_copy']:9.2f}"
        )
        lines += [f"  left out: {name}: {why}" for name, why in case["left_out"].items()]
    size = f"B={result['batch']} T={result['length']}"
    return "\n".join([*lines, s5_tiles.table(result["s5"], size)])


def _ms(timing: dict) -> str:
    return f"{timing['median'] * 1e3:.2f} ({timing['minimum'] * 1e3:.2f})"
