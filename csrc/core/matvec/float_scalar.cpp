#include "core/matvec/kernels.h"

namespace lrnn {
namespace {

// 16 rows of a panel whose columns lie `stride` numbers apart.
void panel(const float* weight, std::int32_t stride, std::int32_t cols, const float* x, float* y) noexcept {
    float sum[16] = {};
    for (std::int32_t c = 0; c < cols; ++c, weight += stride)
        for (int i = 0; i < 16; ++i) sum[i] += weight[i] * x[c];
    for (int i = 0; i < 16; ++i) y[i] += sum[i];
}

}  // namespace

void panels_scalar(const Panels& p, const float* x, float* y) noexcept {
    const float* weight = p.weight;
    for (std::int32_t i = 0; i < p.wide; ++i, weight += 64 * static_cast<std::int64_t>(p.cols))
        for (int part = 0; part < 64; part += 16, y += 16) panel(weight + part, 64, p.cols, x, y);
    for (std::int32_t i = 0; i < p.narrow; ++i, weight += 16 * static_cast<std::int64_t>(p.cols), y += 16)
        panel(weight, 16, p.cols, x, y);
}

void rows_scalar(const Lines<float>& m, const float* x, float* y) noexcept {
    for (std::int32_t r = 0; r < m.count; ++r) {
        std::uint32_t i = m.start[r];
        const std::uint32_t end = m.start[r + 1];
        float s0 = 0, s1 = 0, s2 = 0, s3 = 0;  // four sums: an addition need not wait for the last one
        for (; i + 4 <= end; i += 4) {
            s0 += m.weight[i] * x[m.place[i]];
            s1 += m.weight[i + 1] * x[m.place[i + 1]];
            s2 += m.weight[i + 2] * x[m.place[i + 2]];
            s3 += m.weight[i + 3] * x[m.place[i + 3]];
        }
        for (; i < end; ++i) s0 += m.weight[i] * x[m.place[i]];
        y[r] += (s0 + s1) + (s2 + s3);
    }
}

void columns_scalar(const Lines<float>& m, const float* x, float* y) noexcept {
    for (std::int32_t c = 0; c < m.count; ++c) {
        if (x[c] == 0.0f) continue;
        for (std::uint32_t i = m.start[c]; i < m.start[c + 1]; ++i) y[m.place[i]] += m.weight[i] * x[c];
    }
}

}  // namespace lrnn
