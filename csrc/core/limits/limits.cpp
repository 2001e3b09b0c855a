#include "core/limits/limits.h"

#include <algorithm>
#include <chrono>
#include <cstring>

#include "core/aligned.h"
#include "core/isa.h"
#include "core/limits/rates.h"

namespace lrnn {
// Four lanes, which every baseline has; wider ones stand in files of their own.
float float_rate_scalar(std::int64_t rounds, double* operations) noexcept {
    using Vector = float __attribute__((vector_size(16)));
    *operations = kInstructions * 4 * 2.0;
    const Vector x = Vector{} + 0.999f, w = Vector{} + 1e-3f;
    return ten_sums(rounds, w, [=](Vector sum) { return sum * x + w; })[0];
}

namespace {

RateLoop rate_loop(std::int32_t arithmetic) {
    const Isa isa = active_isa();
    if (arithmetic == LRNN_FLOAT_MULTIPLY_ADD) {
#if defined(__x86_64__) || defined(_M_X64)
        if (float_isa(isa) == Isa::avx512) return float_rate_avx512;
        if (isa == Isa::avx2) return float_rate_avx2;
#endif
        return float_rate_scalar;
    }
#if defined(__x86_64__) || defined(_M_X64)
    if (arithmetic == LRNN_BYTE_PRODUCT && isa == Isa::avx512vnni) return byte_rate_avx512vnni;
    if (arithmetic == LRNN_BYTE_PRODUCT && isa != Isa::scalar) return byte_rate_avx2;
#endif
    return nullptr;
}

template <typename F>
double seconds_of(F f) {
    const auto start = std::chrono::steady_clock::now();
    f();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace
}  // namespace lrnn

double lrnn_copy_time(std::int64_t bytes, std::int64_t repeats) {
    const std::size_t size = static_cast<std::size_t>(std::max<std::int64_t>(bytes, 64));
    const lrnn::AlignedVector<std::uint8_t> from(size, 1);
    lrnn::AlignedVector<std::uint8_t> to(size, 0);
    const double spent = lrnn::seconds_of([&] {
        for (std::int64_t i = 0; i < repeats; ++i) {
            std::memcpy(to.data(), from.data(), size);
            asm volatile("" : : "r"(to.data()) : "memory");  // each copy is made
        }
    });
    return spent / static_cast<double>(repeats);
}

double lrnn_arithmetic_rate(std::int32_t arithmetic, std::int64_t rounds) {
    const lrnn::RateLoop loop = lrnn::rate_loop(arithmetic);
    if (loop == nullptr) return 0.0;
    double operations = 0.0;
    volatile float kept = loop(std::max<std::int64_t>(rounds / 16, 1), &operations);  // warms up
    const double spent = lrnn::seconds_of([&] { kept = loop(rounds, &operations); });
    return operations * static_cast<double>(rounds) / spent;
}
