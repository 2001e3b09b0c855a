"""The scan's Triton kernels: a program takes a block of channels through one chunk of one sequence.

Both passes walk in their direction of travel: position i is time step i or length - 1 - i. What is carried
from one step to the next is, forward, the state h; backward, what a step hands on to its predecessor,
conj(a[t]) g[t]. An edge that `reset` cuts carries nothing.

    forward    carry = a[t] carry + b[t]                 h[t] = carry
    backward   g[t] = carry + grad_h[t]                  carry = conj(a[t]) g[t]

Either way a whole chunk is again one such step, carry = decay carry + end: that makes chunks possible.

Every loop takes ROWS steps at a time: first their loads, which do not depend on each other, then the
arithmetic with the stores, so that a warp keeps ROWS loads per array under way. Numbers are widened right
after their load (the interpreter computes wrongly in bfloat16) and narrowed at their store.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _load(pointer, index, mask, COMPLEX: tl.constexpr, ACC: tl.constexpr):
    """Numbers at these indices as a (real, imaginary) pair of ACC; 0 where masked."""
    if COMPLEX:
        pairs = pointer + 2 * index[:, None] + tl.arange(0, 2)[None, :]
        real, imaginary = tl.split(tl.load(pairs, mask=mask[:, None], other=0.0).to(ACC))
    else:
        real = tl.load(pointer + index, mask=mask, other=0.0).to(ACC)
        imaginary = tl.zeros_like(real)
    return real, imaginary


@triton.jit
def _store(pointer, index, real, imaginary, mask, COMPLEX: tl.constexpr):
    """The opposite of `_load`, rounded to the array's dtype."""
    if COMPLEX:
        pairs = pointer + 2 * index[:, None] + tl.arange(0, 2)[None, :]
        tl.store(pairs, tl.join(real, imaginary).to(pointer.dtype.element_ty), mask=mask[:, None])
    else:
        tl.store(pointer + index, real.to(pointer.dtype.element_ty), mask=mask)


@triton.jit
def _product(a_real, a_imaginary, real, imaginary, A_COMPLEX: tl.constexpr):
    """a x. A real `a` keeps the parts of x apart, so that an infinite one does not become NaN."""
    if A_COMPLEX:
        return a_real * real - a_imaginary * imaginary, a_real * imaginary + a_imaginary * real
    return a_real * real, a_real * imaginary


