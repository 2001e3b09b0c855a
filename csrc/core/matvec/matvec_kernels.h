// The packed layouts, as plain pointers, and the kernels that run them. The files of an ISA include nothing else: an
// inline function of the standard library, compiled there with wider instructions, could be the copy the linker keeps
// for the whole program.
#pragma once

#include <cstdint>

namespace lrnn {

// Dense: panels of 64 rows, then panels of 16 rows, zero rows at the end. Within a panel column by column, so that
// one x is multiplied with a run of rows and nothing has to be summed across lanes.
struct Panels {
    const float* weight;
    std::int32_t wide;    // panels of 64 rows
    std::int32_t narrow;  // panels of 16 rows
    std::int32_t cols;
};

// Sparse: the matrix is cut into tiles of `lanes` rows and `columns` columns. A slot of a tile holds at most one
// weight of each row, with its column inside the tile; a tile has as many slots as its fullest row has weights
// ("width"; rows with fewer get zeros). The tile's piece of x sits in registers, where a permute looks up 16 of its
// numbers in one cycle; a gather from memory takes 17 (Zen 4). Tiles are sorted by width and run four at a time: one
// 32-bit word holds the columns of one lane of all four, and equal widths in a row keep the inner loop's branch
// predicted.
struct Tiles {
    struct Run {
        std::int32_t width;  // slots
        std::int32_t quads;  // groups of four tiles of that width
    };
    struct Place {
        std::uint32_t x, y;  // first column and first row of a tile
    };
    const Run* runs;
    std::int32_t n_runs;
    const Place* places;         // (quads, 4)
    const std::uint32_t* index;  // (quads, width, lanes): a byte for each of the four tiles, the first lowest
    const float* weight;         // (quads, width, 4, lanes)
};

// Sparse, for ISAs without a permute across registers: compressed rows.
struct Rows {
    const std::uint32_t* start;  // (rows + 1)
    const std::uint16_t* column;
    const float* weight;
    std::int32_t rows;
};

using PanelsKernel = void (*)(const Panels&, const float* x, float* y) noexcept;
using TilesKernel = void (*)(const Tiles&, const float* x, float* y) noexcept;
using RowsKernel = void (*)(const Rows&, const float* x, float* y) noexcept;

void panels_scalar(const Panels&, const float* x, float* y) noexcept;
void panels_avx2(const Panels&, const float* x, float* y) noexcept;
void panels_avx512(const Panels&, const float* x, float* y) noexcept;
void rows_scalar(const Rows&, const float* x, float* y) noexcept;

// 8 rows x 16 columns. A column's byte: its low three bits, and bit 7 where it is 8 or more.
void tiles_avx2(const Tiles&, const float* x, float* y) noexcept;
// 16 rows x 32 columns. A column's byte: the column.
void tiles_avx512(const Tiles&, const float* x, float* y) noexcept;

}  // namespace lrnn
