"""Whether a SparseLinear pays on this machine, and why: measured beside the dense layer, put into words."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from lrnn.nn import SparseLinear
from lrnn.ops import SparsePattern, SparseWeight, backends, sparse_linear
from lrnn.profile.bench.timing import interleaved


@dataclass(frozen=True)
class Case:
    """One number of time steps.

    Attributes:
        steps: T.
        kernel: what `lrnn.sparse_linear` runs.
        dense_seconds, sparse_seconds: of `F.linear` and of this layer's product, medians, as called here.
        crossover_density: below it the sparse product is the faster one, by a line through the times at two
            densities; 0 where it never is, 1 where always.
    """

    steps: int
    kernel: str
    dense_seconds: float
    sparse_seconds: float
    crossover_density: float

    @property
    def speed_up(self) -> float:
        """Times faster than dense."""
        return self.dense_seconds / self.sparse_seconds

    def __str__(self) -> str:
        where = (
            f"below about {100 * self.crossover_density:.0f} %" if self.crossover_density < 1 else "at every"
        )
        pays = f"pays {where if self.crossover_density > 0 else 'at no'} density"
        return (
            f"T = {self.steps}: {self.sparse_seconds * 1e6:.1f} us, dense {self.dense_seconds * 1e6:.1f} us: "
            f"{_ratio(self.speed_up)}; {pays}\n    {self.kernel}"
        )


@dataclass(frozen=True)
class Engine:
    """What the native engine would run, one vector at a time, by its cost model.

    Attributes:
        kernel: "dense", "windows" or "csr".
        cycles: expected, by format ("dense", "sparse").
        nbytes: that a product reads, indices and padding included.
    """

    kernel: str
    cycles: dict[str, float]
    nbytes: int

    def __str__(self) -> str:
        dense, sparse = self.cycles["dense"], self.cycles["sparse"]
        return (
            f"native engine (lrnn.compile), T = 1: kernel {self.kernel!r}, {_kib(self.nbytes)}; its model "
            f"expects {sparse:,.0f} cycles sparse, {dense:,.0f} dense: {_ratio(dense / max(sparse, 1e-9))}"
        )


@dataclass(frozen=True)
class Explanation:
    """What a layer costs beside a dense one; `str` puts it into words.

    Attributes:
        shape: (out_features, in_features).
        nonzeros, density: of its weights.
        device, dtype, isa, threads: what the times hold for.
        bytes: "dense"; "sparse", what the forward pass reads; "training", with the gradients' part.
        cases: one step and many.
        engine: None where it is not built.
    """

    shape: tuple[int, int]
    nonzeros: int
    density: float
    device: str
    dtype: str
    isa: str
    threads: int
    bytes: dict[str, int]
    cases: tuple[Case, ...]
    engine: Engine | None

    def __str__(self) -> str:
        rows, cols = self.shape
        held = self.bytes
        lines = [
            f"SparseLinear {rows} x {cols}: {self.nonzeros:,} weights, density {100 * self.density:.1f} %, "
            f"{self.dtype} on {self.device}, {self.threads} thread(s)",
            f"kernels: {self.isa}",
            f"weights: {_kib(held['sparse'])} to multiply, {_kib(held['training'])} to train; dense "
            f"{_kib(held['dense'])}",
            *map(str, self.cases),
        ]
        return "\n".join([*lines, str(self.engine)] if self.engine else lines)

    def to_json(self) -> str:
        """One JSON object."""
        cases = [{**asdict(case), "speed_up": case.speed_up} for case in self.cases]
        return json.dumps({**asdict(self), "cases": cases})


@torch.no_grad()
def explain(layer: SparseLinear, steps: int = 256) -> Explanation:
    """Measure a layer for one step and for `steps`, a second or so.

    Args:
        layer: on any device; timed with torch's present number of threads.
        steps: T.

    Raises:
        ValueError: steps below 1, or a layer without entries.
    """
    if steps < 1:
        raise ValueError(f"steps is {steps}, expected at least 1")
    if layer.weight.numel() == 0:
        raise ValueError(f"layer: found {layer.out_features} x {layer.in_features}, expected some entries")
    values, pattern = layer.values.detach(), layer.pattern
    forward = (values, pattern.columns, pattern.cuts)
    return Explanation(
        shape=pattern.shape,
        nonzeros=pattern.nonzeros,
        density=pattern.density,
        device=str(values.device),
        dtype=str(values.dtype).removeprefix("torch."),
        isa=backends()["cuda" if values.is_cuda else "cpu"],
        threads=torch.get_num_threads(),
        bytes={
            "dense": layer.weight.nbytes,
            "sparse": sum(t.nbytes for t in forward),
            "training": values.nbytes + sum(t.nbytes for t in pattern),
        },
        cases=tuple(_case(layer, T) for T in dict.fromkeys((1, steps))),
        engine=_engine(layer.weight),
    )


def _case(layer: SparseLinear, steps: int) -> Case:
    """Times at the layer's own density and at another: a line through both meets the dense time."""
    dense, density = layer.weight, layer.density
    own = SparseWeight(layer.values, layer.pattern)
    other_density = density / 3 if density > 0.3 else min(1.0, 3 * density + 0.1)
    other = SparseWeight.from_dense(torch.ones_like(dense), _random_mask(dense, other_density))
    x = torch.randn(steps, layer.in_features, dtype=dense.dtype, device=dense.device)
    times = interleaved(
        {
            "dense": _waiting(lambda: F.linear(x, dense, layer.bias), dense),
            "own": _waiting(lambda: sparse_linear(x, own, layer.bias), dense),
            "other": _waiting(lambda: sparse_linear(x, other, layer.bias), dense),
        },
        rounds=9,
        budget=1.0,
    )
    at_dense, at_own, at_other = (times[name].median for name in ("dense", "own", "other"))
    slope = (at_other - at_own) / (other.pattern.density - density)
    meets = density + (at_dense - at_own) / slope if slope > 0 else float(at_own < at_dense)
    return Case(steps, _kernel(layer.pattern, dense, steps), at_dense, at_own, min(1.0, max(0.0, meets)))


def _random_mask(like: Tensor, density: float) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return (torch.rand(like.shape, generator=generator) < density).to(like.device)


def _waiting(call, like: Tensor):
    """The call, waited for where the device does not."""
    if not like.is_cuda:
        return call

    def wait():
        call()
        torch.cuda.synchronize(like.device)

    return wait


def _kernel(pattern: SparsePattern, like: Tensor, steps: int) -> str:
    if like.device.type != "cpu" or not backends()["cpu"].startswith("live"):
        return "no kernel of its own here: a dense product with the zeros written out"
    if steps == 1:
        return "compressed rows, four in turn: calling costs more than the product of a small layer"
    width = 256 // like.element_size()
    blocks = pattern.cuts.shape[0] - 1
    return (
        f"panels of {width} steps, each weight broadcast against one of x; {blocks} block(s) of columns, "
        "so that their part of a panel stays in the first-level cache"
    )


def _engine(weight: Tensor) -> Engine | None:
    from lrnn.engine.packed import PackedMatrix

    try:
        packed = PackedMatrix(weight.cpu().float().numpy())
    except RuntimeError:  # not built here
        return None
    costs = packed.costs
    return Engine(packed.kernel, {name: costs[name] for name in ("dense", "sparse")}, packed.nbytes)


def _ratio(speed_up: float) -> str:
    return f"{speed_up:.1f} times faster" if speed_up >= 1 else f"{1 / speed_up:.1f} times slower"


def _kib(nbytes: int) -> str:
    return f"{nbytes / 1024:,.0f} KiB"
