#include <immintrin.h>

#include "core/matvec/matvec_kernels.h"

namespace lrnn {

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

void tiles_avx2(const Tiles& t, const float* x, float* y) noexcept {
    const Tiles::Place* place = t.places;
    const std::uint32_t* index = t.index;
    const float* w = t.weight;
    for (std::int32_t r = 0; r < t.n_runs; ++r) {
        const std::int32_t width = t.runs[r].width;
        for (std::int32_t q = 0; q < t.runs[r].quads; ++q, place += 4) {
            __m256 low[4], high[4], sum[4];
            for (int k = 0; k < 4; ++k) {
                low[k] = _mm256_load_ps(x + place[k].x);
                high[k] = _mm256_load_ps(x + place[k].x + 8);
                sum[k] = _mm256_setzero_ps();
            }
            for (std::int32_t s = 0; s < width; ++s, index += 8, w += 32) {
                const __m256i columns = _mm256_load_si256(reinterpret_cast<const __m256i*>(index));
                for (int k = 0; k < 4; ++k) {
                    // The permute reads the three lowest bits of a lane, the blend its highest.
                    const __m256i column = _mm256_srli_epi32(columns, 8 * k);
                    const __m256 upper = _mm256_castsi256_ps(_mm256_slli_epi32(columns, 24 - 8 * k));
                    const __m256 value = _mm256_blendv_ps(_mm256_permutevar8x32_ps(low[k], column),
                                                          _mm256_permutevar8x32_ps(high[k], column), upper);
                    sum[k] = _mm256_fmadd_ps(_mm256_load_ps(w + 8 * k), value, sum[k]);
                }
            }
            // One after the other: two of the four tiles may share their rows.
            for (int k = 0; k < 4; ++k) {
                float* out = y + place[k].y;
                _mm256_store_ps(out, _mm256_add_ps(_mm256_load_ps(out), sum[k]));
            }
        }
    }
}

}  // namespace lrnn
