// What an engine of tiles keeps of its weights.
#pragma once

#include <cstdint>
#include <vector>

#include "core/aligned.h"
#include "core/matvec/matvec.h"
#include "core/spmm/spmm.h"

namespace lrnn {

// Compressed rows, multiplied with all frames of a tile (core/spmm).
class TileMatrix final : public PackedMatrix {
public:
    TileMatrix(const float* weight, std::int32_t rows, std::int32_t cols);
    TileMatrix(const TileMatrix&) = delete;
    TileMatrix& operator=(const TileMatrix&) = delete;
    // Tiles y (rows) = W x + start (rows, or null) + bias (one for each row, or null); y may be start, not x.
    void multiply(const float* x, const float* start, const float* bias, float* y) const noexcept {
        lrnn_spmm_tile(&view_, x, start, bias, y);
    }
    std::size_t bytes() const noexcept override;
    const char* name() const noexcept override { return "tiles"; }

private:
    std::vector<std::int32_t> cuts_;
    std::vector<std::int16_t> narrow_;  // columns: these, or where they do not fit
    std::vector<std::int32_t> wide_;    // these
    AlignedVector<float> values_;
    lrnn_spmm view_{};
};

// For each of `pairs` numbers a = (re, im): a^1 ... a^J, then a^(2 J), a^(4 J), ... below a^(lanes J), with the J of
// tile.h; (re, im) pairs.
AlignedVector<float> tile_powers(const float* a, std::int32_t pairs, std::int32_t lanes);

}  // namespace lrnn
