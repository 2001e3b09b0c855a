#include <immintrin.h>

#include "core/matvec/kernels.h"

// Products of signed words, two to a lane (vpmaddwd), are exact for any int16 x and int8 w. x is looked up byte by byte:
// its low bytes and its high bytes lie in tables of 16, two for a window of 32, and are put together as words.
namespace lrnn {
namespace {

// 64-bit sums of a lane's 32-bit ones could only be needed beyond 511 extreme products; sums are widened before that.
constexpr std::int32_t kUnwidened = 255;  // slots or steps: each adds two products, at most 2^22, to a lane

inline __m256i load(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
inline __m256i both_halves(const std::uint8_t* p) {
    return _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}

// Sums of 16 rows as the unpacking orders them: a holds rows 0-3 and 8-11, b the others.
template <typename Sum>
struct Sums;

template <>
struct Sums<std::int32_t> {
    __m256i a = _mm256_setzero_si256(), b = _mm256_setzero_si256();
    void widen() {}
    void store(std::int32_t* y) const {
        _mm256_store_si256(reinterpret_cast<__m256i*>(y), _mm256_permute2x128_si256(a, b, 0x20));
        _mm256_store_si256(reinterpret_cast<__m256i*>(y + 8), _mm256_permute2x128_si256(a, b, 0x31));
    }
};

template <>
struct Sums<std::int64_t> {
    __m256i a = _mm256_setzero_si256(), b = _mm256_setzero_si256();
    __m256i wide[4] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256()};
    void widen() {
        const __m256i rows[2] = {_mm256_permute2x128_si256(a, b, 0x20), _mm256_permute2x128_si256(a, b, 0x31)};
        for (int i = 0; i < 2; ++i) {
            const __m256i first = _mm256_cvtepi32_epi64(_mm256_castsi256_si128(rows[i]));
            const __m256i second = _mm256_cvtepi32_epi64(_mm256_extracti128_si256(rows[i], 1));
            wide[2 * i] = _mm256_add_epi64(wide[2 * i], first);
            wide[2 * i + 1] = _mm256_add_epi64(wide[2 * i + 1], second);
        }
        a = b = _mm256_setzero_si256();
    }
    void store(std::int64_t* y) {
        widen();
        for (int i = 0; i < 4; ++i) _mm256_store_si256(reinterpret_cast<__m256i*>(y + 4 * i), wide[i]);
    }
};

// x has a plane of low bytes and one of high bytes, `room` apart; a window is 32 of each.
struct Window {
    __m256i low[2], high[2];
    Window(const std::uint8_t* x, std::int64_t room) {
        for (int i = 0; i < 2; ++i) low[i] = both_halves(x + 16 * i), high[i] = both_halves(x + room + 16 * i);
    }
    template <typename Sum>
    void add(Sums<Sum>& sums, __m256i weights, __m256i columns) const {
        // A column c is stored as 0x70 + c: bit 7 makes the shuffle give zero, which the table meant by c < 16 needs for
        // c >= 16, and with bit 7 turned over the other table for c < 16.
        const __m256i others = _mm256_xor_si256(columns, _mm256_set1_epi8(-0x80));
        const __m256i l = _mm256_or_si256(_mm256_shuffle_epi8(low[0], columns), _mm256_shuffle_epi8(low[1], others));
        const __m256i h = _mm256_or_si256(_mm256_shuffle_epi8(high[0], columns), _mm256_shuffle_epi8(high[1], others));
        const __m256i sign = _mm256_cmpgt_epi8(_mm256_setzero_si256(), weights);
        sums.a = _mm256_add_epi32(
            sums.a, _mm256_madd_epi16(_mm256_unpacklo_epi8(l, h), _mm256_unpacklo_epi8(weights, sign)));
        sums.b = _mm256_add_epi32(
            sums.b, _mm256_madd_epi16(_mm256_unpackhi_epi8(l, h), _mm256_unpackhi_epi8(weights, sign)));
    }
};

template <int Registers, typename Sum>
const std::uint8_t* group(const std::uint8_t* slot, const std::uint16_t* start, std::int32_t count, IntegerX in, Sum* y) {
    Sums<Sum> sums[Registers];
    const std::uint8_t* x = static_cast<const std::uint8_t*>(in.planes);
    for (std::int32_t s = 0; s < count; ++s, slot += 64 * Registers) {
        const Window window(x + start[s], in.room);
        for (int r = 0; r < Registers; ++r) window.add(sums[r], load(slot + 32 * r), load(slot + 32 * (Registers + r)));
        if (s % kUnwidened == kUnwidened - 1)
            for (int r = 0; r < Registers; ++r) sums[r].widen();
    }
    for (int r = 0; r < Registers; ++r) sums[r].store(y + 16 * r);
    return slot;
}

template <typename Sum>
void windows(const Windows& w, IntegerX in, const std::int32_t*, Sum* y) noexcept {
    const std::uint8_t* slot = w.slots;
    const std::uint16_t* start = w.starts;
    const std::int32_t* count = w.counts;
    for (std::int32_t g = 0; g < w.wide; ++g, start += *count++, y += 32)
        slot = group<2>(slot, start, *count, in, y);
    for (std::int32_t g = 0; g < w.narrow; ++g, start += *count++, y += 16)
        slot = group<1>(slot, start, *count, in, y);
}

// Registers of 16 rows; each step is two columns, side by side for each row.
template <int Registers, typename Sum>
const std::int8_t* panel(const std::int8_t* weight, std::int32_t steps, IntegerX in, Sum* y) {
    Sums<Sum> sums[Registers];
    const std::uint8_t *low = static_cast<const std::uint8_t*>(in.planes), *high = low + in.room;
    for (std::int32_t s = 0; s < steps; ++s, low += 2, high += 2, weight += 32 * Registers) {
        const std::uint32_t first = low[0] | high[0] << 8, second = low[1] | high[1] << 8;
        const __m256i pair = _mm256_set1_epi32(static_cast<std::int32_t>(first | second << 16));
        for (int r = 0; r < Registers; ++r) {
            const __m256i w = load(weight + 32 * r), sign = _mm256_cmpgt_epi8(_mm256_setzero_si256(), w);
            sums[r].a = _mm256_add_epi32(sums[r].a, _mm256_madd_epi16(pair, _mm256_unpacklo_epi8(w, sign)));
            sums[r].b = _mm256_add_epi32(sums[r].b, _mm256_madd_epi16(pair, _mm256_unpackhi_epi8(w, sign)));
        }
        if (s % kUnwidened == kUnwidened - 1)
            for (int r = 0; r < Registers; ++r) sums[r].widen();
    }
    for (int r = 0; r < Registers; ++r) sums[r].store(y + 16 * r);
    return weight;
}

template <typename Sum>
void panels(const BytePanels& p, IntegerX in, const std::int32_t*, Sum* y) noexcept {
    const std::int8_t* weight = p.weight;
    for (std::int32_t i = 0; i < p.wide; ++i, y += 64) weight = panel<4>(weight, p.steps, in, y);
    for (std::int32_t i = 0; i < p.narrow; ++i, y += 16) weight = panel<1>(weight, p.steps, in, y);
}

void prepare(const std::int16_t* x, std::int32_t n, void* planes, std::int64_t room) noexcept {
    std::uint8_t *low = static_cast<std::uint8_t*>(planes), *high = low + room;
    for (std::int32_t i = 0; i < n; ++i) {
        low[i] = static_cast<std::uint8_t>(x[i]);
        high[i] = static_cast<std::uint8_t>(x[i] >> 8);
    }
}

}  // namespace

const IntegerArithmetic integers16_avx2{prepare, 2, 0, {windows, windows}, {panels, panels}, 2};

}  // namespace lrnn
