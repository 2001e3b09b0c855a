#include "core/spmm/spmm_time.h"

#include <algorithm>
#include <chrono>
#include <vector>

#include "core/aligned.h"
#include "core/spmm/spmm_isa.h"

namespace {

// In a class: a type deduced, or a template argument, loses its attributes.
struct Quad {
    typedef float Vector __attribute__((vector_size(16), aligned(4), may_alias));
};
struct One {
    typedef float Vector;
};

template <class F>
double seconds(F f) {
    const auto start = std::chrono::steady_clock::now();
    f();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// As many columns of y as `Count` vectors hold.
template <class Kind, int Count>
void xnnpack_tile(int64_t rows, int64_t steps, const int32_t* nonzeros, const int32_t* offset, const float* value,
                  const char* in, float* y) {
    using Vector = typename Kind::Vector;
    for (int64_t r = 0; r < rows; ++r) {
        Vector sum[Count] = {};
        for (int32_t n = nonzeros[r]; n > 0; --n) {
            in += *offset++;
            const Vector* from = reinterpret_cast<const Vector*>(in);
            const Vector weight = *value++ - Vector{};
            for (int i = 0; i < Count; ++i) sum[i] += weight * from[i];
        }
        Vector* to = reinterpret_cast<Vector*>(y + r * steps);
        for (int i = 0; i < Count; ++i) to[i] = sum[i];
    }
}

// How the baseline walks a matrix.
struct Walk {
    std::vector<int32_t> nonzeros, offsets;
};

Walk walk(const lrnn_spmm& w, int64_t steps) {
    const int64_t blocks = (w.cols + lrnn_spmm_block - 1) / lrnn_spmm_block;
    const int32_t *first = w.cuts, *last = w.cuts + blocks * w.rows;
    Walk result;
    int64_t before = 0;
    for (int64_t r = 0; r < w.rows; ++r) {
        result.nonzeros.push_back(last[r] - first[r]);
        for (int32_t k = first[r]; k < last[r]; ++k) {
            const int64_t column =
                w.wide_columns ? static_cast<const int32_t*>(w.columns)[k] : static_cast<const int16_t*>(w.columns)[k];
            result.offsets.push_back(static_cast<int32_t>((column - before) * steps * 4));
            before = column;
        }
    }
    return result;
}

}  // namespace

void lrnn_spmm_baseline_xnnpack(int64_t rows, int64_t steps, const int32_t* row_nonzeros, const int32_t* row_offsets,
                                const float* values, const float* x, float* y) {
    const auto tile = [&]<class Kind, int Count>(int64_t at) {
        xnnpack_tile<Kind, Count>(rows, steps, row_nonzeros, row_offsets, values,
                                    reinterpret_cast<const char*>(x + at), y + at);
    };
    int64_t t = 0;
    for (; t + 32 <= steps; t += 32) tile.template operator()<Quad, 8>(t);
    for (; t + 4 <= steps; t += 4) tile.template operator()<Quad, 1>(t);
    for (; t < steps; ++t) tile.template operator()<One, 1>(t);
}

double lrnn_spmm_time(const lrnn_spmm* w, int32_t subject, int64_t steps, const float* x, float* y, int64_t repeats) {
    double spent = 0;
    if (subject == LRNN_SPMM_PANELS) {
        spent = seconds([&] {
            for (int64_t i = 0; i < repeats; ++i)
                lrnn::spmm_kernels_now().multiply_panels(*w, steps / lrnn_spmm_panel(w), x, y);
        });
    } else if (subject == LRNN_SPMM_XNNPACK) {
        const Walk way = walk(*w, steps);
        spent = seconds([&] {
            for (int64_t i = 0; i < repeats; ++i)
                lrnn_spmm_baseline_xnnpack(w->rows, steps, way.nonzeros.data(), way.offsets.data(),
                                           static_cast<const float*>(w->values), x, y);
        });
    } else {
        lrnn::AlignedVector<char> scratch(static_cast<size_t>(lrnn_spmm_scratch(w)));
        spent = seconds([&] {
            for (int64_t i = 0; i < repeats; ++i) lrnn_spmm_multiply(w, steps, x, nullptr, y, scratch.data());
        });
    }
    return spent / static_cast<double>(std::max<int64_t>(1, repeats));
}

double lrnn_load_multiply_add_rate(int64_t count) {
    lrnn::AlignedVector<float> memory(64 * 16, 1e-3f);
    volatile float kept = 0;  // the sums, so that they are not left out
    int64_t operations = 0;
    const auto run = lrnn::spmm_kernels_now().load_multiply_add;
    const double spent = seconds([&] { kept = kept + run(count, memory.data(), &operations); });
    return static_cast<double>(operations) / spent;
}
