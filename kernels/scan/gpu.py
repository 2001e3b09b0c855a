"""The scan on a GPU, in Triton, cut in time so that few long sequences fill it too.

Same functions as `reference`. Where sequences and channels alone give every multiprocessor enough programs,
one launch walks each sequence from end to end. Otherwise time is cut in chunks and there are three phases:
`summarise` turns every chunk into one step (its decay, its end from zero), those steps are themselves scanned
by this same function, and the last launch walks all chunks at once from what enters them. No atomics, and no
order that depends on timing: results are the same in every run.

The limit is traffic. Elements per channel and step, and what a chunked scan takes from DRAM at the worst:

                                 one launch             chunked
    forward, constant a          2  (b, h)              3
    forward, varying a           3  (a, b, h)           5
    backward, constant a         3  (g, h, grad_b)      4
    backward, varying a          5  (and a, grad_a)     7

What a chunked scan reads twice it reads the second time from the L2 cache, as far as that holds it: for this
the last phase goes through the chunks backwards. The aim is the time that a copy takes to move as many bytes.
Nothing here has run on a GPU yet but through the compiler: experiments/gpu_bench.py measures it.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from lrnn.kernels.scan import gpu_kernels as kernels
from lrnn.kernels.scan.reference import accumulator
from torch import Tensor

_IN_FLIGHT = 3 * 2**14  # bytes of loads to be under way per multiprocessor: bandwidth times latency, and some
_MOST_WARPS = 24  # per multiprocessor, with the registers that the kernels take
_SHORTEST = 32  # steps of a chunk: below this the carries are no small part of the traffic
_PROCESSORS = 132  # where there is no GPU, so that the interpreter cuts time as an H100 does
_ROWS = {"summarise": 8, "forward": 8, "backward": 4}  # steps whose loads are under way together


def scan(
    a: Tensor, b: Tensor, h0: Tensor | None = None, reset: Tensor | None = None, reverse: bool = False
) -> tuple[Tensor, Tensor]:
    """See `reference.scan`."""
    h = b.new_empty(b.shape)
    h_last = b.new_empty((b.shape[0], b.shape[2]), dtype=accumulator(b.dtype))
    run = _Launcher(a, b, reset, reverse)
    if run.empty:
        return h, h_last.zero_() if h0 is None else h_last.copy_(h0)
    carries = run.carries(b, h0, backward=False)
    run(
        kernels.forward,
        (b, a, reset, h0, carries, h, h_last),
        HAS_H0=h0 is not None,
        CHUNKED=carries is not None,
    )
    return h, h_last


def scan_backward(
    grad_h: Tensor,
    grad_last: Tensor,
    a: Tensor,
    h: Tensor,
    h0: Tensor | None = None,
    reset: Tensor | None = None,
    reverse: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """See `reference.scan_backward`. The sum over time for a constant `a`: in chunks, then over them."""
    grad_b = h.new_empty(h.shape)
    grad_h0 = h.new_empty(grad_last.shape, dtype=accumulator(h.dtype))
    run = _Launcher(a, h, reset, reverse)
    if run.empty:
        return torch.zeros_like(a, memory_format=torch.contiguous_format), grad_b, grad_h0.copy_(grad_last)
    carries = run.carries(grad_h, grad_last, backward=True)
    constant = a.dim() == 1
    sums = (h.shape[0], run.chunks, h.shape[2])
    grad_a = a.new_empty(sums if constant else a.shape, dtype=accumulator(a.dtype) if constant else a.dtype)
    run(
        kernels.backward,
        (grad_h, a, reset, grad_last, carries, h, h0, grad_a, grad_b, grad_h0),
        HAS_H0=h0 is not None,
        CHUNKED=carries is not None,
    )
    return grad_a.sum((0, 1)).to(a.dtype) if constant else grad_a, grad_b, grad_h0


def chunk_steps(programs: int, length: int, wanted: int) -> int:
    """Steps of a chunk, a multiple of 8; `length` or more where cutting time is not needed or does not pay.

    Args:
        programs: that there are without cutting: sequences times blocks of channels. Half of what is wanted
            is enough, since cutting costs traffic.
        length: steps of a sequence.
        wanted: programs that fill the GPU.
    """
    chunks = min(triton.cdiv(wanted, max(1, programs)), length // _SHORTEST)
    if 2 * programs >= wanted or chunks < 2:
        return max(length, 1)
    return triton.cdiv(triton.cdiv(length, chunks), 8) * 8


class _Launcher:
    """One problem's geometry: how channels and time are cut, and the constants all its kernels share."""

    def __init__(self, a: Tensor, x: Tensor, reset: Tensor | None, reverse: bool):
        self.a, self.reset, self.reverse = a, reset, reverse
        self.batch, self.length, self.width = x.shape
        self.acc = accumulator(x.dtype)
        self.empty = x.numel() == 0
        self.processors = (
            torch.cuda.get_device_properties(x.device).multi_processor_count if x.is_cuda else _PROCESSORS
        )
        step_bytes = x.element_size() + (a.element_size() if a.dim() == 3 else 0)  # of one channel
        self.block = self._block(x.element_size(), step_bytes)
        self.blocks = triton.cdiv(self.width, self.block)
        self.steps = chunk_steps(self.batch * self.blocks, self.length, self._wanted(self.block, step_bytes))
        self.chunks = triton.cdiv(self.length, self.steps)
        self.constants = {
            "A_CONSTANT": a.dim() == 1,
            "A_COMPLEX": a.is_complex(),
            "COMPLEX": x.is_complex(),
            "HAS_RESET": reset is not None,
            "REVERSE": reverse,
            "ACC": tl.float64 if self.acc in (torch.float64, torch.complex128) else tl.float32,
            "BLOCK": self.block,
        }

    def _wanted(self, block: int, step_bytes: int) -> int:
        """Programs that fill the GPU."""
        under_way = _ROWS["forward"] * block * step_bytes
        return self.processors * max(1, min(_MOST_WARPS, _IN_FLIGHT // under_way))

    def _block(self, size: int, step_bytes: int) -> int:
        """Channels of a program, one warp: 16 bytes per lane unless that leaves too few programs."""
        block = min(128, 32 * max(1, 16 // size))
        while block > 32 and (
            self.width <= block // 2
            or self.batch * triton.cdiv(self.width, block) * max(1, self.length // _SHORTEST)
            < self._wanted(block, step_bytes)
        ):
            block //= 2
        return block

    def carries(self, x: Tensor, start: Tensor | None, backward: bool) -> Tensor | None:
        """What leaves every chunk (batch, chunks, width); None where there is only one."""
        if self.chunks == 1:
            return None
        ends = x.new_empty((self.batch, self.chunks, self.width), dtype=self.acc)
        acc = self.acc if self.a.is_complex() else self.acc.to_real()
        decays = torch.empty(ends.shape, dtype=acc, device=x.device)
        cuts = x.new_empty(ends.shape[:2], dtype=torch.bool) if self.reset is not None else None
        self(kernels.summarise, (x, self.a, self.reset, ends, decays, cuts), BACKWARD=backward)
        return scan(decays, ends, start, cuts)[0]

    def __call__(self, kernel, arrays: tuple[Tensor | None, ...], **constants: bool) -> None:
        """Run `kernel` over all sequences, chunks and blocks of channels."""
        device = torch.cuda.device_of(next(x for x in arrays if x is not None))
        with device:
            kernel[(self.batch * self.chunks * self.blocks,)](
                *(None if x is None else _plain(x) for x in arrays),
                self.length,
                self.width,
                self.steps,
                self.chunks,
                **self.constants,
                **constants,
                ROWS=_ROWS[kernel.__name__],
                num_warps=1,
            )


def _plain(x: Tensor) -> Tensor:
    """x dense, in a dtype that Triton knows: complex as pairs, bool as bytes."""
    x = x.resolve_conj().resolve_neg().contiguous()
    if x.is_complex():
        return torch.view_as_real(x)
    return x.view(torch.uint8) if x.dtype == torch.bool else x
