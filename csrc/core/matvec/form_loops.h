// The loops behind FormLoops, which the compiler makes as wide as the including file's ISA. Included by one file per
// ISA, everything in it local to that file; see elementwise_loops.h for why.
#pragma once

#include "core/matvec/form.h"

namespace lrnn {
namespace {

void to_words(const float* x, std::int32_t n, float scale, float most, std::int16_t* out) noexcept {
    // Adding and taking away 1.5 * 2^23 rounds to an integer, half to even: saturated numbers are below 2^22.
    constexpr float magic = 12582912.0f;
    for (std::int32_t i = 0; i < n; ++i) {
        float v = x[i] * scale;
        v = v > most ? most : v;
        v = v < -most - 1.0f ? -most - 1.0f : v;
        out[i] = static_cast<std::int16_t>(static_cast<std::int32_t>((v + magic) - magic));
    }
}

void from_narrow(const std::int32_t* sums, std::int32_t n, const float* scale, float* y) noexcept {
    for (std::int32_t i = 0; i < n; ++i) y[i] = static_cast<float>(sums[i]) * scale[i];
}

void from_wide(const std::int64_t* sums, std::int32_t n, const float* scale, float* y) noexcept {
    for (std::int32_t i = 0; i < n; ++i) y[i] = static_cast<float>(sums[i]) * scale[i];
}

std::uint64_t read(const std::uint8_t* p, std::size_t bytes) noexcept {
#if defined(__AVX512F__)
    constexpr std::size_t kWidth = 64;
#elif defined(__AVX2__)
    constexpr std::size_t kWidth = 32;
#else
    constexpr std::size_t kWidth = 16;
#endif
    // The ISA's own width: eight wider sums would not stay in its registers.
    using Vector = std::uint64_t __attribute__((vector_size(kWidth)));
    Vector sums[8] = {};
    std::size_t i = 0;
    for (; i + 8 * kWidth <= bytes; i += 8 * kWidth)
        for (std::size_t k = 0; k < 8; ++k) sums[k] |= *reinterpret_cast<const Vector*>(p + i + kWidth * k);
    for (; i + kWidth <= bytes; i += kWidth) sums[0] |= *reinterpret_cast<const Vector*>(p + i);
    std::uint64_t all = 0;
    for (std::size_t k = 0; k < 8; ++k)
        for (std::size_t j = 0; j < kWidth / 8; ++j) all |= sums[k][j];
    return all;
}

}  // namespace
}  // namespace lrnn
