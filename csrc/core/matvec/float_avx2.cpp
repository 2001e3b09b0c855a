#include <immintrin.h>

#include "core/matvec/kernels.h"

namespace lrnn {
namespace {

// The numbers of x at 8 columns of a window of 16: two permutes (each reads the three lowest bits of a lane), and the sign
// of `upper` chooses.
inline __m256 look_up(__m256 low, __m256 high, __m256i column, __m256i upper) {
    return _mm256_blendv_ps(_mm256_permutevar8x32_ps(low, column), _mm256_permutevar8x32_ps(high, column),
                            _mm256_castsi256_ps(upper));
}

}  // namespace

void panels_avx2(const Panels& p, const float* x, float* y) noexcept {
    const float* w = p.weight;
    for (std::int32_t i = 0; i < p.wide; ++i, y += 64) {
        __m256 sum[8];
        for (int r = 0; r < 8; ++r) sum[r] = _mm256_load_ps(y + 8 * r);
        for (std::int32_t c = 0; c < p.cols; ++c, w += 64) {
            const __m256 xc = _mm256_set1_ps(x[c]);
            for (int r = 0; r < 8; ++r) sum[r] = _mm256_fmadd_ps(_mm256_load_ps(w + 8 * r), xc, sum[r]);
        }
        for (int r = 0; r < 8; ++r) _mm256_store_ps(y + 8 * r, sum[r]);
    }
    for (std::int32_t i = 0; i < p.narrow; ++i, y += 16) {
        __m256 even[2] = {_mm256_load_ps(y), _mm256_load_ps(y + 8)};
        __m256 odd[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
        std::int32_t c = 0;
        for (; c + 2 <= p.cols; c += 2, w += 32)
            for (int r = 0; r < 2; ++r) {
                even[r] = _mm256_fmadd_ps(_mm256_load_ps(w + 8 * r), _mm256_set1_ps(x[c]), even[r]);
                odd[r] = _mm256_fmadd_ps(_mm256_load_ps(w + 16 + 8 * r), _mm256_set1_ps(x[c + 1]), odd[r]);
            }
        if (c < p.cols) {
            for (int r = 0; r < 2; ++r)
                even[r] = _mm256_fmadd_ps(_mm256_load_ps(w + 8 * r), _mm256_set1_ps(x[c]), even[r]);
            w += 16;
        }
        for (int r = 0; r < 2; ++r) _mm256_store_ps(y + 8 * r, _mm256_add_ps(even[r], odd[r]));
    }
}

void windows_avx2(const Windows& w, const float* x, float* y) noexcept {
    const std::uint8_t* slot = w.slots;
    const std::uint16_t* start = w.starts;
    const std::int32_t* count = w.counts;
    const auto weights = [](const std::uint8_t* p) { return _mm256_loadu_ps(reinterpret_cast<const float*>(p)); };
    for (std::int32_t g = 0; g < w.wide; ++g, ++count, y += 32) {
        __m256 sum[4];
        for (int r = 0; r < 4; ++r) sum[r] = _mm256_load_ps(y + 8 * r);
        for (std::int32_t s = 0; s < *count; ++s, slot += 160, ++start) {
            const __m256 low = _mm256_loadu_ps(x + *start), high = _mm256_loadu_ps(x + *start + 8);
            const __m256i index = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(slot + 128));
            for (int r = 0; r < 4; ++r) {
                const __m256i column = _mm256_srli_epi32(index, 8 * r);
                const __m256i upper = _mm256_slli_epi32(index, 28 - 8 * r);  // bit 3 of byte r to the sign
                sum[r] = _mm256_fmadd_ps(weights(slot + 32 * r), look_up(low, high, column, upper), sum[r]);
            }
        }
        for (int r = 0; r < 4; ++r) _mm256_store_ps(y + 8 * r, sum[r]);
    }
    for (std::int32_t g = 0; g < w.narrow; ++g, ++count, y += 8) {
        __m256 sum = _mm256_load_ps(y);
        for (std::int32_t s = 0; s < *count; ++s, slot += 40, ++start) {
            const __m256 low = _mm256_loadu_ps(x + *start), high = _mm256_loadu_ps(x + *start + 8);
            const __m256i column = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(slot + 32)));
            sum = _mm256_fmadd_ps(weights(slot), look_up(low, high, column, _mm256_slli_epi32(column, 28)), sum);
        }
        _mm256_store_ps(y, sum);
    }
}

}  // namespace lrnn
