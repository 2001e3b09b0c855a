// What products cost: the model behind Format::automatic.
//
// Cycles at 3.65 GHz of a Zen 4 (1 MiB of second-level cache): the figures of `lrnn bench matvec` at 90 % zeros divided by
// the slots and panels of each row, where the weights stay between calls. Only their ratio decides.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "core/matvec/windows.h"

namespace lrnn {

struct DenseCosts {
    double within, beyond;  // 64 weights of a panel, of a matrix that the second-level cache holds and of a larger one
};
struct SlotCosts {
    double wide, narrow;
};

inline constexpr DenseCosts kFloatPanels{8.2, 9.6};
inline constexpr SlotCosts kFloatSlots512by32{11.0, 4.7};
inline constexpr SlotCosts kFloatSlots512by64{14.0, 6.0};
inline constexpr SlotCosts kFloatSlots256{7.6, 3.2};
inline constexpr DenseCosts kBfloat16Panels{4.1, 4.8};
inline constexpr SlotCosts kBfloat16Slots{12.5, 4.0};
inline constexpr DenseCosts kBytePanels512{2.1, 2.4};
inline constexpr SlotCosts kByteSlots512{18.0, 6.0};
inline constexpr DenseCosts kBytePanels256{4.2, 4.4};
inline constexpr SlotCosts kByteSlots256{9.6, 6.0};
inline constexpr DenseCosts kBytePanels128{8.4, 8.8};  // NEON: not measured, no such machine was at hand
inline constexpr SlotCosts kByteSlots128{20.0, 6.0};

inline constexpr double kMovedRow = 5.0;     // to put a sum back in its place
inline constexpr double kEventWeight = 1.7;  // a weight of a column that is not skipped
inline constexpr double kCompressedPrice = 6.0;  // a weight in compressed rows, in weights of a portable panel
inline constexpr double kNever = 1e30;

inline constexpr std::size_t kSecondLevel = 768 << 10;  // bytes

inline double dense_cost(const DenseCosts& k, std::size_t weights, std::size_t bytes) {
    return static_cast<double>(weights) / 64 * (bytes <= kSecondLevel ? k.within : k.beyond);
}

// `weight_bytes` of an entry, beside its index byte. Not less than reading them takes: narrow windows do less work for a
// slot but need more of them.
inline double slots_cost(const WindowPlan& plan, const SlotCosts& k, std::size_t weight_bytes) {
    const double cycles = static_cast<double>(plan.wide_slots) * k.wide + static_cast<double>(plan.narrow_slots) * k.narrow;
    const std::size_t bytes = plan.entries.size() * (weight_bytes + 1);
    return std::max(cycles, static_cast<double>(bytes) / (bytes <= kSecondLevel ? 28.0 : 23.0));
}

}  // namespace lrnn
