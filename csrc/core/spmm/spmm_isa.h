// The product's entry points per ISA; spmm.cpp chooses among them.
#pragma once

#include "core/spmm/spmm.h"

namespace lrnn {

struct SpmmKernels {
    void (*multiply)(const lrnn_spmm&, int64_t steps, const void* x, const void* bias, void* y, void* scratch);
    void (*tile)(const lrnn_spmm&, const float* x, const float* start, const float* bias, float* y);
    void (*backward)(const lrnn_spmm&, const lrnn_spmm& transposed, int64_t steps, const void* grad_y, const void* x,
                     void* grad_x, void* grad_values, void* scratch);
};

inline constexpr int kPanelBytes = 256;  // of one column of a full panel: 64 float, 32 double

#if defined(__x86_64__) || defined(_M_X64)
extern const SpmmKernels spmm_avx2, spmm_avx512;
#endif

}  // namespace lrnn
