#include <immintrin.h>

#include "core/matvec/kernels.h"

// vpdpbusd multiplies four unsigned by four signed bytes into a lane and adds them without saturation. Numbers of x are
// made unsigned by an offset, and 16-bit ones cut in two bytes: x = 256 (high - 128) + low, so that
// W x = 256 (sum w high - 128 sum w) + sum w low. 65,536 columns of 127 * 255 fit an int32.
namespace lrnn {
namespace {

constexpr std::int32_t kBytes = 64;  // of a register

// What a row's sums in the planes amount to, for 16 rows: low, or 256 high + low.
inline void store(std::int32_t* y, __m512i low) { _mm512_store_si512(y, low); }
inline void store(std::int32_t* y, __m512i high, __m512i low) {
    _mm512_store_si512(y, _mm512_add_epi32(_mm512_slli_epi32(high, 8), low));
}
inline void store(std::int64_t* y, __m512i low) {
    _mm512_store_si512(y, _mm512_cvtepi32_epi64(_mm512_castsi512_si256(low)));
    _mm512_store_si512(y + 8, _mm512_cvtepi32_epi64(_mm512_extracti64x4_epi64(low, 1)));
}
inline void store(std::int64_t* y, __m512i high, __m512i low) {
    const auto half = [](__m256i h, __m256i l) {
        return _mm512_add_epi64(_mm512_slli_epi64(_mm512_cvtepi32_epi64(h), 8), _mm512_cvtepi32_epi64(l));
    };
    _mm512_store_si512(y, half(_mm512_castsi512_si256(high), _mm512_castsi512_si256(low)));
    _mm512_store_si512(y + 8, half(_mm512_extracti64x4_epi64(high, 1), _mm512_extracti64x4_epi64(low, 1)));
}

template <int Planes, int Registers>
inline void begin(const std::int32_t* init, __m512i (&high)[Registers], __m512i (&low)[Registers]) {
    for (int r = 0; r < Registers; ++r) {
        high[r] = _mm512_load_si512(init + 16 * r);
        low[r] = Planes == 1 ? high[r] : _mm512_setzero_si512();
    }
}

template <int Planes, int Registers, typename Sum>
inline void finish(Sum* y, const __m512i (&high)[Registers], const __m512i (&low)[Registers]) {
    for (int r = 0; r < Registers; ++r)
        Planes == 1 ? store(y + 16 * r, low[r]) : store(y + 16 * r, high[r], low[r]);
}

// Loads once what is used twice: GCC 12 would rather read the memory again, and loads are what bounds these loops (W8A16
// at 192 x 192: 0.166 us without this, 0.124 with it).
inline __m512i load_once(const void* p) {
    __m512i v = _mm512_load_si512(p);
    asm("" : "+v"(v));
    return v;
}

// Sums stand in arrays of registers of their own: as members of a structure GCC 12 moves them about in every slot, which
// cost a third of the speed.
template <int Planes, int Registers, typename Sum>
inline const std::uint8_t* group(const std::uint8_t* slot, const std::uint16_t* start, std::int32_t count, IntegerX in,
                                 const std::int32_t* init, Sum* y) {
    __m512i high[Registers], low[Registers];
    begin<Planes>(init, high, low);
    const std::uint8_t* x = static_cast<const std::uint8_t*>(in.planes);
    for (std::int32_t s = 0; s < count; ++s, slot += 2 * Registers * kBytes) {
        const std::uint8_t *h = x + start[s], *l = Planes == 1 ? h : h + in.room;  // a window of 128 numbers in each plane
        const __m512i h0 = _mm512_loadu_si512(h), h1 = _mm512_loadu_si512(h + kBytes);
        const __m512i l0 = _mm512_loadu_si512(l), l1 = _mm512_loadu_si512(l + kBytes);
        for (int r = 0; r < Registers; ++r) {
            const __m512i weights = load_once(slot + r * kBytes);
            const __m512i columns = load_once(slot + (Registers + r) * kBytes);
            if (Planes == 2)
                high[r] = _mm512_dpbusd_epi32(high[r], _mm512_permutex2var_epi8(h0, columns, h1), weights);
            low[r] = _mm512_dpbusd_epi32(low[r], _mm512_permutex2var_epi8(l0, columns, l1), weights);
        }
    }
    finish<Planes>(y, high, low);
    return slot;
}

template <int Planes, typename Sum>
void windows(const Windows& w, IntegerX in, const std::int32_t* init, Sum* y) noexcept {
    const std::uint8_t* slot = w.slots;
    const std::uint16_t* start = w.starts;
    const std::int32_t* count = w.counts;
    for (std::int32_t g = 0; g < w.wide; ++g, start += *count++, y += 64, init += 64)
        slot = group<Planes, 4>(slot, start, *count, in, init, y);
    for (std::int32_t g = 0; g < w.narrow; ++g, start += *count++, y += 16, init += 16)
        slot = group<Planes, 1>(slot, start, *count, in, init, y);
}

// Registers of 16 rows; each step of four columns is one word of x for all of them.
template <int Planes, int Registers, typename Sum>
inline const std::int8_t* panel(const std::int8_t* weight, std::int32_t steps, IntegerX in, const std::int32_t* init,
                                Sum* y) {
    __m512i high[Registers], low[Registers];
    begin<Planes>(init, high, low);
    const std::uint8_t *h = static_cast<const std::uint8_t*>(in.planes), *l = Planes == 1 ? h : h + in.room;
    for (std::int32_t s = 0; s < steps; ++s, h += 4, l += 4, weight += Registers * kBytes) {
        const __m512i h4 = _mm512_set1_epi32(*reinterpret_cast<const std::int32_t*>(h));
        const __m512i l4 = _mm512_set1_epi32(*reinterpret_cast<const std::int32_t*>(l));
        for (int r = 0; r < Registers; ++r) {
            const __m512i weights = load_once(weight + r * kBytes);
            if (Planes == 2) high[r] = _mm512_dpbusd_epi32(high[r], h4, weights);
            low[r] = _mm512_dpbusd_epi32(low[r], l4, weights);
        }
    }
    finish<Planes>(y, high, low);
    return weight;
}

template <int Planes, typename Sum>
void panels(const BytePanels& p, IntegerX in, const std::int32_t* init, Sum* y) noexcept {
    const std::int8_t* weight = p.weight;
    for (std::int32_t i = 0; i < p.wide; ++i, y += 64, init += 64)
        weight = panel<Planes, 4>(weight, p.steps, in, init, y);
    for (std::int32_t i = 0; i < p.narrow; ++i, y += 16, init += 16)
        weight = panel<Planes, 1>(weight, p.steps, in, init, y);
}

inline __m512i load_words(const std::int16_t* x, std::int32_t left) {
    const __mmask32 mask = left >= 32 ? 0xffffffffu : (1u << left) - 1;
    return _mm512_maskz_loadu_epi16(mask, x);
}

void prepare16(const std::int16_t* x, std::int32_t n, void* planes, std::int64_t room) noexcept {
    std::uint8_t *high = static_cast<std::uint8_t*>(planes), *low = high + room;
    for (std::int32_t i = 0; i < n; i += 32) {
        const __m512i words = _mm512_xor_si512(load_words(x + i, n - i), _mm512_set1_epi16(-0x8000));
        _mm256_store_si256(reinterpret_cast<__m256i*>(low + i), _mm512_cvtepi16_epi8(words));
        _mm256_store_si256(reinterpret_cast<__m256i*>(high + i), _mm512_cvtepi16_epi8(_mm512_srli_epi16(words, 8)));
    }
}

void prepare8(const std::int16_t* x, std::int32_t n, void* planes, std::int64_t) noexcept {
    std::uint8_t* low = static_cast<std::uint8_t*>(planes);
    for (std::int32_t i = 0; i < n; i += 32) {
        const __m512i words = _mm512_add_epi16(load_words(x + i, n - i), _mm512_set1_epi16(128));
        _mm256_store_si256(reinterpret_cast<__m256i*>(low + i), _mm512_cvtepi16_epi8(words));
    }
}

}  // namespace

const IntegerArithmetic integers16_avx512vnni{prepare16, 2, -128, {windows<2>, windows<2>}, {panels<2>, panels<2>}, 4};
const IntegerArithmetic integers8_avx512vnni{prepare8, 1, -128, {windows<1>, windows<1>}, {panels<1>, panels<1>}, 4};

}  // namespace lrnn
