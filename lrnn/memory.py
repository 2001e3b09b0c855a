"""What the C library does with freed memory."""

from __future__ import annotations

import ctypes

_KEPT = 1 << 30


def keep_freed_memory() -> bool:
    """Have glibc keep up to 1 GiB of freed memory for later tensors, for the rest of the process.

    Otherwise it returns the top of its heap to the system whenever enough of it is free, and the next tensor
    is paid for page by page (0.5 us each): 14 % of a training step at k = 1 (0.107 s against 0.092 s of one
    core), and noise that drowns a benchmark of kernels that run at the speed of memory. Returns whether it
    could be done; False without glibc.
    """
    trim_threshold, mmap_threshold = -1, -3  # malloc.h's M_TRIM_THRESHOLD and M_MMAP_THRESHOLD
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    # glibc takes no mmap threshold above 32 MiB.
    return bool(mallopt(trim_threshold, _KEPT)) and bool(mallopt(mmap_threshold, 1 << 25))
