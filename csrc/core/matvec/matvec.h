// Matrices of fixed weights, packed for products with one vector at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "core/isa.h"

namespace lrnn {

// Vectors that matrices read and write are 64-byte aligned and have room for `padded(n)` numbers. What stands in the
// padding of x does not matter as long as it is finite; the padding of y may change.
inline constexpr std::int32_t kPadding = 64;
inline constexpr std::int64_t padded(std::int64_t n) { return (n + kPadding - 1) / kPadding * kPadding; }

// `event` keeps columns, and skips those whose x is zero.
enum class Format { automatic, dense, sparse, event };

// What a product should cost in each format, in cycles of a Zen 4, by the model of cost.h.
struct Costs {
    double dense, sparse;
    double event;  // per nonzero weight on a nonzero number of x
};

class PackedMatrix {
public:
    virtual ~PackedMatrix() = default;
    virtual std::size_t bytes() const noexcept = 0;  // all that a product reads of W
    virtual const char* name() const noexcept = 0;   // "dense", "windows", "csr" or "event"
    Costs costs{};
};

// A matrix of floats. Sums are float32 in an order that depends on the packing, not on the data.
class Matvec : public PackedMatrix {
public:
    virtual void multiply_add(const float* x, float* y) const noexcept = 0;  // y += W x
    // The rows of W in the order in which multiply_add keeps them in y, rows of zeros left out; empty: as they come.
    virtual std::span<const std::int32_t> order() const noexcept { return {}; }
};

// A matrix of int8 with exact sums, for x of 16 or 8 bits.
class IntegerMatvec : public PackedMatrix {
public:
    // Bytes of x in the kernel's own form; `prepare` makes it of x (cols), which needs no padding.
    virtual std::size_t form_bytes() const noexcept = 0;
    virtual void prepare(const std::int16_t* x, void* form) const noexcept = 0;
    // y = W x: int64 where `is_wide`, else int32, which hold every sum for every x that was promised.
    virtual void multiply(const void* form, void* y) const noexcept = 0;
    virtual bool is_wide() const noexcept = 0;
};

enum class Precision { float32, bfloat16, w8a16, w8a8 };

// Packs weight (rows, cols). `automatic` takes what the cost model expects to be faster of dense and sparse; `may_permute`
// lets a sparse float32 matrix keep its rows in another order. bfloat16 rounds the weights, and where the machine
// multiplies bfloat16 also x; elsewhere the rounded weights run as float32. Throws std::bad_alloc.
std::unique_ptr<Matvec> pack(const float* weight, std::int32_t rows, std::int32_t cols, Isa isa, Format format,
                             Precision precision = Precision::float32, bool may_permute = true);
// precision: w8a16 or w8a8. |x| <= x_most is what int32 sums are proved for.
std::unique_ptr<IntegerMatvec> pack(const std::int8_t* weight, std::int32_t rows, std::int32_t cols, Isa isa,
                                    Format format, Precision precision, std::int64_t x_most);

}  // namespace lrnn
