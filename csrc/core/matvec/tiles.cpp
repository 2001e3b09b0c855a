#include "core/matvec/tiles.h"

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <utility>

#include "core/aligned.h"

namespace lrnn {
namespace {

// What it costs to put a row back in its place, measured on Zen 5 in whole steps: what reads the result next waits for
// the single numbers stored.
constexpr double kSlotsPerMovedRow = 1.3;

template <typename Vector>
std::size_t bytes_of(const Vector& v) {
    return v.size() * sizeof(v[0]);
}

// The tiles that hold a weight, widest first (the widest of four decides how many slots they get). Tiles of a width run
// down a column: two that follow each other would else add to the same rows, and the second wait for the first.
std::vector<Tile> cut(const float* weight, std::int32_t rows, std::int32_t cols, const TileShape& shape) {
    std::vector<Tile> tiles;
    for (std::int32_t col = 0; col < cols; col += shape.columns)
        for (std::int32_t row = 0; row < rows; row += shape.lanes) {
            std::int32_t width = 0;
            for (std::int32_t r = row; r < std::min(row + shape.lanes, rows); ++r) {
                const float* from = weight + static_cast<std::size_t>(r) * cols;
                const std::int32_t end = std::min(col + shape.columns, cols);
                const auto zeros = std::count(from + col, from + end, 0.0f);
                width = std::max(width, end - col - static_cast<std::int32_t>(zeros));
            }
            if (width > 0) tiles.push_back({row, col, width});
        }
    std::stable_sort(tiles.begin(), tiles.end(), [](const Tile& a, const Tile& b) { return a.width > b.width; });
    return tiles;
}

std::int64_t count_slots(const std::vector<Tile>& tiles) {
    std::int64_t n = 0;
    for (std::size_t i = 0; i < tiles.size(); i += 4) n += 4 * tiles[i].width;
    return n;
}

// The rows that are not empty, full ones first: a tile is as wide as its fullest row, so rows of like fullness belong
// together.
std::vector<std::int32_t> fullest_first(const float* weight, std::int32_t rows, std::int32_t cols) {
    std::vector<std::int32_t> order(static_cast<std::size_t>(rows)), zeros(order.size());
    std::iota(order.begin(), order.end(), 0);
    for (std::int32_t r = 0; r < rows; ++r, weight += cols)
        zeros[r] = static_cast<std::int32_t>(std::count(weight, weight + cols, 0.0f));
    std::erase_if(order, [&](auto r) { return zeros[r] == cols; });
    std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return zeros[a] < zeros[b]; });
    return order;
}

class TilesMatvec final : public Matvec {
public:
    TilesMatvec(Cutting cutting, std::int32_t rows, std::int32_t cols, const TileShape& shape)
        : order_(std::move(cutting.order)), kernel_(shape.kernel) {
        if (!order_.empty()) rows = static_cast<std::int32_t>(order_.size());
        std::vector<Tile>& tiles = cutting.tiles;
        while (tiles.size() % 4 != 0) tiles.push_back({0, 0, 0});  // adds zeros to the first rows
        weight_.assign(static_cast<std::size_t>(count_slots(tiles)) * shape.lanes, 0.0f);
        index_.assign(weight_.size() / 4, 0);
        float* w = weight_.data();
        std::uint32_t* index = index_.data();
        for (std::size_t i = 0; i < tiles.size(); i += 4) {
            const std::int32_t width = tiles[i].width;
            if (runs_.empty() || runs_.back().width != width) runs_.push_back({width, 0});
            ++runs_.back().quads;
            for (std::int32_t k = 0; k < 4; ++k) {
                const Tile& tile = tiles[i + k];
                places_.push_back({static_cast<std::uint32_t>(tile.col), static_cast<std::uint32_t>(tile.row)});
                if (tile.width > 0) fill(cutting.weight.data(), rows, cols, tile, shape, k, w, index);
            }
            w += static_cast<std::size_t>(width) * 4 * shape.lanes;
            index += static_cast<std::size_t>(width) * shape.lanes;
        }
        tiles_ = {runs_.data(), static_cast<std::int32_t>(runs_.size()), places_.data(), index_.data(), weight_.data()};
    }
    void multiply_add(const float* x, float* y) const noexcept override { kernel_(tiles_, x, y); }
    std::span<const std::int32_t> order() const noexcept override { return order_; }
    std::size_t bytes() const noexcept override {
        return bytes_of(order_) + bytes_of(runs_) + bytes_of(places_) + bytes_of(index_) + bytes_of(weight_);
    }
    const char* name() const noexcept override { return "tiles"; }

private:
    // Writes a tile as the k-th of its four, whose slots start at w and index.
    static void fill(const float* weight, std::int32_t rows, std::int32_t cols, const Tile& tile,
                     const TileShape& shape, std::int32_t k, float* w, std::uint32_t* index) {
        for (std::int32_t lane = 0; lane < std::min(shape.lanes, rows - tile.row); ++lane) {
            const float* from = weight + static_cast<std::size_t>(tile.row + lane) * cols + tile.col;
            std::size_t slot = 0;
            for (std::int32_t c = 0; c < std::min(shape.columns, cols - tile.col); ++c)
                if (from[c] != 0.0f) {
                    w[(slot * 4 + k) * shape.lanes + lane] = from[c];
                    index[slot * shape.lanes + lane] |= shape.index_byte(static_cast<std::uint32_t>(c)) << (8 * k);
                    ++slot;
                }
        }
    }

    std::vector<std::int32_t> order_;
    std::vector<Tiles::Run> runs_;
    std::vector<Tiles::Place> places_;
    AlignedVector<std::uint32_t> index_;
    AlignedVector<float> weight_;
    Tiles tiles_;
    TilesKernel kernel_;
};

}  // namespace

Cutting cut_best(const float* weight, std::int32_t rows, std::int32_t cols, const TileShape& shape) {
    const std::size_t width = static_cast<std::size_t>(cols);
    Cutting plain{{weight, weight + rows * width}, {}, cut(weight, rows, cols, shape), 0.0};
    plain.cost = static_cast<double>(count_slots(plain.tiles));
    Cutting sorted{{}, fullest_first(weight, rows, cols), {}, 0.0};
    for (const std::int32_t row : sorted.order)
        sorted.weight.insert(sorted.weight.end(), weight + row * width, weight + (row + 1) * width);
    const std::int32_t kept = static_cast<std::int32_t>(sorted.order.size());
    sorted.tiles = cut(sorted.weight.data(), kept, cols, shape);
    sorted.cost = static_cast<double>(count_slots(sorted.tiles)) + kSlotsPerMovedRow * kept;
    return sorted.cost < plain.cost ? std::move(sorted) : std::move(plain);
}

std::unique_ptr<Matvec> pack_tiles(Cutting cutting, std::int32_t rows, std::int32_t cols, const TileShape& shape) {
    return std::make_unique<TilesMatvec>(std::move(cutting), rows, cols, shape);
}

}  // namespace lrnn
