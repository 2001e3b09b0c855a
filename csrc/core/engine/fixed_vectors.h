// Vectors of integers, shifts and saturation, for the loops of fixed-point nodes; see elementwise_loops.h for the rules of
// such a file.
#pragma once

#if defined(__AVX2__)
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC 12's own header, bug 105593
#endif
#include <immintrin.h>
#endif

#include "core/engine/fixed.h"
#include "core/engine/lanes.h"

namespace lrnn {
namespace {

constexpr int kHalf = kLanes / 2;
using Narrow = std::int32_t __attribute__((vector_size(4 * kLanes), may_alias));
using Wide = std::int64_t __attribute__((vector_size(8 * kHalf), may_alias));
using HalfNarrow = std::int32_t __attribute__((vector_size(4 * kHalf), may_alias));
using Floats = float __attribute__((vector_size(4 * kLanes), may_alias));

// How vectors of T are read from int32 and written to them.
template <typename T>
struct Lanes;
template <>
struct Lanes<std::int32_t> {
    using Vector = Narrow;
    static constexpr int count = kLanes;
    static Vector read(const std::int32_t* p) { return *reinterpret_cast<const Narrow*>(p); }
    static void write(std::int32_t* p, Vector v) { *reinterpret_cast<Narrow*>(p) = v; }
};
template <>
struct Lanes<std::int64_t> {
    using Vector = Wide;
    static constexpr int count = kHalf;
    static Vector read(const std::int32_t* p) {
        return __builtin_convertvector(*reinterpret_cast<const HalfNarrow*>(p), Wide);
    }
    static Vector read(const std::int64_t* p) { return *reinterpret_cast<const Wide*>(p); }
    static void write(std::int32_t* p, Vector v) {
        *reinterpret_cast<HalfNarrow*>(p) = __builtin_convertvector(v, HalfNarrow);
    }
};

inline const FixedView& view(const Operation& op) { return *op.fixed; }
inline std::int32_t* integers(float* base, std::uint32_t offset) {
    return reinterpret_cast<std::int32_t*>(base + offset);
}

template <typename T>
const Shift<T>& uniform(const FixedView& node) {
    if constexpr (sizeof(T) == 4) return node.shift32;
    else return node.shift64;
}
template <typename T>
const Shift<T>& uniform_of_x(const FixedView& node) {
    if constexpr (sizeof(T) == 4) return node.x_shift32;
    else return node.x_shift64;
}
template <typename T>
const Shifts<T>& of_each(const FixedView& node) {
    if constexpr (sizeof(T) == 4) return node.shifts32;
    else return node.shifts64;
}
template <typename T>
const T* bias_of(const FixedView& node) {
    if constexpr (sizeof(T) == 4) return node.bias32;
    else return node.bias64;
}

template <typename Vector, typename T>
inline Vector shifted(Vector v, T left, T right, T half, T even) {
    v = v << left;
    return (v + half + ((v >> right) & even)) >> right;
}
template <typename Vector, typename T>
inline Vector shifted(Vector v, const Shift<T>& s) {
    return shifted(v, s.left, s.right, s.half, s.even);
}
template <typename T>
inline typename Lanes<T>::Vector shifted_each(typename Lanes<T>::Vector v, const Shifts<T>& s, std::int32_t i) {
    const auto at = [i](const T* p) { return Lanes<T>::read(p + i); };
    return shifted(v, at(s.left), at(s.right), at(s.half), at(s.even));
}

template <typename Vector>
inline Vector within(Vector v, std::int32_t most) {
    const Vector high = Vector{} + most;
    v = v > high ? high : v;
    return v < -high ? -high : v;
}

// (re, im) pairs of int32 as lanes of 64 bits, little endian: each part with its sign extended, and back.
inline Wide first(Wide pairs) { return (pairs << 32) >> 32; }
inline Wide second(Wide pairs) { return pairs >> 32; }
inline Wide paired(Wide re, Wide im) {
#if defined(__AVX512F__)
    return Wide(_mm512_mask_shuffle_epi32(__m512i(re), 0xaaaa, __m512i(im), _MM_PERM_CCAA));
#else
    return (re & 0xffffffff) | (im << 32);
#endif
}

}  // namespace
}  // namespace lrnn
