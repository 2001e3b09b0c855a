// A node of integers with what it owns.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "core/aligned.h"
#include "core/engine/fixed.h"
#include "core/engine/operation.h"
#include "core/engine/token_rows.h"
#include "core/matvec/matvec.h"

namespace lrnn {

// Compressed rows for weights or numbers of more than the kernels' 8 and 16 bits; int64 sums.
class WideRows final : public PackedMatrix {
public:
    WideRows(const std::int16_t* weight, std::int32_t rows, std::int32_t cols);
    void multiply(const std::int32_t* x, std::int64_t* y) const noexcept;
    std::size_t bytes() const noexcept override {
        return sizeof(std::int32_t) * (starts_.size() + columns_.size()) + sizeof(std::int16_t) * weights_.size();
    }
    const char* name() const noexcept override { return "csr"; }

private:
    AlignedVector<std::int32_t> starts_, columns_;
    AlignedVector<std::int16_t> weights_;
};

// Its arrays are what the FixedView points to: it is made once and stands still.
struct FixedNode : FixedView {
    FixedLoops::Run run = nullptr;
    const FixedLoops* loops = nullptr;
    std::vector<AlignedVector<std::int32_t>> arrays32;
    std::vector<AlignedVector<std::int64_t>> arrays64;

    // Of a product, whose matrix is one of these:
    std::unique_ptr<IntegerMatvec> matrix;
    std::unique_ptr<WideRows> rows;
    std::int32_t cols = 0;
    int finish = 0;            // which of FixedLoops::finish
    std::int32_t scratch = 0;  // numbers of four bytes that it needs while it runs

    std::unique_ptr<TokenRows> tokens;  // of an embedding

    std::size_t bytes() const noexcept;
};

// Loops that no ISA has its own form of.
void fixed_linear(const Operation& op, float* base, std::int32_t) noexcept;
void fixed_embedding(const Operation& op, float* base, std::int32_t) noexcept;
void fixed_mean_pool(const Operation& op, float* base, std::int32_t) noexcept;
void fixed_table(const Operation& op, float* base, std::int32_t) noexcept;

}  // namespace lrnn
