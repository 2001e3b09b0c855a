// The scan h[t] = a[t] * h[t-1] + b[t] and its backward pass on the CPU, for one batch item and a range of channels
// at a time: the caller spreads those units over threads. kernels/scan/reference.py says what is computed.
#pragma once

#include <stdint.h>

#include "core/api.h"

// Arrays are dense, in the order (batch, time, channel). Complex numbers are (re, im) pairs.
typedef struct lrnn_scan {
    int64_t batch, length, channels;
    int32_t is_double;      // real numbers are double, else float
    int32_t a_is_complex;   // only where b is
    int32_t b_is_complex;   // and with it h, h0 and their gradients
    int32_t a_is_constant;  // a is (channels), the same at every step of every batch item
    int32_t reverse;        // travel from the last step to the first
    const void* a;
    const void* h0;        // (batch, channels), or null: zeros
    const uint8_t* reset;  // (batch, length), or null: a nonzero byte at t cuts the edge between t-1 and t
} lrnn_scan;

// Batch item `item`, channels [first, last). A range's bounds are multiples of 64 unless they are the array's own:
// then a channel's result does not depend, to the bit, on how channels were cut into ranges.
typedef struct lrnn_scan_unit {
    int64_t item, first, last;
} lrnn_scan_unit;

// Fills h (batch, length, channels) and h_last (batch, channels) in the unit.
LRNN_API void lrnn_scan_forward(const lrnn_scan* scan, lrnn_scan_unit unit, const void* b, void* h, void* h_last);

// Fills the unit's part of grad_a, grad_b and grad_h0 (batch, channels) from h and the gradients of h and h_last.
// grad_a is (batch, length, channels) or, where a is constant, (batch, channels): the sum over time, in the order of
// travel backwards; its sum over the batch is left to the caller.
LRNN_API void lrnn_scan_backward(const lrnn_scan* scan, lrnn_scan_unit unit, const void* grad_h, const void* grad_last,
                                 const void* h, void* grad_a, void* grad_b, void* grad_h0);
