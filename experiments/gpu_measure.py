"""What experiments/gpu_bench.py measures: correctness in float64, sparse products, scans, whole steps.

Every function is a generator of rows, ready for JSON, so that what was measured survives what fails later.
gpu_clock.py says what a time is. Fractions are of a copy measured in the same run.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from gpu_clock import Clock, DryClock, Times, or_reason, rate
from lrnn.kernels.scan import reference as scan_reference
from lrnn.kernels.sparse_matvec import reference as matvec_reference
from torch import Tensor, nn
from torch.nn import functional as F

import lrnn
from lrnn.engine.cuda import DecodeStep
from lrnn.ops import PackedWeight
from lrnn.program import nodes as op


@dataclass(frozen=True)
class Plan:
    """What to measure, and on what."""

    device: str
    sizes: tuple[int, ...]
    batches: tuple[int, ...]
    sparsities: tuple[float, ...]
    formats: tuple[str, ...]
    scans: tuple[tuple[int, int, int], ...]  # batch, length, width
    widths: tuple[int, ...]  # of the models whose step is timed
    streams: tuple[int, ...]  # stepped together; few, since every step is compiled anew
    copy_bytes: int
    tested: tuple[tuple[int, int], ...]  # shapes of matrices whose product is checked
    tested_scans: tuple[tuple[int, int, int], ...]


FULL = Plan(
    device="cuda",
    sizes=(1024, 2048, 4096, 8192),
    batches=(1, 4, 16),
    sparsities=(0.5, 0.6, 0.7, 0.8, 0.9, 0.95),
    formats=("float16", "int8"),
    scans=((8, 1000, 64), (8, 16000, 128), (1, 65536, 128), (8, 4096, 1024), (512, 512, 256)),
    widths=(192, 1024),
    streams=(1, 16),
    copy_bytes=2**29,
    tested=((1, 1), (33, 300), (192, 257), (1000, 2049), (4096, 4096), (64, 8192)),
    tested_scans=((1, 1, 1), (3, 37, 45), (1, 3001, 37), (200, 130, 64)),
)
TINY = Plan(
    device="cpu",
    sizes=(32,),
    batches=(1, 3),
    sparsities=(0.7, 0.9),
    formats=("float16", "int8"),
    scans=((1, 9, 3),),
    widths=(48,),
    streams=(1, 3),
    copy_bytes=2**12,
    tested=((5, 70),),
    tested_scans=((1, 9, 3),),
)


def copy(plan: Plan, clock: Clock | DryClock) -> Iterator[dict]:
    """Bandwidth of a copy, read and written bytes together, in TB/s."""
    source = torch.zeros(plan.copy_bytes // 4, device=plan.device)
    target = torch.empty_like(source)
    times = clock(lambda: target.copy_(source))
    yield {"bytes": 2 * plan.copy_bytes, **times, "TB/s": rate(2 * plan.copy_bytes, times)}


def correctness(plan: Plan) -> Iterator[dict]:
    """Errors against float64, relative to the largest result; `ok` if rounding explains the largest."""
    from lrnn.kernels.sparse_matvec import gpu

    for shape in plan.tested:
        for format in matvec_reference.FORMATS:
            for batch in plan.batches:
                packed = PackedWeight.from_dense(_sparse(shape, 0.9, plan.device), format)
                x = torch.randn(batch, shape[1], device=plan.device)
                want = x.double() @ packed.to_dense().double().T
                error = _error(gpu.packed_matvec(x, *packed[:4], None), want)
                name = f"matvec {shape[0]}x{shape[1]} {format} batch {batch}"
                yield _verdict(name, [error], 1e-5)
    for shape in plan.tested_scans:
        for kind in _SCANS:
            for reverse in (False, True):
                yield from _scan_errors(shape, kind, reverse, plan.device)


def _scan_errors(shape: tuple[int, int, int], kind: str, reverse: bool, device: str) -> Iterator[dict]:
    from lrnn.kernels.scan import gpu

    a, b = _scan_inputs(shape, kind, device)
    reset = torch.rand(shape[:2], device=device) < 0.05
    h0 = torch.randn_like(b[:, 0], dtype=scan_reference.accumulator(b.dtype))
    wide = torch.complex128 if b.is_complex() else torch.float64
    wide_a = a.to(torch.complex128 if a.is_complex() else torch.float64)
    h, last = gpu.scan(a, b, h0, reset, reverse)
    want_h, want_last = scan_reference.scan(wide_a, b.to(wide), h0.to(wide), reset, reverse)
    found = gpu.scan_backward(b, h0, a, h, h0, reset, reverse)
    want = scan_reference.scan_backward(
        b.to(wide), h0.to(wide), wide_a, h.to(wide), h0.to(wide), reset, reverse
    )
    errors = [_error(x, y) for x, y in zip((h, last, *found), (want_h, want_last, *want), strict=True)]
    limit = 2e-2 if b.dtype == torch.bfloat16 else 2e-5
    name = f"scan {shape} {kind}{' reverse' if reverse else ''}"
    yield _verdict(name, errors, limit)


def matvec(plan: Plan, clock: Clock | DryClock) -> Iterator[dict]:
    """Packed products beside the best dense one in half precision, torch's CSR and torch's 2:4."""
    from lrnn.kernels.sparse_matvec import gpu

    for n in plan.sizes:
        dense = torch.randn(n, n, device=plan.device, dtype=torch.float16)
        x_of = {b: torch.randn(b, n, device=plan.device, dtype=torch.float16) for b in plan.batches}
        dense_of = {b: _dense(dense, x, clock) for b, x in x_of.items()}
        semi_of = {b: _semi_structured(dense, x, clock) for b, x in x_of.items()}
        for sparsity in plan.sparsities:
            weight = dense * (torch.rand_like(dense, dtype=torch.float32) >= sparsity)
            packed_of = {f: PackedWeight.from_dense(weight, f) for f in plan.formats}
            for b, x in x_of.items():
                row = {"size": n, "batch": b, "sparsity": sparsity}
                row |= {
                    "dense float16": dense_of[b],
                    "2:4": semi_of[b],
                    "CSR float32": _csr(weight, x, clock),
                }
                for format, packed in packed_of.items():
                    times = clock(lambda x=x, packed=packed: gpu.packed_matvec(x, *packed[:4], None))
                    row[format] = {**times, "bytes": packed.nbytes, "TB/s": rate(packed.nbytes, times)}
                    row[format]["x dense"] = {
                        k: dense_of[b][k] / times[k]
                        for k in ("cold", "warm")
                        if k in times and k in dense_of[b]
                    }
                yield row


def scan(plan: Plan, clock: Clock | DryClock) -> Iterator[dict]:
    """Scans, forward and backward, beside a copy of the bytes that they must move at the least."""
    from lrnn.kernels.scan import gpu

    for shape in plan.scans:
        for kind in _SCANS:
            a, b = _scan_inputs(shape, kind, plan.device)
            h, last = gpu.scan(a, b)
            varying = a.dim() == 3
            bytes_b, bytes_a = b.nbytes, a.nbytes if varying else 0
            calls = {
                "forward": (lambda a=a, b=b: gpu.scan(a, b), 2 * bytes_b + bytes_a),
                "backward": (
                    lambda a=a, b=b, h=h, last=last: gpu.scan_backward(b, last, a, h),
                    3 * bytes_b + 2 * bytes_a,
                ),
            }
            for name, (call, least) in calls.items():
                source = torch.empty(least // 2, dtype=torch.uint8, device=plan.device)
                target = torch.empty_like(source)
                copied = clock(lambda target=target, source=source: target.copy_(source))
                times = clock(call)
                row = {"shape": list(shape), "kind": kind, "pass": name, "bytes": least, **times}
                row["TB/s"] = rate(least, times)
                row["of a copy"] = {k: copied[k] / times[k] for k in ("cold", "warm") if k in times}
                yield row


def step(plan: Plan, clock: Clock | DryClock) -> Iterator[dict]:
    """One frame through a whole S5 network, called from Python: 90 % sparse in a graph, and dense."""
    for width in plan.widths:
        config = lrnn.SequenceModelConfig(
            d_in=width, d_out=width, d_model=width, d_state=width, blocks=4, n_layers=3
        )
        torch.manual_seed(0)
        model = lrnn.SequenceModel(config).eval()
        program = lrnn.compile(model)
        model = model.to(plan.device)
        for batch in plan.streams:
            row = {"width": width, "batch": batch, "seconds from": "Python, wall clock (warm)"}
            x = torch.randn(batch, width, device=plan.device)
            sparse = DecodeStep(_thinned(program, 0.9), batch, "int8", plan.device)
            row["sparse int8, graph"] = clock.replayed(lambda x=x, sparse=sparse: sparse.step(x))
            graph = DecodeStep(program, batch, device=plan.device)
            row["dense float32, graph"] = clock.replayed(lambda x=x, graph=graph: graph.step(x))
            row["torch eager"] = clock.replayed(_frame_by_frame(model, x))
            if plan.device == "cuda" and batch == 1:  # compiling takes longer than all the rest
                compiled = torch.compile(model, mode="reduce-overhead")
                row["torch.compile"] = or_reason(lambda: clock.replayed(_frame_by_frame(compiled, x)))  # noqa: B023
            yield row


_SCANS = {  # dtype of a, of b, whether a is constant
    "complex, constant a": (torch.complex64, torch.complex64, True),
    "complex, varying a": (torch.complex64, torch.complex64, False),
    "float32, varying a": (torch.float32, torch.float32, False),
    "bfloat16, varying a": (torch.bfloat16, torch.bfloat16, False),
}


def _scan_inputs(shape: tuple[int, int, int], kind: str, device: str) -> tuple[Tensor, Tensor]:
    a_dtype, b_dtype, constant = _SCANS[kind]
    wide = torch.complex64 if a_dtype.is_complex else torch.float32
    a = torch.randn(shape[2] if constant else shape, dtype=wide, device=device)
    a = (a / (a.abs() + 0.1)).to(a_dtype)  # slow states among them
    return a, torch.randn(shape, dtype=b_dtype, device=device)


def _sparse(shape: tuple[int, int], sparsity: float, device: str) -> Tensor:
    return torch.randn(shape, device=device) * (torch.rand(shape, device=device) >= sparsity)


def _thinned(program: lrnn.Program, sparsity: float) -> lrnn.Program:
    """The program with this share of every matrix at zero."""
    rng = np.random.default_rng(0)
    nodes = (
        replace(n, weight=n.weight * (rng.random(n.weight.shape) >= sparsity)) if type(n) is op.Linear else n
        for n in program.nodes
    )
    return replace(program, nodes=tuple(nodes))


def _frame_by_frame(model: nn.Module, x: Tensor) -> Callable[[], object]:
    """A call that carries the model's state on; cloned, since a compiled model reuses its outputs."""
    frame, carried = x[:, None], [None]

    @torch.inference_mode()
    def call():
        y, state = model(frame, carried[0])
        carried[0] = torch.utils._pytree.tree_map(torch.clone, state)
        return y

    return call


