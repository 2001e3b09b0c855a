// The scan's kernels, written once over compiler vectors and compiled by one file per ISA: whole rows of channels per
// step (a row's state stays in L1, and memory is walked in order), vectors over channels. Rows cut into narrow strips
// run 2.5 times slower: each step then touches another page.
//
// Everything stands in an unnamed namespace, so that no file's code can be linked in place of another's.
#pragma once

#include <algorithm>
#include <cstring>
#include <utility>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#include "core/scan/scan.h"

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
inline V signs(std::integer_sequence<int, I...>) {
    return V{(I % 2 ? 1.0f : -1.0f)...};
}

// How a real or complex `a` meets a real or complex state, both as flat arrays of T.
template <class T, bool ComplexA, bool ComplexB>
struct Product {
    static constexpr int a_numbers = ComplexA ? 2 : 1;
    static constexpr int b_numbers = ComplexB ? 2 : 1;
    static constexpr bool mixed = ComplexB && !ComplexA;

    template <class V>
    using Lanes = std::make_integer_sequence<int, sizeof(V) / sizeof(T)>;

    // `a` for the vector of states at j; a real one under complex states is doubled: (a0, a0, a1, a1, ...).
    template <class V>
    static V load_a(const T* a, int64_t j) {
        if constexpr (mixed) {
            constexpr int half = sizeof(V) / sizeof(T) / 2;
            T twice[2 * half];
            for (int i = 0; i < half; ++i) twice[2 * i] = twice[2 * i + 1] = a[j / 2 + i];
            return load<V>(twice);
        } else {
            return load<V>(a + j);
        }
    }

    template <class V>
    static V times(V a, V x) {  // a x
        if constexpr (ComplexA) {
            constexpr Lanes<V> l{};
            return real_parts(a, l) * x + imaginary_parts(a, l) * signs<V>(l) * pairs_swapped(x, l);
        } else {
            return a * x;
        }
    }

    template <class V>
    static V conj_times(V a, V x) {  // conj(a) x
        if constexpr (ComplexA) {
            constexpr Lanes<V> l{};
            return real_parts(a, l) * x - imaginary_parts(a, l) * signs<V>(l) * pairs_swapped(x, l);
        } else {
            return a * x;
        }
    }

    // grad_a (+)= g conj(h), its real part where `a` is real.
    template <bool Add, bool Stream, class V>
    static void put_grad_a(T* grad_a, int64_t j, V g, V h) {
        if constexpr (mixed) {
            constexpr int half = sizeof(V) / sizeof(T) / 2;
            T parts[2 * half];
            store<false>(parts, g * h);
            for (int i = 0; i < half; ++i) {
                const T sum = parts[2 * i] + parts[2 * i + 1];
                grad_a[j / 2 + i] = Add ? grad_a[j / 2 + i] + sum : sum;
            }
        } else {
            V v = conj_times(h, g);
            if constexpr (Add) v += load<V>(grad_a + j);
            store<Stream && !Add>(grad_a + j, v);
        }
    }
};

// Calls body.operator()<Vector>(j) over the numbers [0, count) of a row: whole vectors, then ever narrower ones, so
// that which vector a channel falls in depends on its place alone.
template <class T, int Bytes, int LeastBytes, class Body>
inline void over_row(int64_t j, int64_t count, const Body& body) {
    constexpr int64_t lanes = Bytes / sizeof(T);
    for (; j + lanes <= count; j += lanes) body.template operator()<Vector<T, Bytes>>(j);
    if constexpr (Bytes > LeastBytes)
        if (j < count) over_row<T, Bytes / 2, LeastBytes>(j, count, body);
}

template <class T, bool ComplexA, bool ComplexB, int Bytes, bool Stream>
struct Rows {
    using P = Product<T, ComplexA, ComplexB>;
    static constexpr int least_bytes = P::b_numbers * int(sizeof(T));

    const lrnn_scan& s;
    const lrnn_scan_unit& u;
    const int64_t count = (u.last - u.first) * P::b_numbers;  // numbers of a row of the unit

    // Offset of the unit's row in an array (batch, rows, channels) of `numbers` each.
    int64_t row(int64_t t, int64_t rows, int numbers) const {
        return ((u.item * rows + t) * s.channels + u.first) * numbers;
    }
    int64_t step(int64_t t) const { return row(t, s.length, P::b_numbers); }
    int64_t state() const { return row(0, 1, P::b_numbers); }
    const T* a(int64_t t) const {
        const T* base = static_cast<const T*>(s.a);
        return base + (s.a_is_constant ? u.first * P::a_numbers : row(t, s.length, P::a_numbers));
    }

    // Rows this far ahead are fetched early: hardware sees a row end, not where the next begins, least of all when
    // time runs backwards (3 times slower there).
    const int64_t ahead = 4096 / std::max<int64_t>(1, count * int64_t(sizeof(T))) + 1;

    int64_t time(int64_t i) const { return s.reverse ? s.length - 1 - i : i; }  // of the i-th step travelled
    bool cut(int64_t t) const {                                                // the edge by which t is entered
        if (s.reset == nullptr || (s.reverse && t + 1 == s.length)) return false;
        return s.reset[u.item * s.length + t + (s.reverse ? 1 : 0)] != 0;
    }

