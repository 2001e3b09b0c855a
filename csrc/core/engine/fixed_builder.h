// A node of integers under construction: what sums become, shifts and biases in the width that they need.
#pragma once

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "core/engine/build.h"
#include "core/engine/fixed_node.h"

namespace lrnn {

inline constexpr std::int32_t kMostShift = 62;

inline std::int32_t most_of(std::int32_t bits) {
    return static_cast<std::int32_t>((std::int64_t{1} << (bits - 1)) - 1);
}

template <typename T>
Shift<T> shift_by(std::int32_t by, std::int32_t rounding) {
    const T half = by > 0 && rounding != LRNN_FLOOR ? (T{1} << (by - 1)) - (rounding == LRNN_NEAREST_EVEN) : T{0};
    const T even = by > 0 && rounding == LRNN_NEAREST_EVEN;
    return {static_cast<T>(by < 0 ? -by : 0), static_cast<T>(by > 0 ? by : 0), half, even};
}

inline Node integer_unary(const lrnn_engine* engine, std::int32_t x) {
    return unary(engine, Kind::fixed, x, Numbers::integers);
}

class Build {
public:
    Build(const lrnn_engine* engine, Node node) : node_(std::move(node)), owned_(std::make_unique<FixedNode>()) {
        if (engine->tiled()) refuse("format is 3 (tiles), expected another one for a program in fixed point");
        loops_ = owned_->loops = &fixed_loops(engine->isa);
    }
    FixedNode& fixed() { return *owned_; }
    const FixedLoops& loops() const { return *loops_; }
    std::int32_t width() const { return node_.width; }
    Node& node() { return node_; }

    // How the node's sums become its value.
    void finish(lrnn_finish with) {
        check_between("rounding", with.rounding, LRNN_NEAREST_EVEN, LRNN_FLOOR);
        check_between("bits", with.bits, 2, 32);
        if (with.accumulator_bits != 32 && with.accumulator_bits != 64)
            refuse("accumulator_bits is " + std::to_string(with.accumulator_bits) + ", expected 32 or 64");
        with_ = with;
        wide_ = with.accumulator_bits == 64;
        owned_->most = most_of(with.bits);
    }
    // Sums take 64 bits also where a shift is one that 32 bits know nothing of. Comes before shifts and biases.
    void expect_shifts(const std::int32_t* by, std::int32_t n) {
        check_present("shift", by, n);
        for (std::int32_t i = 0; i < n; ++i) {
            check_between("shift", by[i], -kMostShift, kMostShift);
            if (by[i] < -31 || by[i] > 31) wide_ = true;
        }
    }
    void widen() { wide_ = true; }
    bool wide() const { return wide_; }

    void shift(std::int32_t by) {
        owned_->shift64 = shift_by<std::int64_t>(by, with_.rounding);
        if (!wide_) owned_->shift32 = shift_by<std::int32_t>(by, with_.rounding);
    }
    void x_shift(std::int32_t by) {
        owned_->x_shift64 = shift_by<std::int64_t>(by, with_.rounding);
        if (!wide_) owned_->x_shift32 = shift_by<std::int32_t>(by, with_.rounding);
    }
    void shifts(const std::int32_t* by, std::int32_t n) {
        if (wide_) owned_->shifts64 = kept_shifts<std::int64_t>(by, n, owned_->arrays64);
        else owned_->shifts32 = kept_shifts<std::int32_t>(by, n, owned_->arrays32);
    }
    void bias(const std::int64_t* values, std::int32_t n) {
        check_present("bias", values, n);
        if (wide_) owned_->bias64 = keep(values, n, owned_->arrays64);
        else owned_->bias32 = keep(values, n, owned_->arrays32);
    }
    template <typename From, typename T>
    const T* keep(const From* values, std::int64_t n, std::vector<AlignedVector<T>>& arrays) {
        arrays.push_back(padded_copy<T>(values, n));
        return arrays.back().data();
    }

    std::int32_t append_to(lrnn_engine* engine, FixedLoops::Run run) {
        engine->has_integers = true;
        owned_->run = run;
        node_.fixed = std::move(owned_);
        return append(engine, std::move(node_));
    }

private:
    template <typename T>
    Shifts<T> kept_shifts(const std::int32_t* by, std::int32_t n, std::vector<AlignedVector<T>>& arrays) {
        AlignedVector<T> left(padded(n), T{0}), right = left, half = left, even = left;
        for (std::int32_t i = 0; i < n; ++i) {
            const Shift<T> one = shift_by<T>(by[i], with_.rounding);
            left[i] = one.left, right[i] = one.right, half[i] = one.half, even[i] = one.even;
        }
        const auto kept = [&](AlignedVector<T>& array) {
            arrays.push_back(std::move(array));
            return arrays.back().data();
        };
        return {kept(left), kept(right), kept(half), kept(even)};
    }

    Node node_;
    std::unique_ptr<FixedNode> owned_;
    const FixedLoops* loops_;
    lrnn_finish with_{LRNN_NEAREST_EVEN, 32, 32};
    bool wide_ = false;
};

}  // namespace lrnn
