// y = x W^T + bias for a sparse W, on the CPU, on libtorch's stable ABI. Python owns the schemas and says what the
// tensors of a pattern are (lrnn/ops/sparse_linear.py).

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <algorithm>
#include <optional>
#include <tuple>
#include <vector>

#include "core/aligned.h"
#include "core/spmm/spmm.h"

namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

constexpr int64_t worth_a_thread = 1 << 17;  // multiply-adds
// Parts that the time is cut into for the gradient of the values, each with a sum of its own: as many, whatever the
// number of threads, so that the sum does not depend on it.
constexpr int64_t most_parts = 8;

// This thread's scratch, kept for the next call: fresh memory would cost more than the product of a small layer.
void* scratch(int64_t bytes) {
    thread_local lrnn::AlignedVector<char> kept;
    if (static_cast<int64_t>(kept.size()) < bytes) kept = lrnn::AlignedVector<char>(static_cast<size_t>(bytes));
    return kept.data();
}

// What needs no copy is not asked for one, and new tensors come from the C shim: calls back into the dispatcher, which finds
// operators by their names, cost more than a small product.
Tensor in_a_row(const Tensor& x) { return x.is_contiguous() ? x : torch::stable::contiguous(x); }

Tensor new_tensor(const std::vector<int64_t>& sizes, ScalarType dtype) {
    std::vector<int64_t> strides(sizes.size());
    int64_t step = 1;
    for (size_t i = sizes.size(); i-- > 0; step *= std::max<int64_t>(1, sizes[i])) strides[i] = step;
    const int32_t type = dtype == ScalarType::Double ? aoti_torch_dtype_float64() : aoti_torch_dtype_float32();
    AtenTensorHandle handle;
    STD_TORCH_CHECK(aoti_torch_empty_strided(static_cast<int64_t>(sizes.size()), sizes.data(), strides.data(), type,
                                             aoti_torch_device_type_cpu(), 0, &handle) == AOTI_TORCH_SUCCESS,
                    "lrnn::sparse_linear: no memory for the result");
    return Tensor(handle);
}

// A matrix in the kernel's terms, of contiguous values. Sizes are checked; what stands in the tensors was, when the pattern was made.
lrnn_spmm matrix(const Tensor& columns, const Tensor& cuts, const Tensor& values, int64_t cols) {
    const bool is_double = values.scalar_type() == ScalarType::Double;
    STD_TORCH_CHECK(is_double || values.scalar_type() == ScalarType::Float,
                    "lrnn::sparse_linear: values are neither float32 nor float64");
    const bool wide = columns.scalar_type() == ScalarType::Int;
    STD_TORCH_CHECK(wide || columns.scalar_type() == ScalarType::Short,
                    "lrnn::sparse_linear: columns are neither int16 nor int32");
    STD_TORCH_CHECK(values.dim() == 1 && columns.dim() == 1 && columns.size(0) == values.size(0),
                    "lrnn::sparse_linear: columns do not fit the values");
    STD_TORCH_CHECK(cuts.dim() == 2 && cuts.scalar_type() == ScalarType::Int &&
                        cuts.size(0) == (cols + lrnn_spmm_block - 1) / lrnn_spmm_block + 1,
                    "lrnn::sparse_linear: cuts do not fit the columns");
    STD_TORCH_CHECK(columns.is_contiguous() && cuts.is_contiguous(),
                    "lrnn::sparse_linear: a tensor of the pattern is not contiguous");
    const auto* cut = static_cast<const int32_t*>(cuts.const_data_ptr());
    const int64_t rows = cuts.size(1);
    STD_TORCH_CHECK(rows == 0 ? values.size(0) == 0 : cut[0] == 0 && cut[cuts.size(0) * rows - 1] == values.size(0),
                    "lrnn::sparse_linear: cuts do not fit the values");
    return {.rows = rows,
            .cols = cols,
            .is_double = is_double,
            .wide_columns = wide,
            .cuts = cut,
            .columns = columns.const_data_ptr(),
            .values = values.const_data_ptr()};
}

