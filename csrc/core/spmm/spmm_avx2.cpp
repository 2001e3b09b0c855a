#include <immintrin.h>

#include "core/spmm/spmm_panels.h"

namespace lrnn {
namespace {

struct Avx2 {
    using Vector = VectorOf<float, 32>::type;
    static constexpr int lanes = 8, bytes = 32, sums = 8, tile_quads = 2;

    // Of four weights, one in all lanes.
    struct FourValues {
        __m256 quads;
        explicit FourValues(const float* p) : quads(_mm256_broadcast_ps(reinterpret_cast<const __m128*>(p))) {}
        template <int i>
        Vector at() const {
            return Vector(_mm256_permute_ps(quads, i * 0b01010101));
        }
    };

    template <int Quads>
    static void quads(const float* p, int64_t step, int i, Vector (&v)[Quads][4]) {
        for (int q = 0; q < Quads; ++q) {
            const __m256 row = _mm256_castps128_ps256(_mm_loadu_ps(p + 4 * q));
            v[q][i] = Vector(_mm256_insertf128_ps(row, _mm_loadu_ps(p + step + 4 * q), 1));
        }
    }
    static void transpose(Vector (&r)[4]) {
        const __m256d low01 = _mm256_castps_pd(_mm256_unpacklo_ps(__m256(r[0]), __m256(r[1])));
        const __m256d high01 = _mm256_castps_pd(_mm256_unpackhi_ps(__m256(r[0]), __m256(r[1])));
        const __m256d low23 = _mm256_castps_pd(_mm256_unpacklo_ps(__m256(r[2]), __m256(r[3])));
        const __m256d high23 = _mm256_castps_pd(_mm256_unpackhi_ps(__m256(r[2]), __m256(r[3])));
        r[0] = Vector(_mm256_unpacklo_pd(low01, low23));
        r[1] = Vector(_mm256_unpackhi_pd(low01, low23));
        r[2] = Vector(_mm256_unpacklo_pd(high01, high23));
        r[3] = Vector(_mm256_unpackhi_pd(high01, high23));
    }
    static Quad fold(Vector v) {
        const __m256 all = __m256(v);
        return Quad(_mm_add_ps(_mm256_castps256_ps128(all), _mm256_extractf128_ps(all, 1)));
    }
};

}  // namespace

const SpmmKernels spmm_avx2 = spmm_kernels<Avx2>;

}  // namespace lrnn
