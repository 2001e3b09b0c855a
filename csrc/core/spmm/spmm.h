// A sparse matrix times many columns on the CPU, as a linear layer needs it: y = x W^T + bias over time steps, and its
// backward pass. The caller spreads time steps over threads. kernels/sparse_linear/reference.py says what is computed.
//
// x and y are dense, time step by time step. Steps are taken in panels of up to 64 (float): the panel's part of x is
// transposed into scratch, so that one weight, broadcast, meets 64 contiguous numbers. Columns are taken in blocks that
// keep their part of the panel in the first-level cache (x is read once per weight: from the second-level cache that
// alone halves the speed); between blocks, sums wait in the panel of y.
#pragma once

#include <stdint.h>

#include "core/api.h"

enum { lrnn_spmm_block = 192 };  // most columns of a block

// Compressed rows, columns rising within a row. Row r's weights of column block b are [cuts[b][r], cuts[b + 1][r]);
// blocks are equally wide.
typedef struct lrnn_spmm {
    int64_t rows, cols;
    int32_t is_double;      // values, x, y and bias are double, else float
    int32_t wide_columns;   // columns are int32_t, else int16_t
    const int32_t* cuts;    // (ceil(cols / lrnn_spmm_block) + 1, rows)
    const void* columns;    // one for each weight, in [0, cols)
    const void* values;
} lrnn_spmm;

// Time steps of a panel: whoever cuts the time for threads does it at multiples. Results do not depend on where.
LRNN_API int64_t lrnn_spmm_panel(const lrnn_spmm* w);

// Bytes of scratch that each thread needs, aligned to 64.
LRNN_API int64_t lrnn_spmm_scratch(const lrnn_spmm* w);

// y (steps, rows) = x (steps, cols) W^T + bias (rows, or null). A step's result depends, to the bit, on that step alone.
LRNN_API void lrnn_spmm_multiply(const lrnn_spmm* w, int64_t steps, const void* x, const void* bias, void* y,
                                 void* scratch);

// The same on a full panel of floats that the caller keeps transposed: y (rows, panel) = W x + start + bias, for x (cols,
// panel), start (rows, panel, or null; may be y) and bias (rows, or null). All but bias are aligned to 64 bytes.
LRNN_API void lrnn_spmm_tile(const lrnn_spmm* w, const float* x, const float* start, const float* bias, float* y);

// grad_x (steps, cols) = grad_y (steps, rows) W, where `transposed` is W^T; and grad_values += grad_y^T x where W has
// weights, panel by panel in order. Either output may be null.
LRNN_API void lrnn_spmm_backward(const lrnn_spmm* w, const lrnn_spmm* transposed, int64_t steps, const void* grad_y,
                                 const void* x, void* grad_x, void* grad_values, void* scratch);
