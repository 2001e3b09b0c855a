// The scan's kernels, written once over compiler vectors and compiled by one file per ISA. In cache, time is walked in
// tiles of a few steps, and a tile by groups of vectors: their states, `a` and sums stay in registers over the tile
// instead of passing through L1 at every step. In memory a tile is one step, and every stream runs straight through
// its array, in the direction of travel: half the speed is lost where a row is walked against it, or where a few rows
// are interleaved. (Strips of channels through all of time are slower still: a third of the speed at half a row.)
//
// Everything stands in an unnamed namespace, so that no file's code can be linked in place of another's.
#pragma once

#include <algorithm>

#include "core/scan/scan_isa.h"
#include "core/scan/scan_vector.h"

namespace lrnn {
namespace {

// `a` for a vector of states; a real one under complex states is doubled: (a0, a0, a1, a1, ...).
template <class T, bool ComplexA, bool ComplexB, class V>
struct Factor {
    V real, imaginary;  // imaginary is (-im, im, -im, im, ...), and there only where `a` is complex

    Factor() = default;
    explicit Factor(const T* a) {
        constexpr Lanes<T, V> lanes{};
        if constexpr (ComplexA) {
            const V v = load<V>(a);
            real = real_parts(v, lanes);
            imaginary = imaginary_parts(v, lanes) * alternating<V>(lanes);
        } else if constexpr (ComplexB) {
            real = doubled<V>(a, lanes);
        } else {
            real = load<V>(a);
        }
    }
    V times_plus(V x, V b) const {  // a x + b
        const V sum = real * x + b;
        if constexpr (ComplexA) return imaginary * pairs_swapped(x, Lanes<T, V>{}) + sum;
        return sum;
    }
    V conj_times(V x) const {  // conj(a) x
        if constexpr (ComplexA) return real * x - imaginary * pairs_swapped(x, Lanes<T, V>{});
        return real * x;
    }
};

// Sum of g conj(h), of its real part where `a` is real: products of lanes, put together at the end.
template <class T, bool ComplexA, bool ComplexB, class V>
struct GradA {
    V straight{}, crossed{};  // of (gr hr, gi hi, ...) and (gr hi, gi hr, ...)

    void add(V g, V h) {
        straight += g * h;
        if constexpr (ComplexA) crossed += g * pairs_swapped(h, Lanes<T, V>{});
    }

    template <bool Add, bool Stream>
    void put(T* to) const {
        constexpr Lanes<T, V> lanes{};
        if constexpr (ComplexB && !ComplexA) {
            constexpr int half = sizeof(V) / sizeof(T) / 2;
            T parts[2 * half];
            store<false>(parts, straight);
            for (int i = 0; i < half; ++i) to[i] = (Add ? to[i] : T{}) + (parts[2 * i] + parts[2 * i + 1]);
        } else {
            V v = straight;
            if constexpr (ComplexA)
                v = even_odd(straight + pairs_swapped(straight, lanes), crossed - pairs_swapped(crossed, lanes), lanes);
            if constexpr (Add) v += load<V>(to);
            store<Stream>(to, v);
        }
    }
};

// Calls body.operator()<Vector, Group>(j) over the numbers [first, last) of a row, upwards or downwards: groups of
// whole vectors, single ones after them, then ever narrower ones, so that which vector a channel falls in depends on
// its place alone.
template <bool Up, class T, int Bytes, int LeastBytes, int Group, class Body>
inline void over_row(int64_t first, int64_t last, const Body& body) {
    constexpr int64_t lanes = Group * Bytes / sizeof(T);
    const int64_t whole = first + (last - first) / lanes * lanes;
    const auto rest = [&] {
        if (whole == last) return;
        if constexpr (Group > 1)
            over_row<Up, T, Bytes, LeastBytes, 1>(whole, last, body);
        else if constexpr (Bytes > LeastBytes)
            over_row<Up, T, Bytes / 2, LeastBytes, 1>(whole, last, body);
    };
    if constexpr (!Up) rest();
    for (int64_t j = first; j < whole; j += lanes)
        body.template operator()<Vector<T, Bytes>, Group>(Up ? j : first + whole - lanes - j);
    if constexpr (Up) rest();
}

template <class T, bool ComplexA, bool ComplexB, int Bytes, bool Stream>
struct Rows {
    static constexpr int a_numbers = ComplexA ? 2 : 1, b_numbers = ComplexB ? 2 : 1;
    static constexpr int least_bytes = b_numbers * int(sizeof(T));
    static constexpr int group = Bytes == 64 ? 4 : 2;  // what 32 or 16 registers hold
    const lrnn_scan& s;
    const lrnn_scan_unit& u;
    const int64_t tile;                                    // steps
    const int64_t count = (u.last - u.first) * b_numbers;  // numbers of a row of the unit
    // Steps ahead of which memory is fetched: hardware sees a row end, not where the next begins.
    const int64_t ahead = std::max(tile, 2048 / std::max<int64_t>(1, count * int64_t(sizeof(T))) + 1);
    // From one step travelled to the next, in numbers of b and of a.
    const int64_t stride = (s.reverse ? -1 : 1) * s.channels * b_numbers;
    const int64_t a_stride = s.a_is_constant ? 0 : (s.reverse ? -1 : 1) * s.channels * a_numbers;