// Time steps of (..., width).
int64_t steps_of(const Tensor& x, int64_t width, ScalarType dtype) {
    STD_TORCH_CHECK(x.dim() >= 1 && x.size(x.dim() - 1) == width, "lrnn::sparse_linear: an input does not fit W");
    STD_TORCH_CHECK(x.scalar_type() == dtype, "lrnn::sparse_linear: an input is not of the dtype of the values");
    int64_t steps = 1;
    for (int64_t i = 0; i + 1 < x.dim(); ++i) steps *= x.size(i);
    return steps;
}

std::vector<int64_t> with_width(const Tensor& x, int64_t width) {
    std::vector<int64_t> sizes(x.sizes().begin(), x.sizes().end());
    sizes.back() = width;
    return sizes;
}

const char* at(const void* p, int64_t numbers, const lrnn_spmm& w) {
    return static_cast<const char*>(p) + numbers * (w.is_double ? 8 : 4);
}
char* at(void* p, int64_t numbers, const lrnn_spmm& w) {
    return static_cast<char*>(p) + numbers * (w.is_double ? 8 : 4);
}

Tensor sparse_linear(const Tensor& x_in, const Tensor& values_in, std::optional<Tensor> bias_in, const Tensor& columns,
                     const Tensor& cuts, const Tensor&, const Tensor& cuts_t, const Tensor&) {
    STD_TORCH_CHECK(cuts_t.dim() == 2, "lrnn::sparse_linear: cuts_t is no matrix");
    const Tensor values = in_a_row(values_in);
    std::optional<Tensor> bias;
    if (bias_in) bias = in_a_row(*bias_in);
    const lrnn_spmm w = matrix(columns, cuts, values, cuts_t.size(1));
    const int64_t steps = steps_of(x_in, w.cols, values.scalar_type());
    STD_TORCH_CHECK(!bias || (bias->dim() == 1 && bias->size(0) == w.rows &&
                              bias->scalar_type() == values.scalar_type()),
                    "lrnn::sparse_linear: bias does not fit W");
    const Tensor x = in_a_row(x_in);
    Tensor y = new_tensor(with_width(x, w.rows), x.scalar_type());
    if (steps == 0 || w.rows == 0) return y;
    const void *from = x.const_data_ptr(), *shift = bias ? bias->const_data_ptr() : nullptr;
    void* to = y.mutable_data_ptr();
    // Few panels are halved, rather than leave threads without work.
    int64_t panel = lrnn_spmm_panel(&w);
    if (steps / panel < torch::stable::get_num_threads()) panel /= 2;
    const int64_t panels = (steps + panel - 1) / panel;
    const int64_t grain = std::max<int64_t>(1, worth_a_thread / (panel * (values.size(0) + 1)));
    torch::stable::parallel_for(0, panels, grain, [&](int64_t begin, int64_t end) {
        const int64_t first = begin * panel, last = std::min(end * panel, steps);
        lrnn_spmm_multiply(&w, last - first, at(from, first * w.cols, w), shift, at(to, first * w.rows, w),
                           scratch(lrnn_spmm_scratch(&w)));
    });
    return y;
}

// values[order]
Tensor reordered(const Tensor& values, const Tensor& order) {
    STD_TORCH_CHECK(order.dim() == 1 && order.scalar_type() == ScalarType::Int && order.is_contiguous() &&
                        order.size(0) == values.size(0),
                    "lrnn::sparse_linear: order does not fit the values");
    Tensor result = new_tensor({values.size(0)}, values.scalar_type());
    const auto* from_index = static_cast<const int32_t*>(order.const_data_ptr());
    const auto gather = [&]<class T>(const T* from, T* to) {
        torch::stable::parallel_for(0, order.size(0), worth_a_thread / 8, [=](int64_t begin, int64_t end) {
            for (int64_t k = begin; k < end; ++k) to[k] = from[from_index[k]];
        });
    };
    if (values.scalar_type() == ScalarType::Double)
        gather(static_cast<const double*>(values.const_data_ptr()), static_cast<double*>(result.mutable_data_ptr()));
    else
        gather(static_cast<const float*>(values.const_data_ptr()), static_cast<float*>(result.mutable_data_ptr()));
    return result;
}

