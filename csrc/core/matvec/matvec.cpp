#include "core/matvec/matvec.h"

#include <algorithm>
#include <limits>

#include "core/aligned.h"
#include "core/matvec/matvec_kernels.h"
#include "core/matvec/tiles.h"

namespace lrnn {
namespace {

// The cost model, measured on Zen 5 at 192 x 192 and 512 x 512, densities 0.02 to 0.8, Bernoulli masks (where the two
// sizes disagree, between them): a weight costs as much as so many of a dense panel, in compressed rows and, with their
// padding, in the slots of tiles.
constexpr double kPriceInRows = 6.0;
[[maybe_unused]] constexpr double kPriceInTiles512 = 1.25;
[[maybe_unused]] constexpr double kPriceInTiles256 = 2.4;

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
    std::size_t bytes() const noexcept override { return weight_.size() * sizeof(float); }
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
    std::size_t bytes() const noexcept override {
        return sizeof(std::uint32_t) * start_.size() + (sizeof(std::uint16_t) + sizeof(float)) * weight_.size();
    }
    const char* name() const noexcept override { return "csr"; }

private:
    std::vector<std::uint32_t> start_;
    std::vector<std::uint16_t> column_;
    std::vector<float> weight_;
    Rows rows_;
    RowsKernel kernel_;
};

#if defined(__x86_64__) || defined(_M_X64)
constexpr TileShape kTiles512{16, 32, [](std::uint32_t c) { return c; }, tiles_avx512};
constexpr TileShape kTiles256{8, 16, [](std::uint32_t c) { return (c & 7) | ((c & 8) << 4); }, tiles_avx2};
#endif

}  // namespace

std::unique_ptr<Matvec> pack(const float* weight, std::int32_t rows, std::int32_t cols, [[maybe_unused]] Isa isa,
                             Format format) {
    const std::int64_t size = static_cast<std::int64_t>(rows) * cols;
#if defined(__x86_64__) || defined(_M_X64)
    if (isa == Isa::avx512 || isa == Isa::avx2) {
        const bool wide = isa == Isa::avx512;
        if (format != Format::dense) {
            const TileShape& shape = wide ? kTiles512 : kTiles256;
            Cutting cutting = cut_best(weight, rows, cols, shape);
            const double price = wide ? kPriceInTiles512 : kPriceInTiles256;
            if (format == Format::sparse || cutting.cost * shape.lanes * price < size)
                return pack_tiles(std::move(cutting), rows, cols, shape);
        }
        return std::make_unique<DenseMatvec>(weight, rows, cols, wide ? panels_avx512 : panels_avx2);
    }
#endif
    const std::int64_t nonzeros = size - std::count(weight, weight + size, 0.0f);
    const bool fits = cols <= std::numeric_limits<std::uint16_t>::max() + 1;
    if (fits && (format == Format::sparse || (format == Format::automatic && nonzeros * kPriceInRows < size)))
        return std::make_unique<RowsMatvec>(weight, rows, cols, rows_scalar);
    return std::make_unique<DenseMatvec>(weight, rows, cols, panels_scalar);
}

}  // namespace lrnn
