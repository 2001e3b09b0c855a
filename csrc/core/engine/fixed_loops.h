// The loops behind FixedLoops, in the compiler's generic vectors; see elementwise_loops.h for the rules of such a file.
#pragma once

#include "core/engine/fixed_norm.h"

namespace lrnn {
namespace {

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

void pair_relu(const Operation& op, float* base, std::int32_t) noexcept {
    const std::int32_t* x = integers(base, op.in);
    each_narrow(op, base, [=](std::int32_t i) {
        const Wide pairs = *reinterpret_cast<const Wide*>(x + i), re = first(pairs), im = second(pairs);
        return Narrow(pairs & ((re > 0) | ((re == 0) & (im > 0))));
    });
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
    {rescale<N>, rescale<W>},
    {affine<N>, affine<W>},
    {diagonal<N>, diagonal<W>},
    {gated<N, false>, gated<W, false>},
    {gated<N, true>, gated<W, true>},
    {add<N>, add<W>},
    {product<N>, product<W>},
    quantize,
    dequantize,
    relu,
    pair_relu,
    norm,
    table,
    to_words,
    {finish<N, N>, finish<N, W>, finish<W, W>},
};

}  // namespace
}  // namespace lrnn
