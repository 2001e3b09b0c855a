// Vectors for the scan's kernels: loads, stores and the arithmetic of (re, im) pairs, over compiler vectors of any
// width. Everything stands in an unnamed namespace, so that no file's code can be linked in place of another's.
#pragma once

#include <cstring>
#include <utility>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace lrnn {
namespace {

template <class T, int Bytes>
struct VectorOf {
    typedef T type __attribute__((vector_size(Bytes)));
};
template <class T, int Bytes>
using Vector = typename VectorOf<T, Bytes>::type;

template <class V, class T>
inline V load(const T* from) {
    V v;
    std::memcpy(&v, from, sizeof v);
    return v;
}

template <bool Stream, class V, class T>
inline void store(T* to, V v) {
    if constexpr (Stream && sizeof(V) >= 16) {  // past the caches; `to` is aligned
#if defined(__AVX512F__)
        if constexpr (sizeof(V) == 64) return _mm512_stream_si512(reinterpret_cast<__m512i*>(to), (__m512i)v);
#endif
#if defined(__AVX__)
        if constexpr (sizeof(V) == 32) return _mm256_stream_si256(reinterpret_cast<__m256i*>(to), (__m256i)v);
#endif
#if defined(__SSE2__)
        if constexpr (sizeof(V) == 16) return _mm_stream_si128(reinterpret_cast<__m128i*>(to), (__m128i)v);
#endif
    }
    std::memcpy(to, &v, sizeof v);
}

inline void finish_streams() {
#if defined(__SSE2__)
    _mm_sfence();
#endif
}

template <class T, class V>
using Lanes = std::make_integer_sequence<int, sizeof(V) / sizeof(T)>;

template <int... I, class V>
inline V permuted(V v) {
#if __has_builtin(__builtin_shufflevector)
    return __builtin_shufflevector(v, v, I...);
#else  // GCC before 12
    return __builtin_shuffle(v, decltype(v < v){I...});
#endif
}

// Of (re, im, re, im, ...).
template <class V, int... I>
inline V pairs_swapped(V v, std::integer_sequence<int, I...>) {
    return permuted<(I ^ 1)...>(v);
}
template <class V, int... I>
inline V real_parts(V v, std::integer_sequence<int, I...>) {
    return permuted<(I & ~1)...>(v);
}
template <class V, int... I>
inline V imaginary_parts(V v, std::integer_sequence<int, I...>) {
    return permuted<(I | 1)...>(v);
}
template <class V, int... I>
inline V alternating(std::integer_sequence<int, I...>) {
    return V{(I % 2 ? 1.0f : -1.0f)...};
}

// Even lanes of one, odd lanes of the other.
template <class V, int... I>
inline V even_odd(V even, V odd, std::integer_sequence<int, I...>) {
#if __has_builtin(__builtin_shufflevector)
    return __builtin_shufflevector(even, odd, (I % 2 ? I + int(sizeof...(I)) : I)...);
#else
    return __builtin_shuffle(even, odd, decltype(even < odd){(I % 2 ? I + int(sizeof...(I)) : I)...});
#endif
}

// (x0, x0, x1, x1, ...) of half a vector's real numbers.
template <class V, class T, int... I>
inline V doubled(const T* from, std::integer_sequence<int, I...>) {
#if __has_builtin(__builtin_shufflevector)
    if constexpr (sizeof(V) >= 32) {
        const auto half = load<Vector<T, sizeof(V) / 2>>(from);
        return __builtin_shufflevector(half, half, (I / 2)...);
    }
#endif
    return V{from[I / 2]...};
}

}  // namespace
}  // namespace lrnn
