"""The values inside a SequenceModel under the golden files' names, and where ties excuse a difference."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lrnn.nn import S5, S5Block, SequenceModel


@torch.no_grad()
def trace(model: SequenceModel, x: Tensor) -> dict[str, Tensor]:
    """Run `model` on x (B, T, d_in) and return its intermediate values by the reference's names."""
    seen: dict[str, Tensor] = {}

    def watch(module: nn.Module, name: str, enters: str | None = None):
        def hook(_, args, out):
            seen[name] = out[0] if isinstance(out, tuple) else out
            if enters:
                seen[enters] = args[0]

        return module.register_forward_hook(hook)

    handles = [
        watch(model.encoder, "encoder/encoder/__call__", "encoder/pre_encoder"),
        watch(model.decoder, "decoder/__call__"),
    ]
    for i, block in enumerate(model.blocks):
        at = f"encoder/layers_{i}"
        handles += [
            watch(block, f"{at}/__call__", f"{at}/input"),
            watch(block.norm, f"{at}/norm/__call__"),
            watch(block.ssm, f"{at}/pre_GLU", f"{at}/pre_s5"),
            _count_calls(block.dropout, f"{at}/drop/__call__", seen),
        ]
        gates = {name: getattr(block, name) for name in ("out1", "out2")}
        handles += [watch(gate, f"{at}/{name}/__call__") for name, gate in gates.items() if gate is not None]
    seen["__call__"], _ = model(x)
    for handle in handles:
        handle.remove()
    for i, block in enumerate(model.blocks):
        _add_ssm(seen, f"encoder/layers_{i}", block)
    seen["encoder/encoder_output"] = seen["encoder/layers_0/input"]  # the encoder's Dense, after its ReLU
    seen["encoder/__call__"] = seen["pre_decoder"] = seen[f"encoder/layers_{len(model.blocks) - 1}/__call__"]
    return seen


def _count_calls(module: nn.Module, name: str, seen: dict[str, Tensor]):
    """flax numbers the outputs of a module called more than once: name.0, name.1."""

    def hook(_, args, out):
        if name in seen:
            seen[f"{name}.0"], seen[f"{name}.1"] = seen.pop(name), out
        else:
            seen[name] = out

    return module.register_forward_hook(hook)


def _add_ssm(seen: dict[str, Tensor], at: str, block: S5Block) -> None:
    """States and discretised matrices of a block's S5."""
    ssm = block.ssm
    states, _ = ssm.states(seen[f"{at}/pre_s5"])
    seen[f"{at}/pre_C"] = seen[f"{at}/mixer/__call__.0.1"] = torch.view_as_complex(states.contiguous())
    seen[f"{at}/mixer/__call__.0.0"] = seen[f"{at}/pre_GLU"]
    B_bar, C, D, lambda_bar = matrices(ssm)
    if block.config.norm == "frozen_batch":
        # The reference folds such a norm into B and D and feeds the layer's input as it is.
        scale, shift = block.norm.scale_shift()
        seen[f"{at}/pre_s5"] = seen[f"{at}/input"]
        seen[f"{at}/mixer/B_bias"], seen[f"{at}/mixer/D_bias"] = B_bar @ shift.to(B_bar.dtype), D * shift
        B_bar, D = B_bar * scale, D * scale
    found = {"Lambda_bar": lambda_bar, "B_bar": B_bar, "C_tilde": C, "D": D}
    seen.update({f"{at}/mixer/{name}": value for name, value in found.items()})


def matrices(ssm: S5) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """B_bar (P, H), C (H, P or 2P), D (H,) and lambda_bar (P,) of a layer."""
    lambda_bar, gain = ssm.discretize()
    return gain[:, None] * torch.view_as_complex(ssm.B), torch.view_as_complex(ssm.C), ssm.D, lambda_bar


def tied_frames(
    found: dict[str, Tensor], expected: dict[str, Tensor], tol: float
) -> tuple[Tensor | None, int]:
    """Frames (B, T) that a tie of the paper's state ReLU excuses, and the number of ties.

    The rule is a jump: a state whose real part is within rounding of zero may be kept by one implementation
    and dropped by the other. What follows it in time then differs with right on both sides. Layers are taken
    in order: a difference is a tie only if no tie in an earlier layer or frame explains it. Without states in
    `expected` the answer is None, 0.
    """
    excused, ties = None, 0
    layers = sum(name.endswith("/pre_C") for name in expected)
    for i in range(layers):
        a, b = (side[f"encoder/layers_{i}/pre_C"] for side in (found, expected))  # (B, T, P) complex
        near = (a.real.abs().maximum(b.real.abs()) <= tol * b.abs().max()) & ((a == 0) != (b == 0))
        if excused is None:
            excused = torch.zeros(a.shape[:2], dtype=torch.bool)
        tie = near & ~excused[..., None]
        ties += int(tie.sum())
        excused = excused | tie.any(-1).cumsum(1).bool()
    return excused, ties
