// The product over panels, written once with the compiler's vectors and compiled for each ISA. `Isa` holds what differs:
//   bytes        of a vector register
//   sums         vectors of sums held in registers for one row
//   Vector       floats, `lanes` of them: lanes / 4 quads
//   quads        v[q][i] = the quads at p + 4q, p + 4q + n, p + 4q + 2n, ...
//   tile_quads   quads of a row that are transposed at once
//   transpose    of four vectors, quad by quad
//   fold         the sum of a vector's quads
// Files of an ISA include nothing of the standard library (see core/matvec/kernels.h).
#pragma once

#include "core/spmm/spmm_isa.h"

namespace lrnn {
namespace {

template <class T, int Bytes>
struct VectorOf {
    typedef T type __attribute__((vector_size(Bytes), aligned(Bytes), may_alias));
    typedef T anywhere __attribute__((vector_size(Bytes), aligned(alignof(T)), may_alias));
};

using Quad = VectorOf<float, 16>::type;
using QuadAnywhere = VectorOf<float, 16>::anywhere;

// The least common denominator: one quad per vector. Also serves what is too narrow for wider ones.
struct OneQuad {
    using Vector = Quad;
    static constexpr int lanes = 4, tile_quads = 1;
    template <int Quads>
    static void quads(const float* p, int64_t, int i, Vector (&v)[Quads][4]) {
        for (int q = 0; q < Quads; ++q) v[q][i] = *reinterpret_cast<const QuadAnywhere*>(p + 4 * q);
    }
    static void transpose(Vector (&r)[4]) {
        const Vector a = r[0], b = r[1], c = r[2], d = r[3];
        r[0] = Vector{a[0], b[0], c[0], d[0]};
        r[1] = Vector{a[1], b[1], c[1], d[1]};
        r[2] = Vector{a[2], b[2], c[2], d[2]};
        r[3] = Vector{a[3], b[3], c[3], d[3]};
    }
    static Quad fold(Vector v) { return v; }
};

template <class Isa, int lanes>
struct LanesOf {
    static_assert(lanes == Isa::lanes);
    using type = Isa;
};
template <class Isa>
struct LanesOf<Isa, 4> {
    using type = OneQuad;
};

// to[c][r] = from[r][c] for `lanes` rows and 4 * Quads columns; the strides are of rows. Of each row all quads are read
// before the next row is: rows a power of two apart share few sets of the first-level cache and would drive each other out.
template <class Isa, int Quads>
inline void transpose_tile(const float* from, int64_t from_stride, float* to, int64_t to_stride) {
    using Anywhere = typename VectorOf<float, Isa::lanes * 4>::anywhere;
    typename Isa::Vector v[Quads][4];
    for (int i = 0; i < 4; ++i) Isa::template quads<Quads>(from + i * from_stride, 4 * from_stride, i, v);
    for (int q = 0; q < Quads; ++q) {
        Isa::transpose(v[q]);
        for (int i = 0; i < 4; ++i) *reinterpret_cast<Anywhere*>(to + (4 * q + i) * to_stride) = v[q][i];
    }
}

// The same for any number of columns, rounded down to a multiple of 4.
template <class Isa>
void transpose_rows(const float* from, int64_t from_stride, float* to, int64_t to_stride, int64_t cols) {
    constexpr int width = 4 * Isa::tile_quads;
    int64_t c = 0;
    for (; c + width <= cols; c += width)
        transpose_tile<Isa, Isa::tile_quads>(from + c, from_stride, to + c * to_stride, to_stride);
    for (; c + 4 <= cols; c += 4) transpose_tile<Isa, 1>(from + c, from_stride, to + c * to_stride, to_stride);
}

template <class Isa>
void transpose(const float* from, int64_t from_stride, float* to, int64_t to_stride, int64_t rows, int64_t cols) {
    int64_t r = 0;
    for (; r + Isa::lanes <= rows; r += Isa::lanes)
        transpose_rows<Isa>(from + r * from_stride, from_stride, to + r, to_stride, cols);
    for (; r + 4 <= rows; r += 4)
        transpose_rows<OneQuad>(from + r * from_stride, from_stride, to + r, to_stride, cols);
    for (int64_t i = 0; i < r; ++i)
        for (int64_t c = cols & ~int64_t{3}; c < cols; ++c) to[c * to_stride + i] = from[i * from_stride + c];
    for (; r < rows; ++r)
        for (int64_t c = 0; c < cols; ++c) to[c * to_stride + r] = from[r * from_stride + c];
}

template <class Isa>
void transpose(const double* from, int64_t from_stride, double* to, int64_t to_stride, int64_t rows, int64_t cols) {
    for (int64_t r = 0; r < rows; ++r)
        for (int64_t c = 0; c < cols; ++c) to[c * to_stride + r] = from[r * from_stride + c];
}

// Steps of x (stride cols) as a panel (cols, width); steps that it lacks are zeros.
template <class Isa, class T>
void pack(const T* x, int64_t steps, int64_t cols, T* panel, int width) {
    transpose<Isa>(x, cols, panel, width, steps, cols);
    for (int64_t c = 0; steps < width && c < cols; ++c)
        for (int64_t t = steps; t < width; ++t) panel[c * width + t] = 0;
}

// A panel (rows, width) as steps of y (stride rows). Long steps are written a few at a time from end to end: steps a power of
// two apart share few sets of the cache, and going from one to the next at every store costs half as much again.
template <class Isa, class T>
void unpack(const T* panel, int width, T* y, int64_t steps, int64_t rows) {
    const int64_t band = rows > 256 ? Isa::lanes : width;
    for (int64_t t = 0; t < steps; t += band) {
        const int64_t n = steps - t < band ? steps - t : band;
        transpose<Isa>(panel + t, width, y + t * rows, rows, rows, n);
    }
}

// How a panel of W steps is held in registers: `passes` times `count` vectors.
template <class Isa, class T, int W>
struct Shape {
    static constexpr int all = W * int{sizeof(T)};
    static constexpr int bytes = all < Isa::bytes ? all : Isa::bytes;
    static constexpr int lanes = bytes / int{sizeof(T)};
    static constexpr int vectors = all / bytes;
    static constexpr int count = vectors < Isa::sums ? vectors : Isa::sums;
    static constexpr int passes = vectors / count;
    static constexpr int merged = kPanelBytes / all;  // column blocks of a narrow panel that fit the cache together
    using Vector = typename VectorOf<T, bytes>::type;
};

// The weights of the next rows are fetched early: a row's part of a block ends before the processor sees a stream. One line
// of each will do: every fetch takes the place of a load of x.
template <class T, class Index>
inline void fetch(const T* values, const Index* columns, int64_t k) {
    __builtin_prefetch(values + k);
    __builtin_prefetch(columns + k);
}

// Four columns from one load: loads are what these kernels run out of.
template <class Index>
struct FourColumns {
    uint64_t word[sizeof(Index) / 2];
    explicit FourColumns(const Index* p) { __builtin_memcpy(word, p, sizeof word); }
    template <int i>
    int64_t at() const {
        if constexpr (sizeof(Index) == 2) return static_cast<int64_t>(word[0] >> (16 * i) & 0xffff);
        return static_cast<int64_t>(word[i / 2] >> (32 * (i % 2)) & 0xffffffff);
    }
};

// y panel (rows, W) = W x panel (cols, W) + bias + start, a panel of sums that may be y.
template <class Isa, class T, class Index, int W>
[[gnu::noinline]] void multiply_panel(const lrnn_spmm& w, const T* x, const T* start, const T* bias, T* y) {
    using S = Shape<Isa, T, W>;
    using Vector = typename S::Vector;
    const auto* columns = static_cast<const Index*>(w.columns);
    const auto* values = static_cast<const T*>(w.values);
    const int64_t blocks = (w.cols + lrnn_spmm_block - 1) / lrnn_spmm_block, rows = w.rows;
    for (int64_t b = 0; b == 0 || b < blocks; b += S::merged) {
        const int64_t next = b + S::merged < blocks ? b + S::merged : blocks;
        const int32_t *first = w.cuts + b * rows, *last = w.cuts + next * rows;
        for (int64_t r = 0; r < rows; ++r) {
            fetch(values, columns, first[r + 4 < rows ? r + 4 : r]);
            for (int pass = 0; pass < S::passes; ++pass) {
                const int offset = pass * S::count * S::lanes;
                auto* out = reinterpret_cast<Vector*>(y + r * W + offset);
                Vector sum[S::count];
                for (int i = 0; i < S::count; ++i) sum[i] = (bias && b == 0 ? bias[r] : T{0}) - Vector{};
                if (const T* before = b == 0 ? start : y) {
                    const auto* from = reinterpret_cast<const Vector*>(before + r * W + offset);
                    for (int i = 0; i < S::count; ++i) sum[i] += from[i];
                }
                const auto add = [&](int64_t column, Vector value) {
                    const auto* in = reinterpret_cast<const Vector*>(x + column * W + offset);
                    for (int i = 0; i < S::count; ++i) sum[i] += value * in[i];
                };
                int32_t k = first[r];
                const int32_t end = last[r];
                if constexpr (sizeof(T) == 4 && S::lanes == Isa::lanes && Isa::lanes > 4) {
                    for (; k + 4 <= end; k += 4) {
                        const FourColumns<Index> four(columns + k);
                        const typename Isa::FourValues value(values + k);
                        add(four.template at<0>(), value.template at<0>());
                        add(four.template at<1>(), value.template at<1>());
                        add(four.template at<2>(), value.template at<2>());
                        add(four.template at<3>(), value.template at<3>());
                    }
                }
                for (; k < end; ++k) add(columns[k], values[k] - Vector{});  // in all lanes
                for (int i = 0; i < S::count; ++i) out[i] = sum[i];
            }
        }
    }
}

// grad[k] += sum over the panel of g[row of k] * x[column of k], for the weights [k, end) of one row.
template <class Isa, class T, class Index, int W>
void sample_row(const T* g, const T* x, const Index* columns, int32_t k, int32_t end, T* grad) {
    using S = Shape<Isa, T, W>;
    using Vector = typename S::Vector;
    const auto dot = [&](int32_t at) {
        const auto* a = reinterpret_cast<const Vector*>(g);
        const auto* b = reinterpret_cast<const Vector*>(x + int64_t{columns[at]} * W);
        Vector sum = a[0] * b[0];
        for (int i = 1; i < S::vectors; ++i) sum += a[i] * b[i];
        return sum;
    };
    // Four at a time: the transposed sums are added lane by lane. A row's last ones repeat its last weight.
    if constexpr (sizeof(T) == 4) {
        using Lanes = typename LanesOf<Isa, S::lanes>::type;
        for (; k < end; k += 4) {
            const int32_t left = end - k;
            const int32_t second = left > 1 ? 1 : 0, third = left > 2 ? 2 : second, fourth = left > 3 ? 3 : third;
            Vector sum[4] = {dot(k), dot(k + second), dot(k + third), dot(k + fourth)};
            Lanes::transpose(sum);
            const Quad four = Lanes::fold((sum[0] + sum[1]) + (sum[2] + sum[3]));
            if (left >= 4) {
                auto* to = reinterpret_cast<QuadAnywhere*>(grad + k);
                *to += four;
            } else {
                for (int32_t i = 0; i < left; ++i) grad[k + i] += four[i];
            }
        }
    } else {
        for (; k < end; ++k) {
            const Vector sum = dot(k);
            T total = sum[0];
            for (int i = 1; i < S::lanes; ++i) total += sum[i];
            grad[k] += total;
        }
    }
}

// grad_values += g^T x where W has weights, over panels g (rows, W) and x (cols, W).
template <class Isa, class T, class Index, int W>
[[gnu::noinline]] void sample_panel(const lrnn_spmm& w, const T* g, const T* x, T* grad) {
    constexpr int merged = Shape<Isa, T, W>::merged;
    const auto* columns = static_cast<const Index*>(w.columns);
    const int64_t blocks = (w.cols + lrnn_spmm_block - 1) / lrnn_spmm_block, rows = w.rows;
    for (int64_t b = 0; b < blocks; b += merged) {
        const int64_t next = b + merged < blocks ? b + merged : blocks;
        const int32_t *first = w.cuts + b * rows, *last = w.cuts + next * rows;
        for (int64_t r = 0; r < rows; ++r) {
            fetch(grad, columns, first[r + 4 < rows ? r + 4 : r]);
            sample_row<Isa, T, Index, W>(g + r * W, x, columns, first[r], last[r], grad);
        }
    }
}

// a * b + c, rounded as often as the vectors' is: the compiler is free to fuse one and not the other.
template <class T>
inline T multiply_add(T a, T b, T c) {
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
    if constexpr (sizeof(T) == 4) return __builtin_fmaf(a, b, c);
    else return __builtin_fma(a, b, c);
#else
    return a * b + c;
#endif
}

// One step: four rows in turn keep the multiplier busy; each sum is in the order of a panel's.
template <class T, class Index>
void multiply_step(const lrnn_spmm& w, const T* x, const T* bias, T* y) {
    const auto* columns = static_cast<const Index*>(w.columns);
    const auto* values = static_cast<const T*>(w.values);
    const int64_t blocks = (w.cols + lrnn_spmm_block - 1) / lrnn_spmm_block;
    const int32_t *first = w.cuts, *last = w.cuts + blocks * w.rows;
    for (int64_t r = 0; r < w.rows; r += 4) {
        const int n = w.rows - r < 4 ? static_cast<int>(w.rows - r) : 4;
        T sum[4] = {};
        int32_t k[4] = {}, shared = n < 4 ? 0 : last[r] - first[r];
        for (int i = 0; i < n; ++i) {
            k[i] = first[r + i];
            sum[i] = bias ? bias[r + i] : T{0};
            shared = last[r + i] - k[i] < shared ? last[r + i] - k[i] : shared;
        }
        for (; shared > 0; --shared)
            for (int i = 0; i < 4; ++i) {
                sum[i] = multiply_add(values[k[i]], x[columns[k[i]]], sum[i]);
                ++k[i];
            }
        for (int i = 0; i < n; ++i) {
            for (; k[i] < last[r + i]; ++k[i]) sum[i] = multiply_add(values[k[i]], x[columns[k[i]]], sum[i]);
            y[r + i] = sum[i];
        }
    }
}

// Calls body.template operator()<W>(first step, steps) for every panel, W the narrowest that holds what is left.
template <class T, class Body>
void over_panels(int64_t steps, const Body& body) {
    constexpr int full = kPanelBytes / int{sizeof(T)};
    for (int64_t t = 0; t < steps; t += full) {
        const int64_t left = steps - t;
        if (left > full / 2) body.template operator()<full>(t, left < full ? left : full);
        else if (left > full / 4) body.template operator()<full / 2>(t, left);
        else if (left > full / 16) body.template operator()<full / 4>(t, left);
        else body.template operator()<full / 16>(t, left);
    }
}

template <class Isa, class T, class Index>
void multiply_all(const lrnn_spmm& w, int64_t steps, const T* x, const T* bias, T* y, T* scratch) {
    if (steps == 1) return multiply_step<T, Index>(w, x, bias, y);
    over_panels<T>(steps, [&]<int W>(int64_t t, int64_t n) {
        T *panel = scratch, *result = scratch + w.cols * W;
        pack<Isa>(x + t * w.cols, n, w.cols, panel, W);
        multiply_panel<Isa, T, Index, W>(w, panel, nullptr, bias, result);
        unpack<Isa>(result, W, y + t * w.rows, n, w.rows);
    });
}

template <class Isa, class T, class Index>
void backward_all(const lrnn_spmm& w, const lrnn_spmm& transposed, int64_t steps, const T* grad_y, const T* x,
                  T* grad_x, T* grad_values, T* scratch) {
    over_panels<T>(steps, [&]<int W>(int64_t t, int64_t n) {
        T *g = scratch, *panel = scratch + w.rows * W;
        pack<Isa>(grad_y + t * w.rows, n, w.rows, g, W);
        if (grad_values != nullptr) {
            pack<Isa>(x + t * w.cols, n, w.cols, panel, W);
            sample_panel<Isa, T, Index, W>(w, g, panel, grad_values);
        }
        if (grad_x != nullptr) {
            multiply_panel<Isa, T, Index, W>(transposed, g, nullptr, nullptr, panel);
            unpack<Isa>(panel, W, grad_x + t * w.cols, n, w.cols);
        }
    });
}

// Calls body.template operator()<T, Index>() with the matrix's types.
template <class Body>
void with_types(const lrnn_spmm& w, const Body& body) {
    if (w.is_double)
        w.wide_columns ? body.template operator()<double, int32_t>() : body.template operator()<double, int16_t>();
    else
        w.wide_columns ? body.template operator()<float, int32_t>() : body.template operator()<float, int16_t>();
}

template <class Isa>
void multiply(const lrnn_spmm& w, int64_t steps, const void* x, const void* bias, void* y, void* scratch) {
    with_types(w, [&]<class T, class Index>() {
        multiply_all<Isa, T, Index>(w, steps, static_cast<const T*>(x), static_cast<const T*>(bias),
                                    static_cast<T*>(y), static_cast<T*>(scratch));
    });
}

template <class Isa>
void tile(const lrnn_spmm& w, const float* x, const float* start, const float* bias, float* y) {
    constexpr int width = kPanelBytes / int{sizeof(float)};
    w.wide_columns ? multiply_panel<Isa, float, int32_t, width>(w, x, start, bias, y)
                   : multiply_panel<Isa, float, int16_t, width>(w, x, start, bias, y);
}

template <class Isa>
void backward(const lrnn_spmm& w, const lrnn_spmm& transposed, int64_t steps, const void* grad_y, const void* x,
              void* grad_x, void* grad_values, void* scratch) {
    with_types(w, [&]<class T, class Index>() {
        backward_all<Isa, T, Index>(w, transposed, steps, static_cast<const T*>(grad_y), static_cast<const T*>(x),
                                    static_cast<T*>(grad_x), static_cast<T*>(grad_values), static_cast<T*>(scratch));
    });
}

template <class Isa>
void multiply_panels(const lrnn_spmm& w, int64_t panels, const float* x, float* y) {
    constexpr int full = kPanelBytes / 4;
    for (; panels > 0; --panels, x += w.cols * full, y += w.rows * full) tile<Isa>(w, x, nullptr, nullptr, y);
}

// What such kernels reach at most, in as many chains as hide the latency of a multiply-add.
template <class Isa>
float load_multiply_adds(int64_t count, const float* from, int64_t* operations) {
    using Vector = typename Isa::Vector;
    constexpr int chains = 8, vectors = 64;
    const auto* in = reinterpret_cast<const Vector*>(from);
    const Vector factor = in[0];
    Vector sum[chains];
    for (int i = 0; i < chains; ++i) sum[i] = Vector{} + static_cast<float>(i);  // equal chains would become one
    for (int64_t n = 0; n < count; ++n)
        for (int v = 0; v < vectors; v += chains) {
#pragma GCC unroll 8
            for (int i = 0; i < chains; ++i) sum[i] += factor * in[v + i];
            asm("" : "+r"(in));  // may point elsewhere now: loads stay
        }
    for (int i = 1; i < chains; ++i) sum[0] += sum[i];
    *operations = count * vectors * Isa::lanes * 2;
    return sum[0][0];
}

template <class Isa>
constexpr SpmmKernels spmm_kernels{multiply<Isa>, tile<Isa>, backward<Isa>, multiply_panels<Isa>,
                                    load_multiply_adds<Isa>};

}  // namespace
}  // namespace lrnn
