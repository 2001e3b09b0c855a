// What this machine can do at most, measured: the limits that kernels are held against. Reads are measured by
// lrnn_read_time (core/matvec/packed.h).
#pragma once

#include <stdint.h>

#include "core/api.h"

// Seconds of one copy of `bytes` bytes between two arrays of its own, from `repeats` in a row on this thread.
LRNN_API double lrnn_copy_time(int64_t bytes, int64_t repeats);

enum lrnn_arithmetic {
    LRNN_FLOAT_MULTIPLY_ADD = 0,  // float32
    LRNN_BYTE_PRODUCT = 1         // int8 weights with bytes of x, summed in int32
};
// Operations per second on registers alone, with the active ISA's own instruction, on this thread: a product and a sum
// count two. `rounds` of 2000 instructions are timed. 0 where the ISA has no such instruction.
LRNN_API double lrnn_arithmetic_rate(int32_t arithmetic, int64_t rounds);
