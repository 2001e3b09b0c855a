// The product's entry points per ISA; spmm.cpp chooses among them.
#pragma once

#include "core/spmm/spmm.h"

namespace lrnn {

struct SpmmKernels {
    void (*multiply)(const lrnn_spmm&, int64_t steps, const void* x, const void* bias, void* y, void* scratch);
    void (*tile)(const lrnn_spmm&, const float* x, const float* start, const float* bias, float* y);
    void (*backward)(const lrnn_spmm&, const lrnn_spmm& transposed, int64_t steps, const void* grad_y, const void* x,
                     void* grad_x, void* grad_values, void* scratch);
    // The product of full panels alone: x (panels, cols, panel), y (panels, rows, panel), floats.
    void (*multiply_panels)(const lrnn_spmm&, int64_t panels, const float* x, float* y);
    // `count` times 64 vectors of multiply-adds, each with a load of `from` (64 vectors); the sum of all, and in *operations the
    // floating-point operations.
    float (*load_multiply_add)(int64_t count, const float* from, int64_t* operations);
};

const SpmmKernels& spmm_kernels_now();  // of the active ISA

inline constexpr int kPanelBytes = 256;  // of one column of a full panel: 64 float, 32 double

#if defined(__x86_64__) || defined(_M_X64)
extern const SpmmKernels spmm_avx2, spmm_avx512;
#endif

}  // namespace lrnn
