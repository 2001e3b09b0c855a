// A baseline for `lrnn bench spmm` and nothing else: a sparse product in the manner of XNNPACK's f32-spmm micro-kernels
// (Elsen et al., "Fast Sparse ConvNets", 2019), our own rendering. One weight, broadcast, meets 32 contiguous columns of
// x held in eight 128-bit registers (on x86 XNNPACK has SSE kernels only); weights are walked with byte offsets from row
// to row of x and counted per row. Columns stand in memory as it wants them, (cols, count): no transposition.
#include "core/spmm/spmm.h"

namespace {

typedef float Quad __attribute__((vector_size(16), aligned(4), may_alias));

}  // namespace

void lrnn_spmm_baseline_xnnpack(int64_t rows, int64_t count, const int32_t* row_nonzeros, const int32_t* row_offsets,
                                const float* values, const float* bias, const float* x, float* y) {
    for (int64_t tile = 0; tile + 32 <= count; tile += 32) {
        const char* in = reinterpret_cast<const char*>(x + tile);
        const int32_t* step = row_offsets;
        const float* value = values;
        for (int64_t r = 0; r < rows; ++r) {
            Quad sum[8];
            for (auto& s : sum) s = bias[r] - Quad{};
            for (int32_t n = row_nonzeros[r]; n > 0; --n) {
                in += *step++;
                const Quad* from = reinterpret_cast<const Quad*>(in);
                const Quad weight = *value++ - Quad{};
                for (int i = 0; i < 8; ++i) sum[i] += weight * from[i];
            }
            Quad* to = reinterpret_cast<Quad*>(y + r * count + tile);
            for (int i = 0; i < 8; ++i) to[i] = sum[i];
        }
    }
}
