// The loops behind FixedLoops, in the compiler's generic vectors; see elementwise_loops.h for the rules of such a file.
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

// y[i] = within(f(i)) for the numbers of op, in vectors of T.
template <typename T, typename F>
inline void each(const Operation& op, float* base, F f) {
    std::int32_t* y = integers(base, op.out);
    for (std::int32_t i = 0; i < op.n; i += Lanes<T>::count) Lanes<T>::write(y + i, within(f(i), view(op).most));
}

template <typename T>
void rescale(const Operation& op, float* base, std::int32_t) noexcept {
    const std::int32_t* x = integers(base, op.in);
    const Shift<T> shift = uniform<T>(view(op));
    each<T>(op, base, [&](std::int32_t i) { return shifted(Lanes<T>::read(x + i), shift); });
}

template <typename T>
void affine(const Operation& op, float* base, std::int32_t) noexcept {
    const FixedView& node = view(op);
    const std::int32_t* x = integers(base, op.in);
    each<T>(op, base, [&](std::int32_t i) {
        const auto sum = Lanes<T>::read(node.scale + i) * Lanes<T>::read(x + i) + Lanes<T>::read(bias_of<T>(node) + i);
        return shifted_each<T>(sum, of_each<T>(node), i);
    });
}

template <typename T>
void add(const Operation& op, float* base, std::int32_t) noexcept {
    const FixedView& node = view(op);
    const std::int32_t *x0 = integers(base, op.in), *x1 = integers(base, op.other);
    const Shift<T> shift = uniform<T>(node);
    const T left0 = node.left0, left1 = node.left1;
    each<T>(op, base, [&](std::int32_t i) {
        return shifted((Lanes<T>::read(x0 + i) << left0) + (Lanes<T>::read(x1 + i) << left1), shift);
    });
}

template <typename T>
void product(const Operation& op, float* base, std::int32_t) noexcept {
    const std::int32_t *x0 = integers(base, op.in), *x1 = integers(base, op.other);
    const Shift<T> shift = uniform<T>(view(op));
    each<T>(op, base, [&](std::int32_t i) { return shifted(Lanes<T>::read(x0 + i) * Lanes<T>::read(x1 + i), shift); });
}

// y[i] = f(i) for whole vectors of integers, padding included.
template <typename F>
inline void each_narrow(const Operation& op, float* base, F f) {
    std::int32_t* y = integers(base, op.out);
    for (std::int32_t i = 0; i < op.n; i += kLanes) Lanes<std::int32_t>::write(y + i, f(i));
}

