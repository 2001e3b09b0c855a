// CPU kernels for the dispatcher, on libtorch's stable ABI. Python owns the schemas (lrnn/ops).

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <algorithm>
#include <optional>
#include <tuple>

#include "core/scan/scan.h"

namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

bool is_complex(const Tensor& x) {
    return x.scalar_type() == ScalarType::ComplexFloat || x.scalar_type() == ScalarType::ComplexDouble;
}

bool is_double(const Tensor& x) {
    return x.scalar_type() == ScalarType::Double || x.scalar_type() == ScalarType::ComplexDouble;
}

ScalarType number(bool is_double, bool is_complex) {
    if (is_complex) return is_double ? ScalarType::ComplexDouble : ScalarType::ComplexFloat;
    return is_double ? ScalarType::Double : ScalarType::Float;
}

bool same_sizes(const Tensor& x, const Tensor& y) {
    return std::equal(x.sizes().begin(), x.sizes().end(), y.sizes().begin(), y.sizes().end());
}

// x dense and of this dtype; x itself where it already is.
Tensor dense(const Tensor& x, ScalarType dtype) {
    const Tensor cast = x.scalar_type() == dtype ? x : torch::stable::to(x, dtype);
    return torch::stable::contiguous(cast);
}

// The arguments of a scan, dense and in the accumulator's precision, and the sizes that follow from them.
struct Arguments {
    ScalarType dtype;    // of states: float for half precision
    ScalarType a_dtype;  // the same precision, complex only where the caller's a is
    Tensor a;
    std::optional<Tensor> h0, reset;
    lrnn_scan scan;

    Arguments(const Tensor& a_in, const Tensor& b, const std::optional<Tensor>& h0_in,
              const std::optional<Tensor>& reset_in, bool reverse)
        : dtype(number(is_double(b), is_complex(b))), a_dtype(number(is_double(b), is_complex(a_in))) {
        STD_TORCH_CHECK(b.dim() == 3 && (a_in.dim() == 1 || a_in.dim() == 3), "lrnn::scan: a or b has a wrong rank");
        STD_TORCH_CHECK(is_complex(b) || !is_complex(a_in), "lrnn::scan: a is complex but b is real");
        for (int i = a_in.dim() == 1 ? 2 : 0; i < 3; ++i)
            STD_TORCH_CHECK(a_in.size(a_in.dim() - 3 + i) == b.size(i), "lrnn::scan: a does not fit b");
        STD_TORCH_CHECK(!h0_in || (h0_in->dim() == 2 && h0_in->size(0) == b.size(0) && h0_in->size(1) == b.size(2)),
                        "lrnn::scan: h0 does not fit b");
        STD_TORCH_CHECK(!reset_in || (reset_in->dim() == 2 && reset_in->scalar_type() == ScalarType::Bool &&
                                      reset_in->size(0) == b.size(0) && reset_in->size(1) == b.size(1)),
                        "lrnn::scan: reset does not fit b");
        a = dense(a_in, a_dtype);
        if (h0_in) h0 = dense(*h0_in, dtype);
        if (reset_in) reset = torch::stable::contiguous(*reset_in);
        scan = {.batch = b.size(0),
                .length = b.size(1),
                .channels = b.size(2),
                .is_double = is_double(b),
                .a_is_complex = is_complex(a_in),
                .b_is_complex = is_complex(b),
                .a_is_constant = a_in.dim() == 1,
                .reverse = reverse,
                .a = a.const_data_ptr(),
                .h0 = h0 ? h0->const_data_ptr() : nullptr,
                .reset = reset ? static_cast<const uint8_t*>(reset->const_data_ptr()) : nullptr};
    }
};

// Runs body(unit) for every part of the scan: batch items and, where those do not fill the threads, ranges of channels.
template <class Body>
void over_units(const lrnn_scan& s, const Body& body) {
    constexpr int64_t block = 64, worth_a_thread = 1 << 15;  // channels (core/scan/scan.h); numbers
    if (s.batch == 0 || s.channels == 0) return;  // empty tensors have no address to be handed on
    const int64_t threads = std::max<int64_t>(1, torch::stable::get_num_threads());
    const bool is_small = s.batch * s.length * s.channels < 2 * worth_a_thread;
    const int64_t wanted = is_small ? 1 : threads / std::max<int64_t>(1, s.batch);
    const int64_t blocks = (s.channels + block - 1) / block;
    const int64_t ranges = std::clamp<int64_t>(wanted, 1, std::max<int64_t>(1, blocks));
    const int64_t range = (blocks + ranges - 1) / ranges * block;
    const int64_t grain = std::max<int64_t>(1, worth_a_thread / std::max<int64_t>(1, s.length * range));
    torch::stable::parallel_for(0, s.batch * ranges, grain, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
            const int64_t first = std::min(i % ranges * range, s.channels);
            body(lrnn_scan_unit{i / ranges, first, std::min(first + range, s.channels)});
        }
    });
}

