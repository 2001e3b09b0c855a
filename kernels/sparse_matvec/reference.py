"""y = W x + bias for a few vectors and a sparse W packed for a GPU: the packing, and the plain product.

A row is cut in segments of 2048 columns; a cell is one row's part of one segment. A cell's nonzeros stand
in rising order of columns, each with its value and one byte, its distance from the column before it (the
first one's from where the segment begins). A gap above 255 is bridged by entries of value 0 and distance
255, and a cell is filled up to a multiple of 8 entries with value 0 and distance 0.

    values   (entries,)             float16, bfloat16 or int8
    deltas   (entries,)             uint8
    starts   (rows segments + 1,)   int32, where each cell begins, row after row, in groups of 8 entries
    scales   (rows,)                float32: a row's product is multiplied with it. A power of two for int8,
                                    the finest that clips nothing; 1 for the others

Why distances and not a bitmask. Indices take 1 byte per nonzero here and 1 / (8 density) in a mask of one
bit per entry, so that the mask is the smaller one above a density of 12.5 % (at 50 %: 0.25 bytes) and the
larger one below (at 10 %: 1.25). But a warp that decodes a mask pays for every entry of the matrix, zeros
included: its 32 lanes hold a block's 32 columns, each ranks its bit with a population count, and at 10 %
density 29 of 32 do nothing more. With distances a lane pays for nonzeros only: 8 to a lane, read in one
piece, are summed up in registers, five shuffles add what the lanes before have, and columns and products
follow. Distances of 4 bits would save bytes where values have one (1.9 for 2 at 10 %, with the bridges that
gaps above 15 need) and none where they have two (3.1 for 3).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

FORMATS = {"float16": torch.float16, "bfloat16": torch.bfloat16, "int8": torch.int8}
SEGMENT = 2048  # columns: parts of one row can be multiplied apart from each other
GROUP = 8  # entries: what a lane reads in one piece
_LARGEST = 255  # distance that a byte holds


def pack(weight: Tensor, format: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return values, deltas, starts and scales of weight (rows, cols), on its device.

    Entries that are zero once rounded are left out.
    """
    rows, cols = weight.shape
    stored, scales = _rounded(weight, format)
    segments = -(-cols // SEGMENT)
    row, column = stored.nonzero(as_tuple=True)
    cell = row * segments + column // SEGMENT
    before = torch.cat([column.new_zeros(1), column[:-1]])
    opens = torch.cat([cell.new_ones(1, dtype=torch.bool), cell.diff() != 0])[: len(cell)]
    distance = column - torch.where(opens, column // SEGMENT * SEGMENT, before[: len(column)])
    bridges = (distance - 1).clamp(min=0) // _LARGEST
    entries = torch.zeros(rows * segments, dtype=torch.long, device=weight.device)
    entries.index_add_(0, cell, bridges + 1)
    starts = torch.cat([entries.new_zeros(1), (-(-entries // GROUP)).cumsum(0)])
    total = int(starts[-1]) * GROUP
    if total >= 2**31:
        raise ValueError(f"weight: {total} entries once packed, expected fewer than 2^31")
    ends = (bridges + 1).cumsum(0)  # of each nonzero's entries, as if cells were not filled up
    position = starts[cell] * GROUP + ends - (entries.cumsum(0) - entries)[cell] - 1
    values = torch.zeros(total, dtype=stored.dtype, device=weight.device)
    deltas = torch.zeros(total, dtype=torch.uint8, device=weight.device)
    values[position] = stored[row, column]
    deltas[position] = (distance - bridges * _LARGEST).to(torch.uint8)
    deltas[_places_before(position, bridges)] = _LARGEST
    return values, deltas, starts.int(), scales


def unpack(values: Tensor, deltas: Tensor, starts: Tensor, scales: Tensor, cols: int) -> Tensor:
    """W (rows, cols) in float32, as it is multiplied."""
    cells = len(starts) - 1
    segments = -(-cols // SEGMENT)
    counts = starts.diff().long() * GROUP
    cell = torch.repeat_interleave(torch.arange(cells, device=starts.device), counts)
    along = deltas.long().cumsum(0)
    from_start = torch.cat([along.new_zeros(1), along])[starts[:-1].long() * GROUP]
    column = along - from_start[cell] + cell % max(1, segments) * SEGMENT
    weight = torch.zeros((len(scales), cols), dtype=torch.float32, device=values.device)
    weight.index_put_((cell // max(1, segments), column), values.float(), accumulate=True)
    return weight * scales[:, None]


def packed_matvec(
    x: Tensor, values: Tensor, deltas: Tensor, starts: Tensor, scales: Tensor, bias: Tensor | None
) -> Tensor:
    """Return y (batch, rows) in x's dtype for x (batch, cols); sums are in float32."""
    weight = unpack(values, deltas, starts, scales, x.shape[1])
    return F.linear(x.float(), weight, None if bias is None else bias.float()).to(x.dtype)


def _rounded(weight: Tensor, format: str) -> tuple[Tensor, Tensor]:
    """The weight in the dtype of `format`, and a scale for every row."""
    if format != "int8":
        return weight.to(FORMATS[format]), torch.ones(len(weight), dtype=torch.float32, device=weight.device)
    wide = weight.double()
    largest = wide.abs().amax(1) if weight.shape[1] else wide.new_zeros(len(wide))
    fraction, exponent = torch.frexp(largest)  # largest = fraction * 2^exponent, 1/2 <= fraction < 1
    exponent = exponent - 7 + (torch.round(fraction * 128) > 127).int()
    scales = torch.ldexp(torch.ones_like(largest), exponent.clamp(min=-126))
    return torch.round(wide / scales[:, None]).to(torch.int8), scales.float()


def _places_before(position: Tensor, counts: Tensor) -> Tensor:
    """The `counts` places right before each position."""
    last = torch.repeat_interleave(position, counts)
    begin = torch.repeat_interleave(counts.cumsum(0) - counts, counts)
    return last - 1 - (torch.arange(len(last), device=last.device) - begin)
