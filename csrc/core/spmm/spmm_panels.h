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
#include "core/spmm/spmm_layout.h"

namespace lrnn {
namespace {

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