std::tuple<Tensor, Tensor> scan(const Tensor& a, const Tensor& b, std::optional<Tensor> h0, std::optional<Tensor> reset,
                                bool reverse) {
    const Arguments in(a, b, h0, reset, reverse);
    const Tensor input = dense(b, in.dtype);
    Tensor h = torch::stable::new_empty(input, input.sizes());
    Tensor h_last = torch::stable::new_empty(input, {b.size(0), b.size(2)});
    over_units(in.scan, [&, from = input.const_data_ptr(), to = h.mutable_data_ptr(),
                         last = h_last.mutable_data_ptr()](lrnn_scan_unit unit) {
        lrnn_scan_forward(&in.scan, unit, from, to, last);
    });
    return {b.scalar_type() == in.dtype ? h : torch::stable::to(h, b.scalar_type()), h_last};
}

// Sum over the batch, in order, of (batch, channels).
template <class T>
Tensor batch_sum(const Tensor& parts, int64_t numbers) {
    Tensor total = torch::stable::new_zeros(parts, {parts.size(1)});
    const T* from = static_cast<const T*>(parts.const_data_ptr());
    T* to = static_cast<T*>(total.mutable_data_ptr());
    const int64_t width = parts.size(1) * numbers;
    for (int64_t i = 0; i < parts.size(0); ++i)
        for (int64_t j = 0; j < width; ++j) to[j] += from[i * width + j];
    return total;
}

std::tuple<Tensor, Tensor, Tensor> scan_backward(const Tensor& grad_h, const Tensor& grad_last, const Tensor& a,
                                                 const Tensor& h, std::optional<Tensor> h0,
                                                 std::optional<Tensor> reset, bool reverse) {
    const Arguments in(a, h, h0, reset, reverse);
    STD_TORCH_CHECK(same_sizes(grad_h, h) && grad_last.dim() == 2 && grad_last.size(0) == h.size(0) &&
                        grad_last.size(1) == h.size(2),
                    "lrnn::scan_backward: a gradient does not fit h");
    const Tensor states = dense(h, in.dtype), from_h = dense(grad_h, in.dtype), from_last = dense(grad_last, in.dtype);
    const bool constant = a.dim() == 1;
    Tensor grad_b = torch::stable::new_empty(states, states.sizes());
    Tensor grad_h0 = torch::stable::new_empty(states, {h.size(0), h.size(2)});
    Tensor grad_a = constant ? torch::stable::new_empty(in.a, {h.size(0), h.size(2)})
                             : torch::stable::new_empty(in.a, in.a.sizes());
    over_units(in.scan, [&, g = from_h.const_data_ptr(), g_last = from_last.const_data_ptr(),
                         s = states.const_data_ptr(), to_a = grad_a.mutable_data_ptr(),
                         to_b = grad_b.mutable_data_ptr(), to_h0 = grad_h0.mutable_data_ptr()](lrnn_scan_unit unit) {
        lrnn_scan_backward(&in.scan, unit, g, g_last, s, to_a, to_b, to_h0);
    });
    if (constant) {
        const int64_t numbers = is_complex(a) ? 2 : 1;
        grad_a = in.scan.is_double ? batch_sum<double>(grad_a, numbers) : batch_sum<float>(grad_a, numbers);
    }
    const auto as = [](const Tensor& x, ScalarType t) { return x.scalar_type() == t ? x : torch::stable::to(x, t); };
    return {as(grad_a, a.scalar_type()), as(grad_b, h.scalar_type()), grad_h0};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(lrnn, CPU, m) {
    m.impl("scan", TORCH_BOX(&scan));
    m.impl("scan_backward", TORCH_BOX(&scan_backward));
}
