// Packing of the sparse layout for kernels that look x up in registers: see Tiles in matvec_kernels.h.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "core/matvec/matvec.h"
#include "core/matvec/matvec_kernels.h"

namespace lrnn {

// What a tile kernel needs to know of its tiles.
struct TileShape {
    std::int32_t lanes;
    std::int32_t columns;
    std::uint32_t (*index_byte)(std::uint32_t column);
    TilesKernel kernel;
};

struct Tile {
    std::int32_t row, col;
    std::int32_t width;
};

// A matrix cut into tiles, its rows possibly in another order.
struct Cutting {
    std::vector<float> weight;        // (rows, cols)
    std::vector<std::int32_t> order;  // which rows those are; empty: all, as they come
    std::vector<Tile> tiles;
    double cost;  // of a product, in slots
};

// The cheaper of two orders: as the rows come, or fullest first, without the empty ones, where that saves more slots than
// it costs to put the results back. Rows of pruned networks differ: of a pruned S5's B two in three are empty.
Cutting cut_best(const float* weight, std::int32_t rows, std::int32_t cols, const TileShape& shape);

std::unique_ptr<Matvec> pack_tiles(Cutting cutting, std::int32_t rows, std::int32_t cols, const TileShape& shape);

}  // namespace lrnn