    // Offset of the unit's row in an array (batch, rows, channels) of `numbers` each.
    int64_t row(int64_t t, int64_t rows, int numbers) const {
        return ((u.item * rows + t) * s.channels + u.first) * numbers;
    }
    int64_t state() const { return row(0, 1, b_numbers); }
    int64_t step(int64_t i) const { return row(time(i), s.length, b_numbers); }  // of the i-th step travelled
    int64_t a_step(int64_t i) const {
        return s.a_is_constant ? u.first * a_numbers : row(time(i), s.length, a_numbers);
    }
    static constexpr int64_t of_a(int64_t j) { return j * a_numbers / b_numbers; }

    // `a` of a group's vectors: kept in registers where it is constant, read at each step where it varies.
    template <class V, int Group, bool ConstantA>
    struct Factors {
        using A = Factor<T, ComplexA, ComplexB, V>;
        A held[ConstantA ? Group : 1];

        explicit Factors(const T* a) {
            if constexpr (ConstantA)
#pragma GCC unroll 4  // else the group's arrays stay in memory
                for (int g = 0; g < Group; ++g) held[g] = A(a + place(g));
        }
        A at(const T* a, int g) const { return ConstantA ? held[g] : A(a + place(g)); }
        static constexpr int64_t place(int g) { return of_a(g * int64_t(sizeof(V) / sizeof(T))); }
    };

    int64_t time(int64_t i) const { return s.reverse ? s.length - 1 - i : i; }
    bool cut(int64_t i) const {  // the edge by which the i-th step travelled is entered
        const int64_t t = time(i) + (s.reverse ? 1 : 0);
        return s.reset != nullptr && t < s.length && s.reset[u.item * s.length + t] != 0;
    }

    template <class Body>
    void over_rows(bool up, const Body& body) const {
        up ? over_row<true, T, Bytes, least_bytes, group>(0, count, body)
           : over_row<false, T, Bytes, least_bytes, group>(0, count, body);
    }

    template <bool ConstantA>
    void forward(const T* b, T* h, T* h_last) const {
        T* states = h_last + state();
        if (s.h0 != nullptr)
            std::memcpy(states, static_cast<const T*>(s.h0) + state(), count * sizeof(T));
        else
            std::memset(states, 0, count * sizeof(T));
        for (int64_t first = 0; first < s.length; first += tile)
            forward_tile<ConstantA>(first, std::min(first + tile, s.length), b, h, states);
        if constexpr (Stream) finish_streams();
    }

    template <bool ConstantA>
    void forward_tile(int64_t first, int64_t last, const T* b, T* h, T* states) const {
        const int64_t soon = std::min(first + ahead, s.length - (last - first)) - first;
        const T* a = static_cast<const T*>(s.a) + a_step(first);
        b += step(first);
        h += step(first);
        over_rows(!s.reverse, [&]<class V, int Group>(int64_t j) {
            constexpr int64_t lanes = sizeof(V) / sizeof(T);
            const T *b_t = b + j, *a_t = a + of_a(j);
            T* h_t = h + j;
            const Factors<V, Group, ConstantA> factors(a_t);
            V state[Group];
#pragma GCC unroll 4
            for (int g = 0; g < Group; ++g) state[g] = load<V>(states + j + g * lanes);
            for (int64_t i = first; i < last; ++i, b_t += stride, h_t += stride, a_t += a_stride) {
                const bool is_cut = cut(i);
#pragma GCC unroll 4
                for (int g = 0; g < Group; ++g) {
                    __builtin_prefetch(b_t + soon * stride + g * lanes);
                    if (!ConstantA) __builtin_prefetch(a_t + soon * a_stride + of_a(g * lanes));
                    const V b_v = load<V>(b_t + g * lanes);
                    state[g] = is_cut ? b_v : factors.at(a_t, g).times_plus(state[g], b_v);
                    store<Stream>(h_t + g * lanes, state[g]);
                }
            }
#pragma GCC unroll 4
            for (int g = 0; g < Group; ++g) store<false>(states + j + g * lanes, state[g]);
        });
    }

    template <bool ConstantA>
    void backward(const T* grad_h, const T* grad_last, const T* h, T* grad_a, T* grad_b, T* grad_h0) const {
        T* carries = grad_h0 + state();  // gradient that reaches a step from the one after it
        std::memcpy(carries, grad_last + state(), count * sizeof(T));
        if constexpr (ConstantA)
            std::memset(grad_a + row(0, 1, a_numbers), 0, count / b_numbers * a_numbers * sizeof(T));
        for (int64_t last = s.length; last > 0; last -= std::min(tile, last))
            backward_tile<ConstantA>(std::max<int64_t>(last - tile, 0), last, grad_h, h, grad_a, grad_b, carries);
        if constexpr (Stream) finish_streams();
    }

