// Loops of nothing but arithmetic. Included by one file per ISA; what is not declared for all is local to that file.
#pragma once

#include <cstdint>

namespace lrnn {

// Runs `rounds` of kInstructions on registers alone; *operations is what one round does. The result keeps the loop.
using RateLoop = float (*)(std::int64_t rounds, double* operations) noexcept;

float float_rate_scalar(std::int64_t rounds, double* operations) noexcept;
float float_rate_avx2(std::int64_t rounds, double* operations) noexcept;
float float_rate_avx512(std::int64_t rounds, double* operations) noexcept;
float byte_rate_avx2(std::int64_t rounds, double* operations) noexcept;
float byte_rate_avx512vnni(std::int64_t rounds, double* operations) noexcept;

namespace {

constexpr int kInstructions = 2000;

#if defined(__x86_64__) || defined(_M_X64)
#define LRNN_REGISTER "+x"
#elif defined(__aarch64__)
#define LRNN_REGISTER "+w"
#else
#define LRNN_REGISTER "+m"
#endif

// Ten sums side by side: 4 cycles of latency at 2 instructions a cycle need eight. They are named one by one because an
// array of them would be written to the stack in every turn.
template <typename Vector, typename Step>
inline Vector ten_sums(std::int64_t rounds, Vector start, Step step) noexcept {
    Vector a = start, b = start, c = start, d = start, e = start, f = start, g = start, h = start, i = start, j = start;
    for (std::int64_t turn = 0; turn < rounds * (kInstructions / 10); ++turn) {
        a = step(a), b = step(b), c = step(c), d = step(d), e = step(e);
        f = step(f), g = step(g), h = step(h), i = step(i), j = step(j);
        asm volatile("" : LRNN_REGISTER(a), LRNN_REGISTER(b), LRNN_REGISTER(c), LRNN_REGISTER(d), LRNN_REGISTER(e));
        asm volatile("" : LRNN_REGISTER(f), LRNN_REGISTER(g), LRNN_REGISTER(h), LRNN_REGISTER(i), LRNN_REGISTER(j));
    }
    return a + b + c + d + e + f + g + h + i + j;
}

#undef LRNN_REGISTER

}  // namespace
}  // namespace lrnn
