#include "core/matvec/windows.h"

#include <algorithm>
#include <limits>

namespace lrnn {
namespace {

// The slots of one group of rows.
class Group {
public:
    Group(const Pattern& pattern, std::span<const std::int32_t> rows, const WindowShape& shape, std::int32_t lanes)
        : pattern_(pattern), shape_(shape), entries_(static_cast<std::size_t>(lanes) * shape.dot) {
        for (const std::int32_t row : rows) lanes_.push_back({pattern.start[row], pattern.start[row + 1]});
    }

    // Appends them; returns how many.
    std::int32_t schedule(std::int32_t last_start, WindowPlan& plan) {
        std::int32_t slots = 0;
        for (std::int32_t leftmost = next(); leftmost < kDone; leftmost = next(), ++slots) {
            const std::int32_t start = std::min(leftmost / shape_.stride * shape_.stride, last_start);
            plan.starts.push_back(static_cast<std::uint16_t>(start));
            const std::size_t first = plan.entries.size();
            plan.entries.resize(first + entries_, kNoEntry);
            std::uint32_t* out = plan.entries.data() + first;
            for (Lane& lane : lanes_) {
                for (std::int32_t k = 0; k < shape_.dot && within(lane, start); ++k) out[k] = lane.at++;
                out += shape_.dot;
            }
        }
        return slots;
    }

private:
    static constexpr std::int32_t kDone = std::numeric_limits<std::int32_t>::max();
    struct Lane {
        std::uint32_t at, end;
    };

    std::int32_t next() const {
        std::int32_t leftmost = kDone;
        for (const Lane& lane : lanes_)
            if (lane.at < lane.end) leftmost = std::min(leftmost, pattern_.column[lane.at]);
        return leftmost;
    }
    bool within(const Lane& lane, std::int32_t start) const {
        return lane.at < lane.end && pattern_.column[lane.at] < start + shape_.columns;
    }

    const Pattern& pattern_;
    const WindowShape& shape_;
    std::size_t entries_;
    std::vector<Lane> lanes_;
};

}  // namespace

WindowPlan plan_windows(const Pattern& pattern, std::span<const std::int32_t> order, const WindowShape& shape,
                        std::int32_t room) {
    std::vector<std::int32_t> all;
    if (order.empty()) {
        for (std::int32_t r = 0; r < pattern.rows; ++r) all.push_back(r);
        order = all;
    }
    // A wide group where more than half of its registers have rows: a register in it costs half of one on its own.
    const std::int32_t rows = static_cast<std::int32_t>(order.size()), height = shape.lanes * shape.registers;
    WindowPlan plan;
    plan.wide = shape.registers == 1 ? 0 : rows / height + (rows % height > height / 2);
    plan.narrow = std::max(0, (rows - plan.wide * height + shape.lanes - 1) / shape.lanes);
    const std::int32_t last_start = room - shape.columns;
    std::size_t row = 0;
    for (std::int32_t g = 0; g < plan.wide + plan.narrow; ++g) {
        const std::int32_t lanes = g < plan.wide ? height : shape.lanes;
        const std::size_t taken = std::min<std::size_t>(lanes, order.size() - row);
        const std::int32_t slots = Group(pattern, order.subspan(row, taken), shape, lanes).schedule(last_start, plan);
        plan.counts.push_back(slots);
        (g < plan.wide ? plan.wide_slots : plan.narrow_slots) += slots;
        row += taken;
    }
    return plan;
}

}  // namespace lrnn
