#include "core/matvec/kernels.h"

namespace lrnn {

void rows_scalar(const Lines<std::int8_t>& m, const std::int16_t* x, std::int64_t* y) noexcept {
    for (std::int32_t r = 0; r < m.count; ++r) {
        std::int64_t sum = 0;
        for (std::uint32_t i = m.start[r]; i < m.start[r + 1]; ++i) sum += std::int32_t{m.weight[i]} * x[m.place[i]];
        y[r] = sum;
    }
}

void columns_scalar(const Lines<std::int8_t>& m, const std::int16_t* x, std::int64_t* y, std::int32_t rows) noexcept {
    for (std::int32_t r = 0; r < rows; ++r) y[r] = 0;
    for (std::int32_t c = 0; c < m.count; ++c) {
        if (x[c] == 0) continue;
        for (std::uint32_t i = m.start[c]; i < m.start[c + 1]; ++i) y[m.place[i]] += std::int32_t{m.weight[i]} * x[c];
    }
}

void bytes_scalar(const std::int8_t* weight, std::int32_t rows, std::int32_t cols, const std::int16_t* x,
                  std::int64_t* y) noexcept {
    // 512 products below 2^22 fit an int32, whose additions the compiler can do four at a time.
    constexpr std::int32_t block = 256;
    for (std::int32_t r = 0; r < rows; ++r, weight += cols) {
        y[r] = 0;
        for (std::int32_t from = 0; from < cols; from += block) {
            const std::int32_t to = cols - from < block ? cols : from + block;
            std::int32_t sum = 0;
            for (std::int32_t c = from; c < to; ++c) sum += weight[c] * x[c];
            y[r] += sum;
        }
    }
}

}  // namespace lrnn