@triton.jit
def _place(chunks, width, BLOCK: tl.constexpr):
    """Sequence, chunk, channels and their mask of this program; neighbours share a sequence's chunk."""
    blocks = tl.cdiv(width, BLOCK)
    program = tl.program_id(0)
    channel = (program % blocks) * BLOCK + tl.arange(0, BLOCK)
    item = (program // blocks // chunks).to(tl.int64)
    return item, program // blocks % chunks, channel, channel < width


@triton.jit
def _step(i, item, reset, length, HAS_RESET: tl.constexpr, REVERSE: tl.constexpr, BACKWARD: tl.constexpr):
    """Time step of position i, and whether the edge by which the forward pass enters it is cut."""
    t = length - 1 - i if REVERSE != BACKWARD else i
    cut = t < 0
    if HAS_RESET:
        edge = t + 1 if REVERSE else t
        cut = tl.load(reset + item * length + edge, mask=(edge >= 0) & (edge < length), other=0) != 0
    return t, cut


@triton.jit
def _move(
    real,
    imaginary,
    x_real,
    x_imaginary,
    a_real,
    a_imaginary,
    cut,
    A_COMPLEX: tl.constexpr,
    BACKWARD: tl.constexpr,
):
    """The carry after one step, with x the step's input: b[t], or grad_h[t]."""
    if BACKWARD:
        real, imaginary = _product(a_real, -a_imaginary, real + x_real, imaginary + x_imaginary, A_COMPLEX)
        return tl.where(cut, 0.0, real), tl.where(cut, 0.0, imaginary)
    real, imaginary = _product(a_real, a_imaginary, real, imaginary, A_COMPLEX)
    return tl.where(cut, x_real, real + x_real), tl.where(cut, x_imaginary, imaginary + x_imaginary)


@triton.jit
def _carry_in(
    start,
    carries,
    item,
    chunk,
    chunks,
    channel,
    mask,
    width,
    HAS_START: tl.constexpr,
    CHUNKED: tl.constexpr,
    COMPLEX: tl.constexpr,
    ACC: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """What enters this chunk: `start` (batch, width) into the first, else what left the chunk before it."""
    real = tl.zeros((BLOCK,), ACC)
    imaginary = tl.zeros((BLOCK,), ACC)
    if HAS_START:
        real, imaginary = _load(start, item * width + channel, mask & (chunk == 0), COMPLEX, ACC)
    if CHUNKED:
        before = (item * chunks + chunk - 1) * width + channel
        more_real, more_imaginary = _load(carries, before, mask & (chunk > 0), COMPLEX, ACC)
        real = tl.where(chunk > 0, more_real, real)
        imaginary = tl.where(chunk > 0, more_imaginary, imaginary)
    return real, imaginary


@triton.jit(do_not_specialize=["length", "steps", "chunks"])
def summarise(
    x,
    a,
    reset,
    ends,
    decays,
    cuts,
    length,
    width,
    steps,
    chunks,
    BACKWARD: tl.constexpr,
    A_CONSTANT: tl.constexpr,
    A_COMPLEX: tl.constexpr,
    COMPLEX: tl.constexpr,
    HAS_RESET: tl.constexpr,
    REVERSE: tl.constexpr,
    ACC: tl.constexpr,
    BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
):
    """Every chunk as one step: `ends` and `decays` (batch, chunks, width), and `cuts` (batch, chunks)."""
    item, chunk, channel, mask = _place(chunks, width, BLOCK)
    real = tl.zeros((BLOCK,), ACC)
    imaginary = tl.zeros((BLOCK,), ACC)
    decay_real = tl.full((BLOCK,), 1.0, ACC)
    decay_imaginary = tl.zeros((BLOCK,), ACC)
    any_cut = chunk < 0
    if A_CONSTANT:
        a_real, a_imaginary = _load(a, channel, mask, A_COMPLEX, ACC)
    stop = tl.minimum((chunk + 1) * steps, length)
    for first in range(chunk * steps, stop, ROWS):
        rows = ()
        for j in tl.static_range(ROWS):
            i = first + j
            t, cut = _step(i, item, reset, length, HAS_RESET, REVERSE, BACKWARD)
            index = (item * length + t) * width + channel
            x_real, x_imaginary = _load(x, index, mask & (i < stop), COMPLEX, ACC)
            if not A_CONSTANT:
                a_real, a_imaginary = _load(a, index, mask & (i < stop), A_COMPLEX, ACC)
            rows += ((x_real, x_imaginary, a_real, a_imaginary, cut, i < stop),)
        for j in tl.static_range(ROWS):
            x_real, x_imaginary, by_real, by_imaginary, cut, live = rows[j]
            moved = _move(
                real, imaginary, x_real, x_imaginary, by_real, by_imaginary, cut, A_COMPLEX, BACKWARD
            )
            real = tl.where(live, moved[0], real)
            imaginary = tl.where(live, moved[1], imaginary)
            if BACKWARD:
                by_imaginary = -by_imaginary
            slower = _product(by_real, by_imaginary, decay_real, decay_imaginary, A_COMPLEX)
            decay_real = tl.where(live, slower[0], decay_real)
            decay_imaginary = tl.where(live, slower[1], decay_imaginary)
            any_cut = any_cut | (cut & live)
    index = (item * chunks + chunk) * width + channel
    _store(ends, index, real, imaginary, mask, COMPLEX)
    _store(decays, index, decay_real, decay_imaginary, mask, A_COMPLEX)
    if HAS_RESET:
        tl.store(cuts + item * chunks + chunk, any_cut.to(tl.uint8), mask=tl.min(channel, axis=0) == 0)


@triton.jit(do_not_specialize=["length", "steps", "chunks"])
def forward(
    b,
    a,
    reset,
    h0,
    carries,
    h,
    h_last,
    length,
    width,
    steps,
    chunks,
    A_CONSTANT: tl.constexpr,
    A_COMPLEX: tl.constexpr,
    COMPLEX: tl.constexpr,
    HAS_H0: tl.constexpr,
    HAS_RESET: tl.constexpr,
    REVERSE: tl.constexpr,
    CHUNKED: tl.constexpr,
    ACC: tl.constexpr,
    BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
):
    """h of one chunk; the last chunk of a sequence leaves h_last."""
    item, place, channel, mask = _place(chunks, width, BLOCK)
    chunk = chunks - 1 - place  # the L2 cache still has the chunks that `summarise` read last
    real, imaginary = _carry_in(
        h0, carries, item, chunk, chunks, channel, mask, width, HAS_H0, CHUNKED, COMPLEX, ACC, BLOCK
    )
    if A_CONSTANT:
        a_real, a_imaginary = _load(a, channel, mask, A_COMPLEX, ACC)
    stop = tl.minimum((chunk + 1) * steps, length)
    for first in range(chunk * steps, stop, ROWS):
        rows = ()
        for j in tl.static_range(ROWS):
            i = first + j
            t, cut = _step(i, item, reset, length, HAS_RESET, REVERSE, False)
            index = (item * length + t) * width + channel
            b_real, b_imaginary = _load(b, index, mask & (i < stop), COMPLEX, ACC)
            if not A_CONSTANT:
                a_real, a_imaginary = _load(a, index, mask & (i < stop), A_COMPLEX, ACC)
            rows += ((b_real, b_imaginary, a_real, a_imaginary, cut, index, i < stop),)
        for j in tl.static_range(ROWS):
            b_real, b_imaginary, by_real, by_imaginary, cut, index, live = rows[j]
            moved = _move(real, imaginary, b_real, b_imaginary, by_real, by_imaginary, cut, A_COMPLEX, False)
            real = tl.where(live, moved[0], real)
            imaginary = tl.where(live, moved[1], imaginary)
            _store(h, index, real, imaginary, mask & live, COMPLEX)
    _store(h_last, item * width + channel, real, imaginary, mask & (chunk == chunks - 1), COMPLEX)


@triton.jit(do_not_specialize=["length", "steps", "chunks"])
def backward(
    grad_h,
    a,
    reset,
    grad_last,
    carries,
    h,
    h0,
    grad_a,
    grad_b,
    grad_h0,
    length,
    width,
    steps,
    chunks,
    A_CONSTANT: tl.constexpr,
    A_COMPLEX: tl.constexpr,
    COMPLEX: tl.constexpr,
    HAS_H0: tl.constexpr,
    HAS_RESET: tl.constexpr,
    REVERSE: tl.constexpr,
    CHUNKED: tl.constexpr,
    ACC: tl.constexpr,
    BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
):
    """Gradients of one chunk; for a constant `a`, grad_a is (batch, chunks, width), each chunk's sum."""
    item, place, channel, mask = _place(chunks, width, BLOCK)
    chunk = chunks - 1 - place
    real, imaginary = _carry_in(
        grad_last, carries, item, chunk, chunks, channel, mask, width, True, CHUNKED, COMPLEX, ACC, BLOCK
    )
    first_real = tl.zeros((BLOCK,), ACC)
    first_imaginary = tl.zeros((BLOCK,), ACC)
    if HAS_H0:
        first_real, first_imaginary = _load(h0, item * width + channel, mask, COMPLEX, ACC)
    sum_real = tl.zeros((BLOCK,), ACC)
    sum_imaginary = tl.zeros((BLOCK,), ACC)
    if A_CONSTANT:
        a_real, a_imaginary = _load(a, channel, mask, A_COMPLEX, ACC)
    stop = tl.minimum((chunk + 1) * steps, length)
    for first in range(chunk * steps, stop, ROWS):
        rows = ()
        for j in tl.static_range(ROWS):
            i = first + j
            live = i < stop
            t, cut = _step(i, item, reset, length, HAS_RESET, REVERSE, True)
            index = (item * length + t) * width + channel
            x_real, x_imaginary = _load(grad_h, index, mask & live, COMPLEX, ACC)
            before = index + width if REVERSE else index - width
            h_real, h_imaginary = _load(h, before, mask & (i < length - 1) & live, COMPLEX, ACC)
            h_real = tl.where(i == length - 1, first_real, h_real)
            h_imaginary = tl.where(i == length - 1, first_imaginary, h_imaginary)
            if not A_CONSTANT:
                a_real, a_imaginary = _load(a, index, mask & live, A_COMPLEX, ACC)
            rows += ((x_real, x_imaginary, h_real, h_imaginary, a_real, a_imaginary, cut, index, live),)
        for j in tl.static_range(ROWS):
            x_real, x_imaginary, h_real, h_imaginary, by_real, by_imaginary, cut, index, live = rows[j]
            g_real = real + x_real
            g_imaginary = imaginary + x_imaginary
            _store(grad_b, index, g_real, g_imaginary, mask & live, COMPLEX)
            to_a = _product(h_real, -h_imaginary, g_real, g_imaginary, COMPLEX)
            whole = live & (cut == 0)
            if A_CONSTANT:
                sum_real += tl.where(whole, to_a[0], 0.0)
                sum_imaginary += tl.where(whole, to_a[1], 0.0)
            else:
                to_real = tl.where(whole, to_a[0], 0.0)
                to_imaginary = tl.where(whole, to_a[1], 0.0)
                _store(grad_a, index, to_real, to_imaginary, mask & live, A_COMPLEX)
            moved = _move(real, imaginary, x_real, x_imaginary, by_real, by_imaginary, cut, A_COMPLEX, True)
            real = tl.where(live, moved[0], real)
            imaginary = tl.where(live, moved[1], imaginary)
    _store(grad_h0, item * width + channel, real, imaginary, mask & (chunk == chunks - 1), COMPLEX)
    if A_CONSTANT:
        at = (item * chunks + chunk) * width + channel
        _store(grad_a, at, sum_real, sum_imaginary, mask, A_COMPLEX)