void relu(const Operation& op, float* base, std::int32_t) noexcept {
    const std::int32_t* x = integers(base, op.in);
    each_narrow(op, base, [=](std::int32_t i) {
        const Narrow v = Lanes<std::int32_t>::read(x + i);
        return v > 0 ? v : Narrow{};
    });
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

void pair_relu(const Operation& op, float* base, std::int32_t) noexcept {
    const std::int32_t* x = integers(base, op.in);
    each_narrow(op, base, [=](std::int32_t i) {
        const Wide pairs = *reinterpret_cast<const Wide*>(x + i), re = first(pairs), im = second(pairs);
        return Narrow(pairs & ((re > 0) | ((re == 0) & (im > 0))));
    });
}

// The low halves of lanes, numbers of 32 bits, multiplied to 64.
inline Wide multiplied(Wide a, Wide b) {
#if defined(__AVX512F__)
    return Wide(_mm512_mul_epi32(__m512i(a), __m512i(b)));
#elif defined(__AVX2__)
    return Wide(_mm256_mul_epi32(__m256i(a), __m256i(b)));
#else
    return first(a) * first(b);
#endif
}

// q = D h + rest for the pairs h, and what the shift drops of it: re and im of each.
struct Drops {
    Wide re, im;
};
inline Drops dropped(const FixedView& node, std::int32_t i, Wide h, Wide* rest) {
    const auto part = [i](const std::int64_t* p) { return Lanes<std::int64_t>::read(p + kHalf * i); };
    const Wide right = part(node.decay_right), decay_re = part(node.decay_re), decay_im = part(node.decay_im);
    const Wide im = second(h);  // products read the low halves of lanes: of h itself, re
    const Wide q_re = multiplied(decay_re, h) - multiplied(decay_im, im) + first(*rest);
    const Wide q_im = multiplied(decay_re, im) + multiplied(decay_im, h) + second(*rest);
    const Wide drop_re = q_re >> right, drop_im = q_im >> right;
    *rest = paired(q_re - (drop_re << right), q_im - (drop_im << right));
    return {drop_re, drop_im};
}

template <typename T>
void diagonal(const Operation& op, float* base, std::int32_t) noexcept {
    const FixedView& node = view(op);
    const Shift<T> x_shift = uniform_of_x<T>(node), y_shift = uniform<T>(node);
    const auto at = [base](std::uint32_t offset) { return reinterpret_cast<Wide*>(base + offset); };
    const Wide* x = at(op.in);
    Wide *y = at(op.out), *state = at(op.state), *rest = at(op.state + op.other);
    for (std::int32_t i = 0; 2 * kHalf * i < op.n; ++i) {
        const Wide h = state[i];
        const Drops drop = dropped(node, i, h, rest + i);
        if constexpr (sizeof(T) == 4) {  // all but q fits 32 bits: both parts of a pair at once
            const Narrow sum = Narrow(h) - Narrow(paired(drop.re, drop.im)) + shifted(Narrow(x[i]), x_shift);
            const Narrow next = within(sum, node.state_most);
            state[i] = Wide(next);
            y[i] = Wide(within(shifted(next, y_shift), node.most));
        } else {
            const Wide re = within(first(h) - drop.re + shifted(first(x[i]), x_shift), node.state_most);
            const Wide im = within(second(h) - drop.im + shifted(second(x[i]), x_shift), node.state_most);
            state[i] = paired(re, im);
            y[i] = paired(within(shifted(re, y_shift), node.most), within(shifted(im, y_shift), node.most));
        }
    }
}

// words[from[i]]
inline Narrow gathered(const std::int32_t* words, Narrow from) {
#if defined(__AVX512F__)
    return Narrow(_mm512_i32gather_epi32(__m512i(from), words, 4));
#elif defined(__AVX2__)
    return Narrow(_mm256_i32gather_epi32(words, __m256i(from), 4));
#else
    Narrow out;
    for (int k = 0; k < kLanes; ++k) out[k] = words[from[k]];
    return out;
#endif
}

// Entry and slope from one word; both fit 16 bits and their product with what is left of x fits 32. Padding may hold
// anything: the table has room for whatever 16 bits of it say.
void table(const Operation& op, float* base, std::int32_t) noexcept {
    const FixedView& node = view(op);
    const std::int32_t* x = integers(base, op.in);
    const std::int32_t step = node.step, offset = node.offset, whole = 2 * offset - 1;
    const std::int32_t mask = (1 << step) - 1, half = (1 << step) >> 1;
    each_narrow(op, base, [=](std::int32_t i) {
        const Narrow above = (Lanes<std::int32_t>::read(x + i) + offset) & whole;
        const Narrow entry = gathered(node.table, above >> step);
        return ((entry << 16) >> 16) + (((entry >> 16) * (above & mask) + half) >> step);
    });
}

inline Floats nearest(Floats v) {
#if defined(__AVX512F__)
    return Floats(_mm512_roundscale_ps(__m512(v), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#elif defined(__AVX2__)
    return Floats(_mm256_round_ps(__m256(v), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#else
    for (int k = 0; k < kLanes; ++k) v[k] = __builtin_nearbyintf(v[k]);
    return v;
#endif
}

// Clipped while still a float to what int32 can take; what was clipped there saturates.
void quantize(const Operation& op, float* base, std::int32_t) noexcept {
    const float scale = view(op).scalar, *x = base + op.in;
    const std::int32_t most = view(op).most;
    const Floats limit = Floats{} + (most < (1 << 30) ? static_cast<float>(most) + 1.0f : 2147483520.0f);
    each_narrow(op, base, [=](std::int32_t i) {
        const Floats scaled = nearest(*reinterpret_cast<const Floats*>(x + i) * scale);
        const Floats low = scaled > limit ? limit : scaled;
        const Narrow q = within(__builtin_convertvector(low < -limit ? -limit : low, Narrow), most);
        const Narrow high = Narrow{} + most;
        return scaled > limit ? high : scaled < -limit ? -high : q;
    });
}

void dequantize(const Operation& op, float* base, std::int32_t) noexcept {
    const std::int32_t* x = integers(base, op.in);
    const float scale = view(op).scalar;
    float* y = base + op.out;
    for (std::int32_t i = 0; i < op.n; i += kLanes)
        *reinterpret_cast<Floats*>(y + i) = __builtin_convertvector(Lanes<std::int32_t>::read(x + i), Floats) * scale;
}

// Whole vectors, padding included.
void to_words(const std::int32_t* x, std::int32_t n, std::int16_t* out) noexcept {
    using Words = std::int16_t __attribute__((vector_size(2 * kLanes), may_alias));
    for (std::int32_t i = 0; i < n; i += kLanes)
        *reinterpret_cast<Words*>(out + i) = __builtin_convertvector(Lanes<std::int32_t>::read(x + i), Words);
}

template <typename Sum, typename T>
void finish(const void* sums, const FixedView& node, std::int32_t n, std::int32_t* y) noexcept {
    const Sum* sum = static_cast<const Sum*>(sums);
    for (std::int32_t i = 0; i < n; i += Lanes<T>::count) {
        const auto v = Lanes<T>::read(sum + i) + Lanes<T>::read(bias_of<T>(node) + i);
        Lanes<T>::write(y + i, within(shifted_each<T>(v, of_each<T>(node), i), node.most));
    }
}

using N = std::int32_t;
using W = std::int64_t;
constexpr FixedLoops kFixedLoops = {
    {rescale<N>, rescale<W>},   {affine<N>, affine<W>},   {diagonal<N>, diagonal<W>},
    {add<N>, add<W>},           {product<N>, product<W>}, quantize,
    dequantize,                 relu,                     pair_relu,
    table,                      to_words,                 {finish<N, N>, finish<N, W>, finish<W, W>},
};

}  // namespace
}  // namespace lrnn