// Sum over parts, in order, of (parts, n).
template <class T>
void sum_parts(const T* parts, int64_t count, int64_t n, T* total) {
    torch::stable::parallel_for(0, n, worth_a_thread / 8, [=](int64_t begin, int64_t end) {
        std::copy(parts + begin, parts + end, total + begin);
        for (int64_t i = 1; i < count; ++i)
            for (int64_t k = begin; k < end; ++k) total[k] += parts[i * n + k];
    });
}

std::tuple<Tensor, Tensor> sparse_linear_backward(const Tensor& grad_in, const Tensor& x_in, const Tensor& values_in,
                                                  const Tensor& columns, const Tensor& cuts, const Tensor& columns_t,
                                                  const Tensor& cuts_t, const Tensor& order, bool needs_x,
                                                  bool needs_values) {
    STD_TORCH_CHECK(cuts_t.dim() == 2, "lrnn::sparse_linear: cuts_t is no matrix");
    const Tensor values = in_a_row(values_in);
    const lrnn_spmm w = matrix(columns, cuts, values, cuts_t.size(1));
    const int64_t steps = steps_of(x_in, w.cols, values.scalar_type());
    STD_TORCH_CHECK(steps_of(grad_in, w.rows, values.scalar_type()) == steps,
                    "lrnn::sparse_linear: the gradient does not fit x");
    const Tensor values_t = needs_x ? reordered(values, order) : values;
    const lrnn_spmm transposed = matrix(columns_t, cuts_t, values_t, w.rows);
    const Tensor grad_y = in_a_row(grad_in), x = in_a_row(x_in);
    const int64_t nonzeros = values.size(0), panel = lrnn_spmm_panel(&w), panels = (steps + panel - 1) / panel;
    const int64_t span = std::max<int64_t>(1, (panels + most_parts - 1) / most_parts);  // panels of a part
    const int64_t parts = (panels + span - 1) / span;

    Tensor grad_x = new_tensor(needs_x ? with_width(x, w.cols) : std::vector<int64_t>{0}, x.scalar_type());
    Tensor sums = torch::stable::new_zeros(values, {needs_values ? std::max<int64_t>(1, parts) : 0, nonzeros});
    const void *g = grad_y.const_data_ptr(), *from = x.const_data_ptr();
    void *to_x = grad_x.mutable_data_ptr(), *to_sums = sums.mutable_data_ptr();
    torch::stable::parallel_for(0, parts, 1, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
            const int64_t first = i * span * panel, last = std::min(first + span * panel, steps);
            lrnn_spmm_backward(&w, &transposed, last - first, at(g, first * w.rows, w), at(from, first * w.cols, w),
                               needs_x ? at(to_x, first * w.cols, w) : nullptr,
                               needs_values ? at(to_sums, i * nonzeros, w) : nullptr, scratch(lrnn_spmm_scratch(&w)));
        }
    });

    Tensor grad_values = new_tensor({needs_values ? nonzeros : 0}, values.scalar_type());
    if (needs_values) {
        const int64_t count = std::max<int64_t>(1, parts);
        if (w.is_double)
            sum_parts(static_cast<const double*>(sums.const_data_ptr()), count, nonzeros,
                      static_cast<double*>(grad_values.mutable_data_ptr()));
        else
            sum_parts(static_cast<const float*>(sums.const_data_ptr()), count, nonzeros,
                      static_cast<float*>(grad_values.mutable_data_ptr()));
    }
    return {grad_x, grad_values};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(lrnn, CPU, m) {
    m.impl("sparse_linear", TORCH_BOX(&sparse_linear));
    m.impl("sparse_linear_backward", TORCH_BOX(&sparse_linear_backward));
}
