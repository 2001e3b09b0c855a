// Matrices of fixed weights, packed for y += W x with one vector at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "core/isa.h"

namespace lrnn {

// Vectors that matrices read and write are 64-byte aligned and have room for `padded(n)` numbers. What stands in the
// padding of x does not matter as long as it is finite; the padding of y may change.
inline constexpr std::int32_t kPadding = 32;
inline constexpr std::int64_t padded(std::int64_t n) { return (n + kPadding - 1) / kPadding * kPadding; }

enum class Format { automatic, dense, sparse };

// A packed matrix. Sums are float32 in an order that depends on the packing, not on the data.
class Matvec {
public:
    virtual ~Matvec() = default;
    virtual void multiply_add(const float* x, float* y) const noexcept = 0;  // y += W x
    // The rows of W in the order in which multiply_add keeps them in y, rows of zeros left out; empty: as they come.
    virtual std::span<const std::int32_t> order() const noexcept { return {}; }
    virtual std::size_t bytes() const noexcept = 0;  // all that a product reads of W
    virtual const char* name() const noexcept = 0;
};

// Packs weight (rows, cols). `automatic` takes what the ISA's cost model expects to be faster. Throws std::bad_alloc.
std::unique_ptr<Matvec> pack(const float* weight, std::int32_t rows, std::int32_t cols, Isa isa, Format format);

}  // namespace lrnn
