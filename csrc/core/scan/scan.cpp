#include "core/scan/scan.h"

#include <algorithm>

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

// A scan whose arrays together outgrow this share of the last cache runs from memory. There each stream goes straight
// through its array, and outputs are written past the caches, which saves reading them first; smaller outputs stay for
// whoever reads them next.
constexpr int64_t cached_bytes = int64_t{16} << 20;
// Of a tile's rows of b, in cache: long where `a` and its gradient stay in registers over the tile.
constexpr int64_t constant_tile_bytes = 8192, varying_tile_bytes = 4096;

ScanWalk walk_of(const lrnn_scan& s, int b_arrays, int a_arrays, const void* like_b, const void* like_a) {
    const int64_t real = s.is_double ? 8 : 4;
    const int64_t b_row = s.channels * real * (s.b_is_complex ? 2 : 1);
    const int64_t a_row = s.a_is_constant ? 0 : s.channels * real * (s.a_is_complex ? 2 : 1);
    const auto aligned = [](const void* p, int64_t row) { return (reinterpret_cast<uintptr_t>(p) | row) % 64 == 0; };
    const int64_t tile_bytes = s.a_is_constant ? constant_tile_bytes : varying_tile_bytes;
    if (s.batch * s.length * (b_arrays * b_row + a_arrays * a_row) <= cached_bytes)
        return {std::clamp<int64_t>(tile_bytes / std::max<int64_t>(1, b_row), 4, 64), false};
    return {1, aligned(like_b, b_row) && (like_a == nullptr || aligned(like_a, a_row))};
}

}  // namespace
}  // namespace lrnn

void lrnn_scan_forward(const lrnn_scan* scan, lrnn_scan_unit unit, const void* b, void* h, void* h_last) {
    lrnn::kernels().forward(*scan, unit, lrnn::walk_of(*scan, 2, 1, h, nullptr), b, h, h_last);
}

void lrnn_scan_backward(const lrnn_scan* scan, lrnn_scan_unit unit, const void* grad_h, const void* grad_last,
                        const void* h, void* grad_a, void* grad_b, void* grad_h0) {
    const void* varying = scan->a_is_constant ? nullptr : grad_a;
    const lrnn::ScanWalk walk = lrnn::walk_of(*scan, 3, 2, grad_b, varying);
    lrnn::kernels().backward(*scan, unit, walk, grad_h, grad_last, h, grad_a, grad_b, grad_h0);
}
