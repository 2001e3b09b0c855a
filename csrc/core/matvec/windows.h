// Packing of the sparse layout for kernels that look x up in registers.
//
// Rows are processed in groups, one row to a lane. A group is a list of slots; a slot holds up to `dot` weights of every
// lane, all of them within one window of `columns` neighbouring columns, which the kernel holds in registers and looks up
// with a permute: one cycle for a register of lookups, where a gather from memory takes 17 (Zen 4). Windows overlap: each
// starts at the leftmost column that some lane still has to do, and every lane gives what it has within reach. A lane that
// is ahead waits, which costs it empty entries; one that is behind decides where the window stands. No schedule whose
// windows move rightwards needs fewer slots for the same group (moving a window to the right, up to the leftmost column
// left, never takes work away from it). Of a 1024 x 1024 matrix with 90 % Bernoulli zeros three entries in
// four are weights (`lrnn bench matvec` shows the bytes: two an entry at W8).
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "core/aligned.h"
#include "core/matvec/kernels.h"
#include "core/matvec/pattern.h"

namespace lrnn {

// What a kernel needs to know of its slots.
struct WindowShape {
    std::int32_t lanes;       // rows to a register
    std::int32_t registers;   // of a wide group; a narrow group has one, and with 1 all groups are narrow
    std::int32_t columns;     // that a window spans
    std::int32_t stride;      // windows start at multiples of it
    std::int32_t dot;         // weights of a row in a slot
    std::int32_t interleave;  // registers of a wide group whose index bytes share one word, the first lowest
    std::uint8_t bias;        // added to every index
};

// Where every weight goes. Entry e of a slot is weight `dot` k of a lane: e = (register * lanes + lane) * dot + k.
struct WindowPlan {
    std::vector<std::int32_t> counts;   // slots of each group, wide ones first
    std::vector<std::uint16_t> starts;  // first column of each slot's window
    std::vector<std::uint32_t> entries; // (slots, entries of a group): which nonzero of the pattern, or kNoEntry
    std::int32_t wide = 0, narrow = 0;  // groups
    std::int64_t wide_slots = 0, narrow_slots = 0;
};

inline constexpr std::uint32_t kNoEntry = 0xffffffff;
inline constexpr std::int32_t kMostColumns = 1 << 16;  // that `starts` can tell

// Rows of `order` (empty: all as they come), in groups. `room` is how many numbers the kernel may read of x: at least
// shape.columns, and a multiple of shape.stride beyond it.
WindowPlan plan_windows(const Pattern& pattern, std::span<const std::int32_t> order, const WindowShape& shape,
                        std::int32_t room);

// The packed matrix. T is float, std::uint16_t (bfloat16) or std::int8_t.
class WindowStore {
public:
    template <typename T>
    WindowStore(const WindowPlan& plan, const Sparse<T>& weight, const WindowShape& shape)
        : counts_(plan.counts.begin(), plan.counts.end()), starts_(plan.starts) {
        const std::size_t narrow = static_cast<std::size_t>(shape.lanes) * shape.dot, wide = narrow * shape.registers;
        slots_.assign((plan.wide_slots * wide + plan.narrow_slots * narrow) * (sizeof(T) + 1), 0);
        std::uint8_t* slot = slots_.data();
        std::size_t e = 0;
        for (std::int64_t s = 0; s < plan.wide_slots + plan.narrow_slots; ++s) {
            const bool is_wide = s < plan.wide_slots;
            const std::size_t n = is_wide ? wide : narrow;
            std::uint8_t* index = slot + n * sizeof(T);
            for (std::size_t i = 0; i < n; ++i, ++e) {
                std::uint8_t& byte = index[is_wide ? index_place(i, narrow, shape.interleave) : i];
                byte = shape.bias;
                if (plan.entries[e] == kNoEntry) continue;
                std::memcpy(slot + i * sizeof(T), &weight.value[plan.entries[e]], sizeof(T));
                byte = static_cast<std::uint8_t>(byte + weight.pattern.column[plan.entries[e]] - plan.starts[s]);
            }
            slot = index + n;
        }
        view_ = {slots_.data(), starts_.data(), counts_.data(), plan.wide, plan.narrow};
    }
    WindowStore(const WindowStore&) = delete;
    WindowStore& operator=(const WindowStore&) = delete;

    const Windows& view() const noexcept { return view_; }
    std::size_t bytes() const noexcept {
        return slots_.size() + starts_.size() * sizeof(starts_[0]) + counts_.size() * sizeof(counts_[0]);
    }

private:
    // Entry i's index byte: words of `interleave` bytes, one byte for each of as many registers.
    static std::size_t index_place(std::size_t i, std::size_t narrow, std::int32_t interleave) {
        const std::size_t together = static_cast<std::size_t>(interleave), reg = i / narrow, lane = i % narrow;
        return reg / together * together * narrow + lane * together + reg % together;
    }

    AlignedVector<std::uint8_t> slots_;
    std::vector<std::int32_t> counts_;
    std::vector<std::uint16_t> starts_;
    Windows view_;
};

}  // namespace lrnn
