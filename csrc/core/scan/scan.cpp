#include "core/scan/scan.h"

#include "core/isa.h"
#include "core/scan/scan_isa.h"
#include "core/scan/scan_rows.h"

namespace lrnn {
namespace {

constexpr ScanKernels baseline{forward_rows<16>, backward_rows<16>};  // SSE2 or NEON

const ScanKernels& kernels() {
#if defined(__x86_64__) || defined(_M_X64)
    switch (float_isa(active_isa())) {
        case Isa::avx512: return scan_avx512;
        case Isa::avx2: return scan_avx2;
        default: break;
    }
#endif
    return baseline;
}

// Outputs that no cache can hold are written past it, which saves reading them first (up to twice the speed); smaller
// ones stay for whoever reads them next.
constexpr int64_t streamed_bytes = int64_t{8} << 20;

bool streams(const lrnn_scan& s, bool a_sized_output, const void* like_b, const void* like_a) {
    const int64_t real = s.is_double ? 8 : 4;
    const int64_t b_row = s.channels * real * (s.b_is_complex ? 2 : 1);
    const int64_t a_row = s.channels * real * (s.a_is_complex ? 2 : 1);
    const auto aligned = [](const void* p, int64_t row) { return (reinterpret_cast<uintptr_t>(p) | row) % 64 == 0; };
    if (s.batch * s.length * b_row < streamed_bytes || !aligned(like_b, b_row)) return false;
    return !a_sized_output || aligned(like_a, a_row);
}

}  // namespace
}  // namespace lrnn

void lrnn_scan_forward(const lrnn_scan* scan, lrnn_scan_unit unit, const void* b, void* h, void* h_last) {
    lrnn::kernels().forward(*scan, unit, lrnn::streams(*scan, false, h, nullptr), b, h, h_last);
}

void lrnn_scan_backward(const lrnn_scan* scan, lrnn_scan_unit unit, const void* grad_h, const void* grad_last,
                        const void* h, void* grad_a, void* grad_b, void* grad_h0) {
    const bool stream = lrnn::streams(*scan, !scan->a_is_constant, grad_b, grad_a);
    lrnn::kernels().backward(*scan, unit, stream, grad_h, grad_last, h, grad_a, grad_b, grad_h0);
}
