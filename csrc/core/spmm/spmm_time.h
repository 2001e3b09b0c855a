// What `lrnn bench spmm` measures, without a caller around it: the product, a baseline, and the limits of this machine.
#pragma once

#include <stdint.h>

#include "core/spmm/spmm.h"

enum lrnn_spmm_subject {
    LRNN_SPMM_STEPS = 0,   // lrnn_spmm_multiply: x (steps, cols), y (steps, rows)
    LRNN_SPMM_XNNPACK = 1,  // the baseline, in the layout that it wants: x (cols, steps), y (rows, steps)
    LRNN_SPMM_PANELS = 2    // what lrnn_spmm_multiply does between its transpositions: x (steps / 64, cols, 64), aligned to 64,
                            // y (steps / 64, rows, 64); steps a multiple of 64
};

// Seconds of one product of float matrices, from `repeats` in a row on this thread.
LRNN_API double lrnn_spmm_time(const lrnn_spmm* w, int32_t subject, int64_t steps, const float* x, float* y,
                               int64_t repeats);

// A sparse product in the manner of XNNPACK's f32-spmm micro-kernels (Elsen et al., "Fast Sparse ConvNets", 2019), our own
// rendering: one weight, broadcast, meets 32 contiguous columns of x held in eight 128-bit registers (on x86 XNNPACK has SSE
// kernels only); weights are walked with byte offsets from row to row of x and counted per row. row_offsets: for each weight
// the bytes from the row of x of the weight before it (for the first: from x).
LRNN_API void lrnn_spmm_baseline_xnnpack(int64_t rows, int64_t steps, const int32_t* row_nonzeros,
                                         const int32_t* row_offsets, const float* values, const float* x, float* y);

// Floating-point operations per second of multiply-adds, `count` times 64 vectors of the active ISA, with one factor read from
// the first-level cache each, as a sparse product has to. From registers: core/limits.
LRNN_API double lrnn_load_multiply_add_rate(int64_t count);
