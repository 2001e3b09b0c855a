// Numbers on their way into an integer product and out of it, for one ISA.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lrnn {

struct FormLoops {
    // round(x * scale), half to even, saturated to -most - 1 and most.
    void (*to_words)(const float* x, std::int32_t n, float scale, float most, std::int16_t* out) noexcept;
    // y = sum * scale, row by row.
    void (*from_narrow)(const std::int32_t* sums, std::int32_t n, const float* scale, float* y) noexcept;
    void (*from_wide)(const std::int64_t* sums, std::int32_t n, const float* scale, float* y) noexcept;
    // Reads all of it as fast as it can; the result depends on every byte.
    std::uint64_t (*read)(const std::uint8_t* p, std::size_t bytes) noexcept;
};

extern const FormLoops form_scalar, form_avx2, form_avx512;
const FormLoops& form_loops();  // of the active ISA

}  // namespace lrnn
