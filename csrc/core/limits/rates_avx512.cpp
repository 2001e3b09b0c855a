#include <immintrin.h>

#include "core/limits/rates.h"

namespace lrnn {

float float_rate_avx512(std::int64_t rounds, double* operations) noexcept {
    *operations = kInstructions * 16 * 2.0;
    const __m512 x = _mm512_set1_ps(0.999f), w = _mm512_set1_ps(1e-3f);
    return _mm512_cvtss_f32(ten_sums(rounds, w, [=](__m512 sum) { return _mm512_fmadd_ps(sum, x, w); }));
}

}  // namespace lrnn
