"""The packed sparse product on a GPU, in Triton, for up to 16 vectors at once; `reference` has the format.

A program, one warp, takes some rows through one or more segments. A tile of a row's entries is read, 8 to a
lane; a running sum of the distances gives their columns, a gather brings x at those, and products are
summed in float32, within lanes and then across them. Where there are few rows their segments go to
different programs, whose sums are added up in the order of the segments. No atomics: results are the same
in every run.

The limit is the weight's bytes over the bandwidth that a read reaches: 3 bytes per nonzero in half
precision and 2 in int8, a few per cent more for filled-up cells (`PackedWeight.nbytes` counts them), beside
2 bytes per entry of a dense matrix in half precision. x is small and should stay in the L1 cache. A product
whose bytes take less time than a launch gains nothing more: for those there is a whole model's step in one
CUDA graph (lrnn.engine.cuda). Nothing here has run on a GPU yet but through the compiler:
experiments/gpu_bench.py measures it.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from lrnn.kernels.sparse_matvec.reference import GROUP, SEGMENT
from torch import Tensor

_WARPS = 8  # of one program each, wanted per multiprocessor before segments share a program
_PROCESSORS = 132  # where there is no GPU, so that the interpreter cuts rows as on an H100


@triton.jit
def _matvec(
    x,
    values,
    deltas,
    starts,
    scales,
    bias,
    y,
    batch,
    rows,
    segments,
    per_split,
    HAS_BIAS: tl.constexpr,
    SPLIT: tl.constexpr,
    ROWS: tl.constexpr,
    TILE: tl.constexpr,
    BATCH: tl.constexpr,
    SEGMENT: tl.constexpr,
    GROUP: tl.constexpr,
):
    """y (batch, rows) of x (cols, BATCH); with SPLIT a split's part of it, (splits, batch, rows) float32."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    split = tl.program_id(1)
    item = tl.arange(0, BATCH)
    sums = tl.zeros((ROWS, BATCH), tl.float32)
    for segment in range(split * per_split, tl.minimum((split + 1) * per_split, segments)):
        cell = row * segments + segment
        start = tl.load(starts + cell, mask=row < rows, other=0)
        count = (tl.load(starts + cell + 1, mask=row < rows, other=0) - start) * GROUP
        start = start * GROUP
        column = tl.zeros((ROWS,), tl.int32) + segment * SEGMENT
        for first in range(0, tl.max(count, axis=0), TILE):
            k = first + tl.arange(0, TILE)
            inside = k[None, :] < count[:, None]
            at = start[:, None] + k[None, :]
            delta = tl.load(deltas + at, mask=inside, other=0).to(tl.int32)
            value = tl.load(values + at, mask=inside, other=0).to(tl.float32)
            columns = column[:, None] + tl.cumsum(delta, axis=1)
            column += tl.sum(delta, axis=1)
            places = columns[:, :, None] * BATCH + item[None, None, :]
            vectors = tl.load(x + places, mask=inside[:, :, None], other=0.0).to(tl.float32)
            sums += tl.sum(value[:, :, None] * vectors, axis=1)
    place = item[None, :] * rows + row[:, None]
    if SPLIT:
        place += split * batch * rows
    else:
        sums *= tl.load(scales + row, mask=row < rows, other=0.0)[:, None]
        if HAS_BIAS:
            sums += tl.load(bias + row, mask=row < rows, other=0.0).to(tl.float32)[:, None]
    mask = (row < rows)[:, None] & (item < batch)[None, :]
    tl.store(y + place, sums.to(y.dtype.element_ty), mask=mask)


def packed_matvec(
    x: Tensor, values: Tensor, deltas: Tensor, starts: Tensor, scales: Tensor, bias: Tensor | None
) -> Tensor:
    """See `reference.packed_matvec`."""
    batch, cols = x.shape
    rows, segments = len(scales), triton.cdiv(cols, SEGMENT)
    if len(values) == 0 or batch == 0:  # nothing to sum, or nothing to launch for
        y = x.new_zeros((batch, rows))
        return y if bias is None else y + bias.to(x.dtype)
    processors = (
        torch.cuda.get_device_properties(x.device).multi_processor_count if x.is_cuda else _PROCESSORS
    )
    shape = block_shape(batch, len(values), rows, segments)
    programs = triton.cdiv(rows, shape["ROWS"])
    per_split = triton.cdiv(segments, max(1, _WARPS * processors // programs))
    splits = triton.cdiv(segments, per_split)
    y = x.new_empty((splits, batch, rows), dtype=x.dtype if splits == 1 else torch.float32)
    with torch.cuda.device_of(x):
        _matvec[(programs, splits)](
            _columns_first(x, shape["BATCH"]),
            values,
            deltas,
            starts,
            scales,
            bias,
            y,
            batch,
            rows,
            segments,
            per_split,
            HAS_BIAS=bias is not None,
            SPLIT=splits > 1,
            SEGMENT=SEGMENT,
            GROUP=GROUP,
            num_warps=1,
            **shape,
        )
    if splits == 1:
        return y[0]
    y = y.sum(0) * scales
    return (y if bias is None else y + bias).to(x.dtype)


def block_shape(batch: int, entries: int, rows: int, segments: int) -> dict[str, int]:
    """What a program, one warp, takes at a time: ROWS, entries of each (TILE), and BATCH, a power of two.

    A tile holds most cells whole. A lane has 8 entries of it, which it reads in one piece, and fewer where it
    would have more than 32 products of them to sum.
    """
    vectors = triton.next_power_of_2(batch)
    most = 32 * min(8, max(2, 32 // vectors))
    mean = entries / (rows * segments)
    tile = triton.next_power_of_2(math.ceil(mean + 2 * math.sqrt(mean)))
    tile = min(most, max(32, tile))
    return {"ROWS": most // tile, "TILE": tile, "BATCH": vectors}


def _columns_first(x: Tensor, vectors: int) -> Tensor:
    """x (batch, cols) as (cols, vectors), with zeros to fill up: what one entry needs lies together."""
    if len(x) == vectors:
        return x.T.contiguous()
    filled = x.new_zeros((x.shape[1], vectors))
    filled[:, : len(x)] = x.T
    return filled
