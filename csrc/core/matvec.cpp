#include "core/matvec.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "core/aligned.h"
#include "core/matvec_kernels.h"

namespace lrnn {
namespace {

// The cost model, from `lrnn bench stream` on Zen 4 and Zen 5 and KERNELS measurements: a weight in a tile's slot costs as
// much as 1.5 weights of a dense panel, and a row that has to be put back in its place half a slot.
constexpr double kDenseWeightsPerSlotWeight = 1.5;
constexpr double kSlotsPerGatheredRow = 0.5;

template <typename Vector>
std::size_t bytes_of(const Vector& v) {
    return v.size() * sizeof(v[0]);
}

class DenseMatvec final : public Matvec {
public:
    DenseMatvec(const float* weight, std::int32_t rows, std::int32_t cols, PanelsKernel kernel) : kernel_(kernel) {
        const std::int32_t groups = (rows + 15) / 16;  // of 16 rows
        panels_ = {nullptr, groups / 4, groups % 4, cols};
        weight_.assign(static_cast<std::size_t>(groups) * 16 * cols, 0.0f);
        float* out = weight_.data();
        for (std::int32_t row = 0, height; row < rows; row += height) {
            height = row < 64 * panels_.wide ? 64 : 16;
            for (std::int32_t c = 0; c < cols; ++c, out += height)
                for (std::int32_t i = 0; i < std::min(height, rows - row); ++i)
                    out[i] = weight[static_cast<std::size_t>(row + i) * cols + c];
        }
        panels_.weight = weight_.data();
    }
    void multiply_add(const float* x, float* y) const noexcept override { kernel_(panels_, x, y); }
    std::size_t bytes() const noexcept override { return bytes_of(weight_); }
    const char* name() const noexcept override { return "dense"; }

private:
    AlignedVector<float> weight_;
    Panels panels_;
    PanelsKernel kernel_;
};

class RowsMatvec final : public Matvec {
public:
    RowsMatvec(const float* weight, std::int32_t rows, std::int32_t cols, RowsKernel kernel) : kernel_(kernel) {
        start_.push_back(0);
        for (std::int32_t r = 0; r < rows; ++r) {
            for (std::int32_t c = 0; c < cols; ++c, ++weight)
                if (*weight != 0.0f) {
                    column_.push_back(static_cast<std::uint16_t>(c));
                    weight_.push_back(*weight);
                }
            start_.push_back(static_cast<std::uint32_t>(weight_.size()));
        }
        rows_ = {start_.data(), column_.data(), weight_.data(), rows};
    }
    void multiply_add(const float* x, float* y) const noexcept override { kernel_(rows_, x, y); }
    std::size_t bytes() const noexcept override { return bytes_of(start_) + bytes_of(column_) + bytes_of(weight_); }
    const char* name() const noexcept override { return "csr"; }

private:
    std::vector<std::uint32_t> start_;
    std::vector<std::uint16_t> column_;
    std::vector<float> weight_;
    Rows rows_;
    RowsKernel kernel_;
};

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

// A matrix cut into tiles, its rows possibly in another order.
struct Cutting {
    std::vector<float> weight;         // (rows, cols)
    std::vector<std::int32_t> places;  // where each row went; empty: nowhere
    std::vector<Tile> tiles;
    double cost;  // of a product, in slots
};

// Full rows first: a tile is as wide as its fullest row, so rows of like fullness belong together.
std::vector<std::int32_t> fullest_first(const float* weight, std::int32_t rows, std::int32_t cols) {
    std::vector<std::int32_t> order(static_cast<std::size_t>(rows)), zeros(order.size());
    std::iota(order.begin(), order.end(), 0);
    for (std::int32_t r = 0; r < rows; ++r, weight += cols)
        zeros[r] = static_cast<std::int32_t>(std::count(weight, weight + cols, 0.0f));
    std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return zeros[a] < zeros[b]; });
    return order;
}

