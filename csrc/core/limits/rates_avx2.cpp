#include <immintrin.h>

#include "core/limits/rates.h"

namespace lrnn {

float float_rate_avx2(std::int64_t rounds, double* operations) noexcept {
    *operations = kInstructions * 8 * 2.0;
    const __m256 x = _mm256_set1_ps(0.999f), w = _mm256_set1_ps(1e-3f);
    return _mm256_cvtss_f32(ten_sums(rounds, w, [=](__m256 sum) { return _mm256_fmadd_ps(sum, x, w); }));
}

// The integer kernels' two instructions, product and sum, count as one.
float byte_rate_avx2(std::int64_t rounds, double* operations) noexcept {
    *operations = kInstructions * 16 * 2.0;
    const __m256i w = _mm256_set1_epi16(5);
    const auto step = [=](__m256i sum) { return _mm256_add_epi32(sum, _mm256_madd_epi16(sum, w)); };
    return static_cast<float>(_mm256_cvtsi256_si32(ten_sums(rounds, w, step)));
}

}  // namespace lrnn
