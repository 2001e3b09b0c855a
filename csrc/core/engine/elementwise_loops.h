// The loops behind Elementwise, in the compiler's generic vectors as wide as the including file's ISA has them.
// Included by one file per ISA, everything in it local to that file: a function that the linker could share between
// them might carry the wrong instructions. For the same reason nothing of the standard library is called.
#pragma once

#include <cstdint>

#include "core/engine/elementwise.h"
#include "core/engine/lanes.h"

namespace lrnn {
namespace {

using Vector = float __attribute__((vector_size(4 * kLanes), may_alias));
using Integers = std::int32_t __attribute__((vector_size(4 * kLanes)));
using Pairs = std::uint64_t __attribute__((vector_size(4 * kLanes)));

inline Vector& at(float* p, std::int32_t i) { return *reinterpret_cast<Vector*>(p + i); }
inline const Vector& at(const float* p, std::int32_t i) { return *reinterpret_cast<const Vector*>(p + i); }
inline Vector all(float value) { return Vector{} + value; }

// (re, im) pairs to (im, re).
inline Vector swapped(Vector v) {
    const Pairs pairs = reinterpret_cast<Pairs>(v);
    return reinterpret_cast<Vector>((pairs << 32) | (pairs >> 32));
}

// Lane l of the result is number from[l] of a, then b.
inline Vector chosen(Vector a, Vector b, Integers from) {
#if defined(__clang__)
    Vector out{};
    for (int k = 0; k < kLanes; ++k) out[k] = from[k] < kLanes ? a[from[k]] : b[from[k] - kLanes];
    return out;
#else
    return __builtin_shuffle(a, b, from);
#endif
}

inline Integers lane_numbers() {
    Integers lanes{};
    for (int k = 0; k < kLanes; ++k) lanes[k] = k;
    return lanes;
}

// out[i] = f(i) for whole vectors, padding included.
template <typename F>
inline void each(const Operation& op, float* base, F f) {
    float* out = base + op.out;
    for (std::int32_t i = 0; i < op.n; i += kLanes) at(out, i) = f(i);
}

// Sum of f(i) over the first n numbers, in an order that depends on n alone. f(i) gives a vector.
template <typename F>
inline float sum(std::int32_t n, F f) {
    Vector sums{};
    std::int32_t i = 0;
    for (; i + kLanes <= n; i += kLanes) sums += f(i);
    float total = 0.0f;
    for (int k = 0; k < kLanes; ++k) total += sums[k];
    if (i < n) {
        const Vector rest = f(i);
        for (int k = 0; i + k < n; ++k) total += rest[k];
    }
    return total;
}

// exp to about 1 ulp between its limits: x = n ln 2 + r with |r| <= ln 2 / 2, a polynomial for exp(r) (the Cephes
// library's expf), and n added to the exponent. Below -87.3 it stays at exp(-87.3) = 1.2e-38, above 88.3 at 2.2e38.
inline Vector exponential(Vector x) {
    x = x < -87.3f ? all(-87.3f) : x;
    x = x > 88.3f ? all(88.3f) : x;
    const float magic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer, half to even
    const Vector n = (x * 1.44269504088896341f + magic) - magic;
    const Vector r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
    Vector p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    const Integers bits = (__builtin_convertvector(n, Integers) + 127) << 23;
    return p * reinterpret_cast<Vector>(bits);
}

inline Vector logistic(Vector x) { return 1.0f / (1.0f + exponential(-x)); }

void clear(const Operation& op, float* base, std::int32_t) noexcept {
    each(op, base, [](std::int32_t) { return Vector{}; });
}

void load(const Operation& op, float* base, std::int32_t) noexcept {
    each(op, base, [&](std::int32_t i) { return at(op.a, i); });
}

void copy(const Operation& op, float* base, std::int32_t) noexcept {
    const float* x = base + op.in;
    each(op, base, [=](std::int32_t i) { return at(x, i); });
}

void accumulate(const Operation& op, float* base, std::int32_t) noexcept {
    const float* y = base + op.out;
    each(op, base, [&](std::int32_t i) { return at(y, i) + at(op.a, i); });
}

void scatter(const Operation& op, float* base, std::int32_t) noexcept {
    const float* x = base + op.in;
    float* y = base + op.out;
    for (std::int32_t i = 0; i < op.n; ++i) y[op.order[i]] += x[i];
}

void affine(const Operation& op, float* base, std::int32_t) noexcept {
    const float* x = base + op.in;
    each(op, base, [&](std::int32_t i) { return at(op.a, i) * at(x, i) + at(op.b, i); });
}

void diagonal(const Operation& op, float* base, std::int32_t) noexcept {
    const float* x = base + op.in;
    float* state = base + op.state;
    each(op, base, [&](std::int32_t i) {
        const Vector h = at(state, i);
        return at(state, i) = at(op.a, i) * h + (at(op.b, i) * swapped(h) + at(x, i));
    });
}

inline Vector moved_towards(Vector x, Vector g, Vector u) { return u + g * (x - u); }

void gated(const Operation& op, float* base, std::int32_t) noexcept {
    const float *g = base + op.in, *x = base + op.other;
    float* state = base + op.state;
    each(op, base, [&](std::int32_t i) {
        return at(state, i) = moved_towards(at(x, i), at(g, i), at(state, i));
    });
}

void turned_gated(const Operation& op, float* base, std::int32_t) noexcept {
    const float *g = base + op.in, *x = base + op.other;
    float *state = base + op.state, *out = base + op.out;
    const Integers half = lane_numbers() / 2;
    for (std::int32_t i = 0; i < op.n; i += 2 * kLanes) {
        const Vector gates = at(g, i / 2);
        for (int part = 0; part < 2; ++part) {
            const std::int32_t k = i + part * kLanes;
            const Vector h = at(state, k), u = at(op.a, k) * h + at(op.b, k) * swapped(h);
            at(out, k) = at(state, k) = moved_towards(at(x, k), chosen(gates, gates, half + part * kLanes / 2), u);
        }
    }
}

void embedding(const Operation& op, float* base, std::int32_t) noexcept {
    const auto token = static_cast<std::int64_t>(base[op.in]);
    __builtin_memcpy(base + op.out, op.a + token * op.n, sizeof(float) * static_cast<std::size_t>(op.n));
}

void relu(const Operation& op, float* base, std::int32_t) noexcept {
    const float* x = base + op.in;
    each(op, base, [=](std::int32_t i) { return at(x, i) > 0.0f ? at(x, i) : Vector{}; });
}

void pair_relu(const Operation& op, float* base, std::int32_t) noexcept {
    const float* x = base + op.in;
    const Integers first = reinterpret_cast<Integers>(Pairs{} + 0xffffffffu);  // -1 where re stands (little endian)
    each(op, base, [=](std::int32_t i) {
        const Vector v = at(x, i), other = swapped(v);
        const Vector re = first ? v : other, im = first ? other : v;
        return (re > 0.0f) | ((re == 0.0f) & (im > 0.0f)) ? v : Vector{};
    });
}

void sigmoid(const Operation& op, float* base, std::int32_t) noexcept {
    const float* x = base + op.in;
    each(op, base, [=](std::int32_t i) { return logistic(at(x, i)); });
}

void silu(const Operation& op, float* base, std::int32_t) noexcept {
    const float* x = base + op.in;
    each(op, base, [=](std::int32_t i) { return at(x, i) * logistic(at(x, i)); });
}

// 0.5 (1 + tanh(u)) = 1 / (1 + exp(-2u)): no cancellation where u is very negative.
void gelu(const Operation& op, float* base, std::int32_t) noexcept {
    const float* x = base + op.in;
    each(op, base, [=](std::int32_t i) {
        const Vector v = at(x, i);
        return v * logistic(1.59576912160573f * (v + 0.044715f * v * v * v));  // 2 sqrt(2 / pi)
    });
}

void layer_norm(const Operation& op, float* base, std::int32_t) noexcept {
    const float* x = base + op.in;
    const float count = static_cast<float>(op.n);
    const float mean = sum(op.n, [=](std::int32_t i) { return at(x, i); }) / count;
    const float var = sum(op.n, [=](std::int32_t i) { return (at(x, i) - mean) * (at(x, i) - mean); }) / count;
    const float scale = 1.0f / __builtin_sqrtf(var + op.scalar);
    each(op, base, [&](std::int32_t i) { return (at(x, i) - mean) * scale * at(op.a, i) + at(op.b, i); });
}

void rms_norm(const Operation& op, float* base, std::int32_t) noexcept {
    const float* x = base + op.in;
    const float mean = sum(op.n, [=](std::int32_t i) { return at(x, i) * at(x, i); }) / static_cast<float>(op.n);
    const float scale = 1.0f / __builtin_sqrtf(mean + op.scalar);
    each(op, base, [&](std::int32_t i) { return at(x, i) * scale * at(op.a, i); });
}

void add(const Operation& op, float* base, std::int32_t) noexcept {
    const float *x = base + op.in, *other = base + op.other;
    each(op, base, [=](std::int32_t i) { return at(x, i) + at(other, i); });
}

void product(const Operation& op, float* base, std::int32_t) noexcept {
    const float *x = base + op.in, *other = base + op.other;
    each(op, base, [=](std::int32_t i) { return at(x, i) * at(other, i); });
}

void sigmoid_gate(const Operation& op, float* base, std::int32_t) noexcept {
    const float *x = base + op.in, *other = base + op.other;
    each(op, base, [=](std::int32_t i) { return at(x, i) * logistic(at(other, i)); });
}

void silu_gate(const Operation& op, float* base, std::int32_t) noexcept {
    const float *x = base + op.in, *other = base + op.other;
    each(op, base, [=](std::int32_t i) { return at(x, i) * (at(other, i) * logistic(at(other, i))); });
}

void relu_gate(const Operation& op, float* base, std::int32_t) noexcept {
    const float *x = base + op.in, *other = base + op.other;
    each(op, base, [=](std::int32_t i) { return at(x, i) * (at(other, i) > 0.0f ? at(other, i) : Vector{}); });
}

void round(const Operation& op, float* base, std::int32_t) noexcept {
    const float* x = base + op.in;
    const float scale = op.scalar, back = 1.0f / op.scalar;  // powers of two: exact
    each(op, base, [=](std::int32_t i) {
        Vector v = at(x, i) * scale;
        for (int k = 0; k < kLanes; ++k) v[k] = __builtin_nearbyintf(v[k]);
        return v * back;
    });
}

void mean_pool(const Operation& op, float* base, std::int32_t) noexcept {
    const float* x = base + op.in;
    float* total = base + op.state;
    const float count = total[op.n] + 1.0f;
    // Whole vectors would reach into the count, which stands behind the sums.
    for (std::int32_t i = 0; i < op.n; ++i) base[op.out + i] = (total[i] += x[i]) / count;
    total[op.n] = count;
}

void log_softmax(const Operation& op, float* base, std::int32_t) noexcept {
    const float* x = base + op.in;
    float top = x[0];
    for (std::int32_t i = 1; i < op.n; ++i) top = x[i] > top ? x[i] : top;
    const float log_sum = __builtin_logf(sum(op.n, [=](std::int32_t i) { return exponential(at(x, i) - top); }));
    each(op, base, [=](std::int32_t i) { return (at(x, i) - top) - log_sum; });
}

bool all_finite(const float* x, std::int64_t n) noexcept {
    std::int32_t largest = 0;
    for (std::int64_t i = 0; i < n; ++i) {
        const std::int32_t magnitude = __builtin_bit_cast(std::int32_t, x[i]) & 0x7fffffff;
        largest = magnitude > largest ? magnitude : largest;
    }
    return largest < 0x7f800000;
}

constexpr Elementwise kElementwise = {
    clear,     load,    copy, accumulate, scatter,    affine,   diagonal, gated,   turned_gated, embedding, relu,
    pair_relu, sigmoid, silu, gelu,       layer_norm, rms_norm, add,      product, sigmoid_gate, silu_gate, relu_gate,
    round,     mean_pool, log_softmax, all_finite};

}  // namespace
}  // namespace lrnn