// The cheaper of two orders: as the rows come, or fullest first where that saves more slots than it costs to put the
// results back. Rows of pruned networks differ: of a pruned S5's B many are empty.
Cutting cut_best(const float* weight, std::int32_t rows, std::int32_t cols, const TileShape& shape) {
    const std::size_t width = static_cast<std::size_t>(cols);
    Cutting plain{{weight, weight + rows * width}, {}, cut(weight, rows, cols, shape), 0.0};
    plain.cost = static_cast<double>(count_slots(plain.tiles));
    Cutting sorted{std::vector<float>(plain.weight.size()), std::vector<std::int32_t>(static_cast<std::size_t>(rows)), {}, 0};
    const std::vector<std::int32_t> order = fullest_first(weight, rows, cols);
    for (std::int32_t i = 0; i < rows; ++i) {
        sorted.places[order[i]] = i;
        std::copy_n(weight + order[i] * width, cols, sorted.weight.begin() + i * width);
    }
    sorted.tiles = cut(sorted.weight.data(), rows, cols, shape);
    sorted.cost = static_cast<double>(count_slots(sorted.tiles)) + kSlotsPerGatheredRow * rows;
    return sorted.cost < plain.cost ? std::move(sorted) : std::move(plain);
}

class TilesMatvec final : public Matvec {
public:
    TilesMatvec(Cutting cutting, std::int32_t rows, std::int32_t cols, const TileShape& shape)
        : places_of_rows_(std::move(cutting.places)), kernel_(shape.kernel) {
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
    const std::int32_t* places() const noexcept override {
        return places_of_rows_.empty() ? nullptr : places_of_rows_.data();
    }
    std::size_t bytes() const noexcept override {
        return bytes_of(places_of_rows_) + bytes_of(runs_) + bytes_of(places_) + bytes_of(index_) + bytes_of(weight_);
    }
    const char* name() const noexcept override { return "tiles"; }

private:
    // Writes a tile as the k-th of its four, whose slots start at w and index.
    static void fill(const float* weight, std::int32_t rows, std::int32_t cols, const Tile& tile, const TileShape& shape,
                     std::int32_t k, float* w, std::uint32_t* index) {
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

    std::vector<std::int32_t> places_of_rows_;
    std::vector<Tiles::Run> runs_;
    std::vector<Tiles::Place> places_;
    AlignedVector<std::uint32_t> index_;
    AlignedVector<float> weight_;
    Tiles tiles_;
    TilesKernel kernel_;
};

}  // namespace

std::unique_ptr<Matvec> pack(const float* weight, std::int32_t rows, std::int32_t cols, Isa isa, Format format) {
    const std::int64_t size = static_cast<std::int64_t>(rows) * cols;
#if defined(__x86_64__) || defined(_M_X64)
    if (isa == Isa::avx512 || isa == Isa::avx2) {
        static constexpr TileShape shape512{16, 32, [](std::uint32_t c) { return c; }, tiles_avx512};
        static constexpr TileShape shape256{8, 16, [](std::uint32_t c) { return (c & 7) | ((c & 8) << 4); }, tiles_avx2};
        const TileShape& shape = isa == Isa::avx512 ? shape512 : shape256;
        if (format != Format::dense) {
            Cutting cutting = cut_best(weight, rows, cols, shape);
            if (format == Format::sparse || cutting.cost * shape.lanes * kDenseWeightsPerSlotWeight < size)
                return std::make_unique<TilesMatvec>(std::move(cutting), rows, cols, shape);
        }
        return std::make_unique<DenseMatvec>(weight, rows, cols, isa == Isa::avx512 ? panels_avx512 : panels_avx2);
    }
#endif
    const std::int64_t nonzeros = size - std::count(weight, weight + size, 0.0f);
    const bool fits = cols <= std::numeric_limits<std::uint16_t>::max() + 1;
    if (fits && (format == Format::sparse || (format == Format::automatic && nonzeros * 4 < size)))
        return std::make_unique<RowsMatvec>(weight, rows, cols, rows_scalar);
    return std::make_unique<DenseMatvec>(weight, rows, cols, panels_scalar);
}

}  // namespace lrnn
