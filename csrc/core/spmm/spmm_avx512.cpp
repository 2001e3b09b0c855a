#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC 12's own header, bug 105593
#endif
#include <immintrin.h>

#include "core/spmm/spmm_panels.h"

namespace lrnn {
namespace {

struct Avx512 {
    using Vector = VectorOf<float, 64>::type;
    static constexpr int lanes = 16, bytes = 64, sums = 4, tile_quads = 4;

    // Of four weights, one in all lanes.
    struct FourValues {
        __m512 quads;
        explicit FourValues(const float* p) : quads(_mm512_broadcast_f32x4(_mm_loadu_ps(p))) {}
        template <int i>
        Vector at() const {
            return Vector(_mm512_permute_ps(quads, i * 0b01010101));
        }
    };

    // Inserting while loading leaves the shuffle unit, which the transposition keeps busy, alone.
    template <int Quads>
    static void quads(const float* p, int64_t step, int i, Vector (&v)[Quads][4]) {
        __m512 row[Quads];
        for (int q = 0; q < Quads; ++q) row[q] = _mm512_castps128_ps512(_mm_loadu_ps(p + 4 * q));
        for (int q = 0; q < Quads; ++q) row[q] = _mm512_insertf32x4(row[q], _mm_loadu_ps(p + step + 4 * q), 1);
        for (int q = 0; q < Quads; ++q) row[q] = _mm512_insertf32x4(row[q], _mm_loadu_ps(p + 2 * step + 4 * q), 2);
        for (int q = 0; q < Quads; ++q)
            v[q][i] = Vector(_mm512_insertf32x4(row[q], _mm_loadu_ps(p + 3 * step + 4 * q), 3));
    }
    static void transpose(Vector (&r)[4]) {
        const __m512d low01 = _mm512_castps_pd(_mm512_unpacklo_ps(__m512(r[0]), __m512(r[1])));
        const __m512d high01 = _mm512_castps_pd(_mm512_unpackhi_ps(__m512(r[0]), __m512(r[1])));
        const __m512d low23 = _mm512_castps_pd(_mm512_unpacklo_ps(__m512(r[2]), __m512(r[3])));
        const __m512d high23 = _mm512_castps_pd(_mm512_unpackhi_ps(__m512(r[2]), __m512(r[3])));
        r[0] = Vector(_mm512_unpacklo_pd(low01, low23));
        r[1] = Vector(_mm512_unpackhi_pd(low01, low23));
        r[2] = Vector(_mm512_unpacklo_pd(high01, high23));
        r[3] = Vector(_mm512_unpackhi_pd(high01, high23));
    }
    static Quad fold(Vector v) {
        const __m512 all = __m512(v);
        const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(all), _mm512_extractf32x8_ps(all, 1));
        return Quad(_mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1)));
    }
};

}  // namespace

const SpmmKernels spmm_avx512 = spmm_kernels<Avx512>;

}  // namespace lrnn
