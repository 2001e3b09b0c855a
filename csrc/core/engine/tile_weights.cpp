#include "core/engine/tile_weights.h"

#include <complex>
#include <limits>
#include <stdexcept>

#include "core/engine/tile.h"

namespace lrnn {

TileMatrix::TileMatrix(const float* weight, std::int32_t rows, std::int32_t cols) {
    const std::int32_t blocks = (cols + lrnn_spmm_block - 1) / lrnn_spmm_block;
    const std::int32_t width = blocks > 0 ? (cols + blocks - 1) / blocks : 1;
    const bool wide = cols - 1 > std::numeric_limits<std::int16_t>::max();
    const auto cut = [&](std::int32_t block, std::int32_t row) -> std::int32_t& {
        return cuts_[static_cast<std::size_t>(block) * rows + row];
    };
    cuts_.assign((static_cast<std::size_t>(blocks) + 1) * rows, 0);
    for (std::int32_t r = 0; r < rows; ++r) {
        const float* const row = weight + static_cast<std::int64_t>(r) * cols;
        for (std::int32_t c = 0; c < cols; ++c) {
            if (c % width == 0) cut(c / width, r) = static_cast<std::int32_t>(values_.size());
            if (row[c] == 0.0f) continue;
            values_.push_back(row[c]);
            if (wide) wide_.push_back(c);
            else narrow_.push_back(static_cast<std::int16_t>(c));
        }
        if (values_.size() > std::numeric_limits<std::int32_t>::max())
            throw std::length_error("a matrix has more than 2^31 weights");
        cut(blocks, r) = static_cast<std::int32_t>(values_.size());
    }
    const void* columns = wide ? static_cast<const void*>(wide_.data()) : narrow_.data();
    view_ = {rows, cols, 0, wide, cuts_.data(), columns, values_.data()};
}

std::size_t TileMatrix::bytes() const noexcept {
    return sizeof(std::int32_t) * (cuts_.size() + wide_.size()) + sizeof(std::int16_t) * narrow_.size() +
           sizeof(float) * values_.size();
}

AlignedVector<float> tile_powers(const float* a, std::int32_t pairs, std::int32_t lanes) {
    AlignedVector<float> powers;
    const auto keep = [&](std::complex<double> power) {
        powers.push_back(static_cast<float>(power.real()));
        powers.push_back(static_cast<float>(power.imag()));
    };
    for (std::int32_t p = 0; p < pairs; ++p) {
        const std::complex<double> factor(a[2 * p], a[2 * p + 1]);
        std::complex<double> power = 1.0;
        for (std::int32_t j = 0; j < kTileFrames / lanes; ++j) keep(power *= factor);
        for (std::int32_t distance = 2; distance < lanes; distance *= 2) keep(power *= power);
    }
    return powers;
}

}  // namespace lrnn
