// The loop of norms of integers; see elementwise_loops.h for the rules of such a file.
#pragma once

#include "core/engine/fixed_recurrences.h"

namespace lrnn {
namespace {

struct Sums {
    std::int64_t total, squares;
};

inline Sums sums_of(const std::int32_t* x, std::int32_t n) {
    Wide total{}, squares{};
    std::int32_t i = 0;
    for (; i + kLanes <= n; i += kLanes) {
        const Wide pairs = *reinterpret_cast<const Wide*>(x + i), odd = second(pairs);
        total += first(pairs) + odd;
        squares += multiplied(pairs, pairs) + multiplied(odd, odd);
    }
    Sums sums{};
    for (int k = 0; k < kHalf; ++k) {
        sums.total += total[k];
        sums.squares += squares[k];
    }
    for (; i < n; ++i) {
        sums.total += x[i];
        sums.squares += std::int64_t{x[i]} * x[i];
    }
    return sums;
}

// With t = (n x - total) / sqrt(n squares - total^2 + eps), 16 bits after the point: y = within(shifted(scale t + bias)).
void norm(const Operation& op, float* base, std::int32_t) noexcept {
    const FixedView& node = view(op);
    const std::int32_t* x = integers(base, op.in);
    std::int32_t* y = integers(base, op.out);
    Sums sums = sums_of(x, op.n);
    if (!node.centred) sums.total = 0;
    const std::int64_t n = op.n, total = sums.total;
    const InverseRoot root = inverse_root(n * sums.squares - total * total + node.eps);
    const std::int64_t right = 15 + root.j, mantissa = root.mantissa;
    const bool to_even = node.x_shift64.even != 0, rounds = node.x_shift64.half != 0 && right > 0;
    const std::int64_t half = rounds ? (std::int64_t{1} << (right - 1)) - (to_even ? 1 : 0) : 0;
    const Shift<std::int64_t> shift{0, right, half, rounds && to_even};
    for (std::int32_t i = 0; i < op.n; i += kHalf) {
        const Wide normal = shifted((Lanes<std::int64_t>::read(x + i) * n - total) * mantissa, shift);
        const Wide sum = multiplied(Lanes<std::int64_t>::read(node.scale + i), normal) +
                         Lanes<std::int64_t>::read(node.bias64 + i);
        Lanes<std::int64_t>::write(y + i, within(shifted_each<std::int64_t>(sum, node.shifts64, i), node.most));
    }
}

}  // namespace
}  // namespace lrnn
