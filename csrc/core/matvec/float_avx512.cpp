#include <immintrin.h>

#include "core/matvec/kernels.h"

namespace lrnn {
namespace {

// A piece of x in registers, in which a permute looks up 16 numbers at a time.
template <int Columns>
struct Window;

template <>
struct Window<32> {
    __m512 x[2];
    explicit Window(const float* from) : x{_mm512_loadu_ps(from), _mm512_loadu_ps(from + 16)} {}
    // `column` in the five lowest bits, which are all that the permute reads. `Byte`: where `index` has its own.
    template <int Byte>
    __m512 look_up(__m512i column, __m512i) const {
        return _mm512_permutex2var_ps(x[0], column, x[1]);
    }
};

template <>
struct Window<64> {
    Window<32> low, high;
    explicit Window(const float* from) : low(from), high(from + 32) {}
    template <int Byte>
    __m512 look_up(__m512i column, __m512i index) const {
        const __mmask16 upper = _mm512_test_epi32_mask(index, _mm512_set1_epi32(32 << (8 * Byte)));
        return _mm512_mask_blend_ps(upper, low.look_up<Byte>(column, index), high.look_up<Byte>(column, index));
    }
};

// sum += the 16 weights of register R times the numbers of x at their columns.
template <int R, int Columns>
inline void add(__m512& sum, const std::uint8_t* slot, __m512i index, const Window<Columns>& window) {
    const __m512i column = R == 0 ? index : _mm512_srli_epi32(index, 8 * R);
    sum = _mm512_fmadd_ps(_mm512_load_ps(slot + 64 * R), window.template look_up<R>(column, index), sum);
}

template <int Columns>
void windows(const Windows& w, const float* x, float* y) noexcept {
    const std::uint8_t* slot = w.slots;
    const std::uint16_t* start = w.starts;
    const std::int32_t* count = w.counts;
    for (std::int32_t g = 0; g < w.wide; ++g, ++count, y += 64) {
        __m512 sum[4];
        for (int r = 0; r < 4; ++r) sum[r] = _mm512_load_ps(y + 16 * r);
        for (std::int32_t s = 0; s < *count; ++s, slot += 320) {
            const Window<Columns> window(x + *start++);
            const __m512i index = _mm512_load_si512(slot + 256);
            add<0>(sum[0], slot, index, window);
            add<1>(sum[1], slot, index, window);
            add<2>(sum[2], slot, index, window);
            add<3>(sum[3], slot, index, window);
        }
        for (int r = 0; r < 4; ++r) _mm512_store_ps(y + 16 * r, sum[r]);
    }
    for (std::int32_t g = 0; g < w.narrow; ++g, ++count, y += 16) {
        __m512 sum = _mm512_load_ps(y);
        for (std::int32_t s = 0; s < *count; ++s, slot += 80) {
            const Window<Columns> window(x + *start++);
            const __m512i column =
                _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(slot + 64)));
            sum = _mm512_fmadd_ps(_mm512_loadu_ps(slot), window.template look_up<0>(column, column), sum);
        }
        _mm512_store_ps(y, sum);
    }
}

}  // namespace

void panels_avx512(const Panels& p, const float* x, float* y) noexcept {
    // No prefetching: it gets in the way of the processor's own (1024 x 1024 takes 57.8 us with it, 43.0 without; Zen 4).
    const float* w = p.weight;
    for (std::int32_t i = 0; i < p.wide; ++i, y += 64) {
        // Even and odd columns have sums of their own: eight chains keep two multipliers of latency four busy.
        __m512 even[4], odd[4];
        for (int r = 0; r < 4; ++r) even[r] = _mm512_load_ps(y + 16 * r), odd[r] = _mm512_setzero_ps();
        std::int32_t c = 0;
        for (; c + 2 <= p.cols; c += 2, w += 128) {
            const __m512 x0 = _mm512_set1_ps(x[c]), x1 = _mm512_set1_ps(x[c + 1]);
            for (int r = 0; r < 4; ++r) even[r] = _mm512_fmadd_ps(_mm512_load_ps(w + 16 * r), x0, even[r]);
            for (int r = 0; r < 4; ++r) odd[r] = _mm512_fmadd_ps(_mm512_load_ps(w + 64 + 16 * r), x1, odd[r]);
        }
        if (c < p.cols) {
            const __m512 x0 = _mm512_set1_ps(x[c]);
            for (int r = 0; r < 4; ++r) even[r] = _mm512_fmadd_ps(_mm512_load_ps(w + 16 * r), x0, even[r]);
            w += 64;
        }
        for (int r = 0; r < 4; ++r) _mm512_store_ps(y + 16 * r, _mm512_add_ps(even[r], odd[r]));
    }
    for (std::int32_t i = 0; i < p.narrow; ++i, y += 16) {
        __m512 sum[4] = {_mm512_load_ps(y), _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps()};
        std::int32_t c = 0;
        for (; c + 4 <= p.cols; c += 4, w += 64)
            for (int k = 0; k < 4; ++k)
                sum[k] = _mm512_fmadd_ps(_mm512_load_ps(w + 16 * k), _mm512_set1_ps(x[c + k]), sum[k]);
        for (; c < p.cols; ++c, w += 16) sum[0] = _mm512_fmadd_ps(_mm512_load_ps(w), _mm512_set1_ps(x[c]), sum[0]);
        _mm512_store_ps(y, _mm512_add_ps(_mm512_add_ps(sum[0], sum[1]), _mm512_add_ps(sum[2], sum[3])));
    }
}

void windows32_avx512(const Windows& w, const float* x, float* y) noexcept { windows<32>(w, x, y); }
void windows64_avx512(const Windows& w, const float* x, float* y) noexcept { windows<64>(w, x, y); }

}  // namespace lrnn
