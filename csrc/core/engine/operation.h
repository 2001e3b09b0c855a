// One operation of an engine's plan.
#pragma once

#include <cstdint>

namespace lrnn {

class PackedMatrix;
struct FixedView;

// Runs on a stream's memory: `base` is where it starts, and in, other, out and state are offsets from there in numbers of
// four bytes, each a multiple of 16. A value is a vector with room for a multiple of 32 numbers, as the parameters a and b
// have, or a tile (tile.h), of which the first `frames` frames are real. Numbers are float32 or, of a fixed-point node, int32.
struct Operation {
    void (*run)(const Operation&, float* base, std::int32_t frames) noexcept;
    const PackedMatrix* matrix;
    const float* a;
    const float* b;
    const std::int32_t* order;
    const FixedView* fixed;  // of a fixed-point node
    std::uint32_t in, other, out, state;
    std::int32_t n;  // numbers in `out` (of a scatter in `in`), without padding
    float scalar;
    std::int32_t value;  // id of the value it makes
};

}  // namespace lrnn