def _dense(weight: Tensor, x: Tensor, clock: Clock | DryClock) -> Times:
    """The fastest of torch's ways to a dense product."""
    calls = [lambda: F.linear(x, weight)]
    if len(x) == 1:
        calls.append(lambda: torch.mv(weight, x[0]))
    return min((clock(call) for call in calls), key=lambda times: times["cold"])


def _csr(weight: Tensor, x: Tensor, clock: Clock | DryClock) -> Times:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        csr, columns = weight.float().to_sparse_csr(), x.float().T.contiguous()
    return or_reason(lambda: clock(lambda: csr @ columns))


def _semi_structured(weight: Tensor, x: Tensor, clock: Clock | DryClock) -> Times:
    """2:4, half of the weights zero whatever the row's sparsity; it wants 8 columns or more."""

    def measure() -> Times:
        from torch.sparse import to_sparse_semi_structured

        keep = torch.tensor([0, 0, 1, 1], device=weight.device, dtype=torch.bool)
        semi = to_sparse_semi_structured(weight * keep.repeat(weight.shape[1] // 4))
        wide = F.pad(x, (0, 0, 0, max(0, 16 - len(x))))
        return clock(lambda: F.linear(wide, semi))

    return or_reason(measure)


def _verdict(case: str, errors: list[float], limit: float) -> dict:
    """Right if every error is below the limit; a NaN is not, and JSON has none."""
    finite = all(map(math.isfinite, errors))
    return {"case": case, "error": max(errors) if finite else None, "ok": finite and max(errors) < limit}


def _error(found: Tensor, want: Tensor) -> float:
    if want.numel() == 0:
        return 0.0
    worst = (found.to(want.dtype) - want).abs().max()
    return float(worst / want.abs().max().clamp(min=1e-30))
