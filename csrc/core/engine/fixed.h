// Nodes of integers: what they keep, and their loops for one ISA. lrnn/program/fixed/numpy_nodes.py defines every result
// to the bit; here stands how it is reached.
//
// A value is a vector of int32, padded as floats are. A node's sums are of 32 bits where the program proves that they fit,
// else of 64; then a shift with rounding, by one formula for every kind of it:
//
//     v <<= left;  (v + half + ((v >> right) & even)) >> right;  within +-most
//
// with left or right zero, half = 2^(right-1) - 1 and even = 1 for halves to even, half = 2^(right-1) and even = 0 for
// halves up, both zero to round down or not at all.
#pragma once

#include <cstdint>

#include "core/engine/operation.h"
#include "core/isa.h"

namespace lrnn {

template <typename T>
struct Shift {
    T left, right, half, even;
};
// One for each number of a vector.
template <typename T>
struct Shifts {
    const T *left, *right, *half, *even;
};

// What the loops read of a node; which of it, each says.
struct FixedView {
    Shifts<std::int32_t> shifts32;
    Shifts<std::int64_t> shifts64;
    Shift<std::int32_t> shift32;
    Shift<std::int64_t> shift64, x_shift64;
    Shift<std::int32_t> x_shift32;
    const std::int32_t* scale;
    const std::int32_t* bias32;
    const std::int64_t* bias64;
    const std::int64_t *decay_re, *decay_im, *decay_right;
    const std::int32_t* table;
    std::int32_t left0, left1;  // of the two inputs of a sum
    std::int32_t most, state_most;
    std::int32_t gate_right;
    std::uint32_t part;  // of a gated state, numbers from one part of it to the next
    std::int32_t step, offset;  // of a table
    std::int64_t eps;  // of a norm
    bool centred;
    float scalar;
};

// 1 / sqrt(v) = mantissa 2^-(31 + j), v > 0: lrnn/program/fixed/arithmetic.py.
struct InverseRoot {
    std::int32_t mantissa, j;
};
InverseRoot inverse_root(std::int64_t v) noexcept;

struct FixedLoops {
    using Run = void (*)(const Operation&, float* base, std::int32_t frames) noexcept;
    // Loops that come in pairs: sums of 32 and of 64 bits.
    Run rescale[2], affine[2], diagonal[2], gated[2], turned_gated[2], add[2], product[2];
    Run quantize, dequantize, relu, pair_relu;
    Run norm;
    Run table;  // of (entry, difference to the next) in 16 bits each
    void (*to_words)(const std::int32_t* x, std::int32_t n, std::int16_t* out) noexcept;
    // A product's sums, y = within(shifted(sums + bias)): 32 bits throughout, 32 bits summed to 64, 64 bits throughout.
    void (*finish[3])(const void* sums, const FixedView& node, std::int32_t n, std::int32_t* y) noexcept;
};

extern const FixedLoops fixed_loops_scalar, fixed_loops_avx2, fixed_loops_avx512;
const FixedLoops& fixed_loops(Isa isa);

}  // namespace lrnn
