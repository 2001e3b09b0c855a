// What products cost: the model behind Format::automatic.
//
// Measured on Zen 4 (3.7 GHz, 1 MiB of second-level cache), Bernoulli masks of 50 to 95 % zeros, 192 x 192 to 1024 x 1024,
// weights where they stay between calls. Cycles; what decides is their ratio, which on Zen 5 and Emerald Rapids
// was within a fifth of this one.
#pragma once

#include <cstdint>

namespace lrnn {

struct KernelCosts {
    double dense;         // 64 weights of a panel that the second-level cache holds
    double dense_beyond;  // that it does not hold
    double wide_slot, narrow_slot;
    double moved_row;     // to put a sum back in its place
    double event;         // one weight of an active column
};

inline constexpr std::int64_t kSecondLevel = 768 << 10;  // bytes

inline constexpr KernelCosts kFloat512{8.5, 12.0, 14.0, 6.0, 5.0, 1.7};
inline constexpr KernelCosts kFloat256{8.5, 12.0, 9.5, 3.2, 5.0, 1.7};
inline constexpr KernelCosts kBfloat16{4.3, 6.0, 12.0, 4.0, 5.0, 1.7};
inline constexpr KernelCosts kIntegers512{2.1, 2.7, 16.0, 6.0, 5.0, 1.7};
inline constexpr KernelCosts kIntegers256{10.0, 10.0, 10.0, 6.0, 5.0, 1.7};
inline constexpr KernelCosts kIntegers128{20.0, 20.0, 18.0, 6.0, 5.0, 1.7};  // not measured: no such machine was at hand
// Without look-ups in registers: a weight in compressed rows costs as much as six in a panel.
inline constexpr double kCompressedPrice = 6.0;

inline double dense_cost(const KernelCosts& k, std::int64_t weights, std::int64_t bytes) {
    return static_cast<double>(weights) / 64 * (bytes <= kSecondLevel ? k.dense : k.dense_beyond);
}

}  // namespace lrnn
