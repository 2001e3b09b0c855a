"""`lrnn bench spmm --train`: a training step with a frozen mask, through SparseLinear and dense layers.

Three square layers with ReLU between, forward, backward and Adam, on a batch of rows; one pinned thread, all
interleaved in one process. "masked" is what `lrnn.Prune` leaves after its end: dense layers whose masks no
longer change. "dense" is the same without masks: what the zeros cost to keep out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from lrnn.profile.bench.timing import interleaved, torch_threads
from lrnn.prune import Pruner, sparsify

WIDTHS, COLUMNS, LAYERS = (192, 512, 1024), (256, 1024), 3


def run(
    widths: Sequence[int] = WIDTHS,
    columns: Sequence[int] = COLUMNS,
    sparsity: float = 0.9,
    rounds: int = 7,
    seed: int = 0,
) -> dict:
    """Measure and return the figures, ready for JSON: for each width and T seconds per step and their ratios.

    Args:
        widths: of the layers.
        columns: T, time steps in a batch.
        sparsity: fraction of zeros, by magnitude.
        rounds: timed rounds.
        seed: of weights and inputs.

    Raises:
        ValueError: an argument is out of range.
        RuntimeError: the ways do not agree on the first loss.
    """
    if min([rounds, *widths, *columns], default=1) < 1 or not 0 <= sparsity < 1:
        raise ValueError(
            f"widths, columns, rounds, sparsity are {widths}, {columns}, {rounds}, {sparsity}, "
            "expected at least 1, and 0 <= sparsity < 1"
        )
    rows = []
    with torch_threads(1, pin=True):
        for width in widths:
            for T in columns:
                times = interleaved(_subjects(width, T, sparsity, seed), rounds=rounds, budget=15)
                seconds = {name: t.to_dict() for name, t in times.items()}
                sparse = seconds["SparseLinear"]["median"]
                faster = {name: t["median"] / sparse for name, t in seconds.items() if name != "SparseLinear"}
                rows.append({"width": width, "columns": T, "sparsity": sparsity, "seconds": seconds})
                rows[-1]["times_faster"] = faster
    return {"bench": "spmm --train", "torch": torch.__version__, "rows": rows}


def _subjects(width: int, T: int, sparsity: float, seed: int) -> dict[str, Callable[[], float]]:
    networks = {name: _network(width, seed) for name in ("dense", "masked", "SparseLinear")}
    for name in ("masked", "SparseLinear"):
        Pruner(networks[name], sparsity, distribution="uniform").attach().step(0)
    sparsify(networks["SparseLinear"])
    x, target = torch.randn(2, T, width, generator=torch.Generator().manual_seed(seed))
    subjects = {name: _training(network, x, target) for name, network in networks.items()}
    masked, sparse = subjects["masked"](), subjects["SparseLinear"]()
    if not abs(masked - sparse) <= 1e-4 * abs(masked):
        raise RuntimeError(f"the first loss is {sparse} with SparseLinear, expected {masked}")
    return subjects


def _network(width: int, seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    layers = [layer for _ in range(LAYERS) for layer in (nn.Linear(width, width), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


def _training(network: nn.Module, x: torch.Tensor, target: torch.Tensor) -> Callable[[], float]:
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)

    def step() -> float:
        loss = (network(x) - target).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return step


def table(result: dict) -> str:
    """The figures as a table for people."""
    rows = result["rows"]
    lines = [
        f"training step of {LAYERS} layers, Adam, frozen mask, {100 * rows[0]['sparsity']:g} % zeros, "
        "one pinned thread; ms, median (min)",
        f"{'width':>6}{'T':>6}{'SparseLinear':>18}{'masked':>18}{'dense':>18}{'x masked':>10}{'x dense':>10}",
    ]
    for row in rows:
        times = [row["seconds"][name] for name in ("SparseLinear", "masked", "dense")]
        cells = [f"{t['median'] * 1e3:.2f} ({t['minimum'] * 1e3:.2f})" for t in times]
        lines.append(
            f"{row['width']:>6}{row['columns']:>6}"
            + "".join(f"{cell:>18}" for cell in cells)
            + "".join(f"{row['times_faster'][name]:>10.2f}" for name in ("masked", "dense"))
        )
    return "\n".join(lines)
