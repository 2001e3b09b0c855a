#include <immintrin.h>

#include "core/matvec/kernels.h"

namespace lrnn {
namespace {

inline __m512bh pairs(__m512i v) { return reinterpret_cast<__m512bh>(v); }

}  // namespace

// 32 lanes of a permute look up a pair of numbers for each of 16 rows; the dot product multiplies and adds both.
void windows_bf16(const Windows& w, const std::uint16_t* x, float* y) noexcept {
    const std::uint8_t* slot = w.slots;
    const std::uint16_t* start = w.starts;
    const std::int32_t* count = w.counts;
    for (std::int32_t g = 0; g < w.wide; ++g, ++count, y += 64) {
        __m512 sum[4];
        for (int r = 0; r < 4; ++r) sum[r] = _mm512_load_ps(y + 16 * r);
        for (std::int32_t s = 0; s < *count; ++s, slot += 384, ++start) {
            const __m512i low = _mm512_loadu_si512(x + *start), high = _mm512_loadu_si512(x + *start + 32);
            for (int r = 0; r < 4; ++r) {
                __m512i column = _mm512_load_si512(slot + 256 + 64 * (r / 2));
                if (r % 2 != 0) column = _mm512_srli_epi16(column, 8);
                sum[r] = _mm512_dpbf16_ps(sum[r], pairs(_mm512_permutex2var_epi16(low, column, high)),
                                          pairs(_mm512_load_si512(slot + 64 * r)));
            }
        }
        for (int r = 0; r < 4; ++r) _mm512_store_ps(y + 16 * r, sum[r]);
    }
    for (std::int32_t g = 0; g < w.narrow; ++g, ++count, y += 16) {
        __m512 sum = _mm512_load_ps(y);
        for (std::int32_t s = 0; s < *count; ++s, slot += 96, ++start) {
            const __m512i low = _mm512_loadu_si512(x + *start), high = _mm512_loadu_si512(x + *start + 32);
            const __m512i column =
                _mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(slot + 64)));
            sum = _mm512_dpbf16_ps(sum, pairs(_mm512_permutex2var_epi16(low, column, high)),
                                   pairs(_mm512_loadu_si512(slot)));
        }
        _mm512_store_ps(y, sum);
    }
}

namespace {

// Registers of 16 rows; each step is two columns, side by side for each row.
template <int Registers>
const std::uint16_t* panel(const std::uint16_t* weight, std::int32_t steps, const std::uint16_t* x, float* y) {
    __m512 sum[Registers];
    for (int r = 0; r < Registers; ++r) sum[r] = _mm512_load_ps(y + 16 * r);
    for (std::int32_t s = 0; s < steps; ++s, x += 2, weight += 32 * Registers) {
        const __m512bh two = pairs(_mm512_set1_epi32(*reinterpret_cast<const std::int32_t*>(x)));
        for (int r = 0; r < Registers; ++r)
            sum[r] = _mm512_dpbf16_ps(sum[r], two, pairs(_mm512_load_si512(weight + 32 * r)));
    }
    for (int r = 0; r < Registers; ++r) _mm512_store_ps(y + 16 * r, sum[r]);
    return weight;
}

}  // namespace

void panels_bf16(const SteppedPanels<std::uint16_t>& p, const std::uint16_t* x, float* y) noexcept {
    const std::uint16_t* weight = p.weight;
    for (std::int32_t i = 0; i < p.wide; ++i, y += 64) weight = panel<4>(weight, p.steps, x, y);
    for (std::int32_t i = 0; i < p.narrow; ++i, y += 16) weight = panel<1>(weight, p.steps, x, y);
}

void to_bf16(const float* x, std::int32_t n, std::uint16_t* out) noexcept {
    for (std::int32_t i = 0; i < n; i += 16)
        _mm256_store_si256(reinterpret_cast<__m256i*>(out + i),
                           reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(_mm512_load_ps(x + i))));
}

}  // namespace lrnn
