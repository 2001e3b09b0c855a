#include <immintrin.h>

#include "core/limits/rates.h"

namespace lrnn {

float byte_rate_avx512vnni(std::int64_t rounds, double* operations) noexcept {
    *operations = kInstructions * 64 * 2.0;
    const __m512i x = _mm512_set1_epi8(3), w = _mm512_set1_epi8(5);
    const auto step = [=](__m512i sum) { return _mm512_dpbusd_epi32(sum, x, w); };
    return static_cast<float>(_mm512_cvtsi512_si32(ten_sums(rounds, w, step)));
}

}  // namespace lrnn