    void forward(const T* b, T* h, T* h_last) const {
        T* state_row = h_last + state();  // the state lives here, in L1
        if (s.h0 != nullptr)
            std::memcpy(state_row, static_cast<const T*>(s.h0) + state(), count * sizeof(T));
        else
            std::memset(state_row, 0, count * sizeof(T));
        for (int64_t i = 0; i < s.length; ++i) {
            const int64_t t = time(i);
            const bool is_cut = cut(t);
            const T* a_row = a(t);
            const T* b_row = b + step(t);
            T* h_row = h + step(t);
            const int64_t soon = time(std::min(i + ahead, s.length - 1));
            const T *b_soon = b + step(soon), *a_soon = a(soon);
            over_row<T, Bytes, least_bytes>(0, count, [&]<class V>(int64_t j) {
                __builtin_prefetch(b_soon + j);
                __builtin_prefetch(a_soon + j * P::a_numbers / P::b_numbers);
                V v = load<V>(b_row + j);
                if (!is_cut) v += P::times(P::template load_a<V>(a_row, j), load<V>(state_row + j));
                store<false>(state_row + j, v);
                store<Stream>(h_row + j, v);
            });
        }
        if constexpr (Stream) finish_streams();
    }

    template <bool ConstantA>
    void backward(const T* grad_h, const T* grad_last, const T* h, T* grad_a, T* grad_b, T* grad_h0) const {
        T* carry = grad_h0 + state();  // gradient that reaches a step from the one after it
        std::memcpy(carry, grad_last + state(), count * sizeof(T));
        T* grad_a_row = grad_a + row(0, ConstantA ? 1 : s.length, P::a_numbers);
        const int64_t a_count = count / P::b_numbers * P::a_numbers;
        if constexpr (ConstantA) std::memset(grad_a_row, 0, a_count * sizeof(T));
        for (int64_t i = s.length; i-- > 0;) {
            const int64_t t = time(i);
            const T* a_row = a(t);
            const T* grad_h_row = grad_h + step(t);
            T* grad_b_row = grad_b + step(t);
            const T* before = i > 0 ? h + step(time(i - 1)) : s.h0 ? static_cast<const T*>(s.h0) + state() : nullptr;
            if constexpr (!ConstantA) grad_a_row = grad_a + row(t, s.length, P::a_numbers);
            const bool is_cut = cut(t);
            const int64_t soon = time(std::max<int64_t>(i - ahead, 0));
            const T *grad_h_soon = grad_h + step(soon), *h_soon = h + step(soon), *a_soon = a(soon);
            if (!ConstantA && (is_cut || before == nullptr)) std::memset(grad_a_row, 0, a_count * sizeof(T));
            over_row<T, Bytes, least_bytes>(0, count, [&]<class V>(int64_t j) {
                __builtin_prefetch(grad_h_soon + j);
                __builtin_prefetch(h_soon + j);
                __builtin_prefetch(a_soon + j * P::a_numbers / P::b_numbers);
                const V g = load<V>(carry + j) + load<V>(grad_h_row + j);
                store<Stream>(grad_b_row + j, g);
                if (is_cut) return store<false>(carry + j, V{});
                store<false>(carry + j, P::conj_times(P::template load_a<V>(a_row, j), g));
                if (before != nullptr) P::template put_grad_a<ConstantA, Stream>(grad_a_row, j, g, load<V>(before + j));
            });
        }
        if constexpr (Stream) finish_streams();
    }
};

// Calls run(Rows<...>) of the numbers of `scan`.
template <int Bytes, class Run>
inline void with_rows(const lrnn_scan& s, const lrnn_scan_unit& u, bool stream, const Run& run) {
    const auto streamed = [&]<class T, bool A, bool B>() {
        stream ? run.template operator()<T>(Rows<T, A, B, Bytes, true>{s, u})
               : run.template operator()<T>(Rows<T, A, B, Bytes, false>{s, u});
    };
    const auto numbers = [&]<class T>() {
        if (!s.b_is_complex) return streamed.template operator()<T, false, false>();
        s.a_is_complex ? streamed.template operator()<T, true, true>() : streamed.template operator()<T, false, true>();
    };
    s.is_double ? numbers.template operator()<double>() : numbers.template operator()<float>();
}

template <int Bytes>
inline void forward_rows(const lrnn_scan& s, const lrnn_scan_unit& u, bool stream, const void* b, void* h,
                         void* h_last) {
    with_rows<Bytes>(s, u, stream, [&]<class T>(const auto& rows) {
        rows.forward(static_cast<const T*>(b), static_cast<T*>(h), static_cast<T*>(h_last));
    });
}

template <int Bytes>
inline void backward_rows(const lrnn_scan& s, const lrnn_scan_unit& u, bool stream, const void* grad_h,
                          const void* grad_last, const void* h, void* grad_a, void* grad_b, void* grad_h0) {
    with_rows<Bytes>(s, u, stream, [&]<class T>(const auto& rows) {
        const auto in = [](const void* p) { return static_cast<const T*>(p); };
        const auto out = [](void* p) { return static_cast<T*>(p); };
        if (s.a_is_constant)
            rows.template backward<true>(in(grad_h), in(grad_last), in(h), out(grad_a), out(grad_b), out(grad_h0));
        else
            rows.template backward<false>(in(grad_h), in(grad_last), in(h), out(grad_a), out(grad_b), out(grad_h0));
    });
}

}  // namespace
}  // namespace lrnn
