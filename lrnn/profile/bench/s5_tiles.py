"""Where an S5 layer's time goes, and what its evaluation in tiles of time gains: part of `lrnn bench scan`.

Tiles of time keep the states (B, T, 2P) in cache between the input product, the scan and the output product.
They leave the products themselves: two forward, six with the backward pass. The time of the products alone is
thus the limit of any such fusion, and the layer's time over theirs the most that it could gain.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lrnn.nn import S5
from lrnn.ops import scan
from lrnn.profile.bench.timing import interleaved

D_MODEL, D_STATE = 192, 256  # the paper's k = 1
TILE = 512  # steps: 256 to 1000 differ by little, 128 is slower


def run(batch: int, length: int, rounds: int, budget: float, seed: int = 0) -> dict:
    """Time a layer, its parts and its tiled form on x (batch, length, 192), with torch's present threads.

    Args:
        batch: sequences.
        length: steps.
        rounds: most rounds.
        budget: seconds, for each of forward alone and forward with backward.
        seed: of the parameters and of x.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layer = S5(D_MODEL, D_STATE, blocks=4, relu="parts")
        x = torch.randn(batch, length, D_MODEL)
    with torch.no_grad():
        lambda_bar, gain = layer.discretize()
        B_bar, C = layer.input_matrix(gain), layer.output_matrix()
        Bx = F.linear(x, B_bar)
        complex_Bx = torch.view_as_complex(Bx.unflatten(-1, (-1, 2)))
        error = (in_tiles(layer, x) - layer(x)[0]).abs().max().item()
        if not error < 1e-4:
            raise RuntimeError(f"S5 in tiles of time differs from the layer by {error:.1e}")
        forward = {
            "layer": lambda: layer(x),
            "products": lambda: (F.linear(x, B_bar), F.linear(Bx, C)),
            "scan": lambda: scan(lambda_bar, complex_Bx),
            "tiles": lambda: in_tiles(layer, x),
        }
        times = {"forward": interleaved(forward, rounds=rounds, budget=budget)}
    flat_x, flat_Bx = x.flatten(0, 1), Bx.flatten(0, 1)
    leaf, cotangent = x.clone().requires_grad_(), torch.randn_like(x)
    training = {
        "layer": lambda: torch.autograd.grad(layer(leaf)[0], [leaf, *layer.parameters()], cotangent),
        "products": lambda: _six_products(flat_x, flat_Bx, B_bar, C),
    }
    times["training"] = interleaved(training, rounds=rounds, budget=budget)
    return {
        "d_model": D_MODEL,
        "d_state": D_STATE,
        "tile": TILE,
        "most_gain": {name: t["layer"].median / t["products"].median for name, t in times.items()},
        "tiles_gain": times["forward"]["layer"].median / times["forward"]["tiles"].median,
        "seconds": {name: {k: v.to_dict() for k, v in t.items()} for name, t in times.items()},
    }


def in_tiles(layer: S5, x: Tensor, tile: int = TILE) -> Tensor:
    """layer(x)'s output (B, T, H), one sequence and one tile of time after another; without gradients."""
    lambda_bar, gain = layer.discretize()
    B_bar, C = layer.input_matrix(gain).t(), layer.output_matrix().t()
    y = torch.empty_like(x)
    for frames, out in zip(x, y, strict=True):
        state = None
        for start in range(0, len(frames), tile):
            piece = frames[start : start + tile]
            Bx = torch.view_as_complex((piece @ B_bar).unflatten(-1, (-1, 2)))
            h, state = scan(lambda_bar, Bx.unsqueeze(0), state)
            parts = layer.state_relu(torch.view_as_real(h)).flatten(-2).squeeze(0)
            torch.mm(parts, C, out=out[start : start + tile]).addcmul_(piece, layer.D)
    return y


def _six_products(x: Tensor, states: Tensor, B_bar: Tensor, C: Tensor) -> tuple[Tensor, ...]:
    """Both products, the gradient of each to its input and to its matrix; x stands for y's gradient too."""
    forward = x @ B_bar.t(), states @ C.t()
    return *forward, x @ C, x.t() @ states, states @ B_bar, states.t() @ x


def table(result: dict, size: str) -> str:
    """The figures as a table for people; `size` says batch and length."""
    lines = [f"S5 layer: {size} d_model={result['d_model']} d_state={result['d_state']}; ms, median (min)"]
    for name, title in (("forward", "forward"), ("training", "forward and backward")):
        times = result["seconds"][name]
        parts = "  ".join(
            f"{part} {t['median'] * 1e3:.1f} ({t['minimum'] * 1e3:.1f})" for part, t in times.items()
        )
        lines.append(f"  {title:21}{parts}  layer/products {result['most_gain'][name]:.2f}")
    lines.append(
        f"  forward in tiles of {result['tile']} steps: {result['tiles_gain']:.2f}x the layer's speed"
    )
    return "\n".join(lines)
