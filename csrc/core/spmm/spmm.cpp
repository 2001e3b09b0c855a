#include "core/spmm/spmm.h"

#include "core/isa.h"
#include "core/spmm/spmm_isa.h"
#include "core/spmm/spmm_panels.h"

namespace lrnn {
namespace {

// SSE2 or NEON: half a panel's sums at a time, sixteen registers hold no more.
struct Baseline : OneQuad {
    static constexpr int bytes = 16, sums = 8;
};

constexpr SpmmKernels baseline = spmm_kernels<Baseline>;

}  // namespace

const SpmmKernels& spmm_kernels_now() {
#if defined(__x86_64__) || defined(_M_X64)
    switch (float_isa(active_isa())) {
        case Isa::avx512: return spmm_avx512;
        case Isa::avx2: return spmm_avx2;
        default: break;
    }
#endif
    return baseline;
}

}  // namespace lrnn

int64_t lrnn_spmm_panel(const lrnn_spmm* w) { return lrnn::kPanelBytes / (w->is_double ? 8 : 4); }

int64_t lrnn_spmm_scratch(const lrnn_spmm* w) { return (w->rows + w->cols) * lrnn::kPanelBytes; }

void lrnn_spmm_multiply(const lrnn_spmm* w, int64_t steps, const void* x, const void* bias, void* y, void* scratch) {
    lrnn::spmm_kernels_now().multiply(*w, steps, x, bias, y, scratch);
}

void lrnn_spmm_tile(const lrnn_spmm* w, const float* x, const float* start, const float* bias, float* y) {
    lrnn::spmm_kernels_now().tile(*w, x, start, bias, y);
}

void lrnn_spmm_backward(const lrnn_spmm* w, const lrnn_spmm* transposed, int64_t steps, const void* grad_y,
                        const void* x, void* grad_x, void* grad_values, void* scratch) {
    lrnn::spmm_kernels_now().backward(*w, *transposed, steps, grad_y, x, grad_x, grad_values, scratch);
}