    template <bool ConstantA>
    void backward_tile(int64_t first, int64_t last, const T* grad_h, const T* h, T* grad_a, T* grad_b,
                       T* carries) const {
        const int64_t soon = std::min(ahead, first);
        const T* h0 = s.h0 ? static_cast<const T*>(s.h0) + state() : nullptr;
        const T* a = static_cast<const T*>(s.a) + a_step(last - 1);
        grad_a += ConstantA ? row(0, 1, a_numbers) : a_step(last - 1);
        grad_h += step(last - 1);
        grad_b += step(last - 1);
        h += step(last - 1);
        over_rows(s.reverse, [&]<class V, int Group>(int64_t j) {
            constexpr int64_t lanes = sizeof(V) / sizeof(T);
            const T *grad_h_t = grad_h + j, *h_t = h + j, *a_t = a + of_a(j);
            T *grad_b_t = grad_b + j, *grad_a_t = grad_a + of_a(j);
            const Factors<V, Group, ConstantA> factors(a_t);
            V carry[Group];
            GradA<T, ComplexA, ComplexB, V> sum[Group];
#pragma GCC unroll 4
            for (int g = 0; g < Group; ++g) carry[g] = load<V>(carries + j + g * lanes);
            for (int64_t i = last; i-- > first;) {
                const bool is_cut = cut(i);
                const T* before = i > 0 ? h_t - stride : h0 != nullptr ? h0 + j : nullptr;
#pragma GCC unroll 4
                for (int down = 0; down < Group; ++down) {
                    const int g = Group - 1 - down;
                    if (Stream || !ConstantA) {  // in cache, two streams alone run a tenth slower for it
                        __builtin_prefetch(grad_h_t - soon * stride + g * lanes);
                        __builtin_prefetch(h_t - soon * stride + g * lanes);
                        if (!ConstantA) __builtin_prefetch(a_t - soon * a_stride + of_a(g * lanes));
                    }
                    const V v = carry[g] + load<V>(grad_h_t + g * lanes);
                    store<Stream>(grad_b_t + g * lanes, v);
                    carry[g] = is_cut ? V{} : factors.at(a_t, g).conj_times(v);
                    if (!ConstantA) sum[g] = {};
                    if (!is_cut && before != nullptr) sum[g].add(v, load<V>(before + g * lanes));
                    if (!ConstantA) sum[g].template put<false, Stream>(grad_a_t + of_a(g * lanes));
                }
                grad_h_t -= stride, grad_b_t -= stride, h_t -= stride, a_t -= a_stride;
                if (!ConstantA) grad_a_t -= a_stride;
            }
#pragma GCC unroll 4
            for (int g = 0; g < Group; ++g) {
                store<false>(carries + j + g * lanes, carry[g]);
                if (ConstantA) sum[g].template put<true, false>(grad_a + of_a(j + g * lanes));
            }
        });
    }
};

// Calls run.operator()<T, ConstantA>(Rows<...>) of the numbers of `scan`.
template <int Bytes, class Run>
inline void with_rows(const lrnn_scan& s, const lrnn_scan_unit& u, const ScanWalk& walk, const Run& run) {
    const auto chosen = [&]<class T, bool A, bool B, bool Stream>() {
        const Rows<T, A, B, Bytes, Stream> rows{s, u, walk.tile};
        s.a_is_constant ? run.template operator()<T, true>(rows) : run.template operator()<T, false>(rows);
    };
    const auto streamed = [&]<class T, bool A, bool B>() {
        walk.stream ? chosen.template operator()<T, A, B, true>() : chosen.template operator()<T, A, B, false>();
    };
    const auto numbers = [&]<class T>() {
        if (!s.b_is_complex) return streamed.template operator()<T, false, false>();
        s.a_is_complex ? streamed.template operator()<T, true, true>() : streamed.template operator()<T, false, true>();
    };
    s.is_double ? numbers.template operator()<double>() : numbers.template operator()<float>();
}

template <int Bytes>
inline void forward_rows(const lrnn_scan& s, const lrnn_scan_unit& u, const ScanWalk& walk, const void* b, void* h,
                         void* h_last) {
    with_rows<Bytes>(s, u, walk, [&]<class T, bool ConstantA>(const auto& rows) {
        rows.template forward<ConstantA>(static_cast<const T*>(b), static_cast<T*>(h), static_cast<T*>(h_last));
    });
}

template <int Bytes>
inline void backward_rows(const lrnn_scan& s, const lrnn_scan_unit& u, const ScanWalk& walk, const void* grad_h,
                          const void* grad_last, const void* h, void* grad_a, void* grad_b, void* grad_h0) {
    with_rows<Bytes>(s, u, walk, [&]<class T, bool ConstantA>(const auto& rows) {
        const auto in = [](const void* p) { return static_cast<const T*>(p); };
        const auto out = [](void* p) { return static_cast<T*>(p); };
        rows.template backward<ConstantA>(in(grad_h), in(grad_last), in(h), out(grad_a), out(grad_b), out(grad_h0));
    });
}

}  // namespace
}  // namespace lrnn
