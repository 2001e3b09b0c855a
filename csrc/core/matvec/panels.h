// Packing of the dense layouts: panels of 64 rows, then panels of 16.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/aligned.h"

namespace lrnn {

template <typename T>
struct PanelStore {
    AlignedVector<T> weight;
    std::int32_t wide, narrow;
    std::int32_t steps;  // of `dot` columns

    PanelStore(const T* dense, std::int32_t rows, std::int32_t cols, std::int32_t dot) {
        const std::int32_t groups = (rows + 15) / 16;  // of 16 rows
        wide = groups / 4;
        narrow = groups % 4;
        steps = (cols + dot - 1) / dot;
        weight.assign(static_cast<std::size_t>(groups) * 16 * steps * dot, T{});
        T* out = weight.data();
        for (std::int32_t row = 0, height; row < rows; row += height) {
            height = row < 64 * wide ? 64 : 16;
            for (std::int32_t s = 0; s < steps; ++s, out += static_cast<std::ptrdiff_t>(height) * dot)
                for (std::int32_t i = 0; i < std::min(height, rows - row); ++i) {
                    const std::int32_t col = s * dot, n = std::min(dot, cols - col);
                    std::copy_n(dense + static_cast<std::size_t>(row + i) * cols + col, n, out + i * dot);
                }
        }
    }
};

}  // namespace lrnn
