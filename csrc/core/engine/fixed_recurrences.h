// The loops of the fixed-point nodes that remember; see elementwise_loops.h for the rules of such a file.
#pragma once

#include "core/engine/fixed_vectors.h"

namespace lrnn {
namespace {

// The low halves of lanes, numbers of 32 bits, multiplied to 64.
inline Wide multiplied(Wide a, Wide b) {
#if defined(__AVX512F__)
    return Wide(_mm512_mul_epi32(__m512i(a), __m512i(b)));
#elif defined(__AVX2__)
    return Wide(_mm256_mul_epi32(__m256i(a), __m256i(b)));
#else
    return first(a) * first(b);
#endif
}

// What a shift drops of the sums of pairs: re and im of each.
struct Drops {
    Wide re, im;
};
// Shifts sums to the right, and keeps the rest.
inline Drops dropped(Wide q_re, Wide q_im, Wide right, Wide* rest) {
    const Wide drop_re = q_re >> right, drop_im = q_im >> right;
    *rest = paired(q_re - (drop_re << right), q_im - (drop_im << right));
    return {drop_re, drop_im};
}
// Of q = D h + rest for the pairs h.
inline Drops decayed(const FixedView& node, std::int32_t i, Wide h, Wide* rest) {
    const auto part = [i](const std::int64_t* p) { return Lanes<std::int64_t>::read(p + kHalf * i); };
    const Wide decay_re = part(node.decay_re), decay_im = part(node.decay_im);
    const Wide im = second(h);  // products read the low halves of lanes: of h itself, re
    const Wide q_re = multiplied(decay_re, h) - multiplied(decay_im, im) + first(*rest);
    const Wide q_im = multiplied(decay_re, im) + multiplied(decay_im, h) + second(*rest);
    return dropped(q_re, q_im, part(node.decay_right), rest);
}

template <typename T>
void diagonal(const Operation& op, float* base, std::int32_t) noexcept {
    const FixedView& node = view(op);
    const Shift<T> x_shift = uniform_of_x<T>(node), y_shift = uniform<T>(node);
    const auto at = [base](std::uint32_t offset) { return reinterpret_cast<Wide*>(base + offset); };
    const Wide* x = at(op.in);
    Wide *y = at(op.out), *state = at(op.state), *rest = at(op.state + op.other);
    for (std::int32_t i = 0; 2 * kHalf * i < op.n; ++i) {
        const Wide h = state[i];
        const Drops drop = decayed(node, i, h, rest + i);
        if constexpr (sizeof(T) == 4) {  // all but q fits 32 bits: both parts of a pair at once
            const Narrow sum = Narrow(h) - Narrow(paired(drop.re, drop.im)) + shifted(Narrow(x[i]), x_shift);
            const Narrow next = within(sum, node.state_most);
            state[i] = Wide(next);
            y[i] = Wide(within(shifted(next, y_shift), node.most));
        } else {
            const Wide re = within(first(h) - drop.re + shifted(first(x[i]), x_shift), node.state_most);
            const Wide im = within(second(h) - drop.im + shifted(second(x[i]), x_shift), node.state_most);
            state[i] = paired(re, im);
            y[i] = paired(within(shifted(re, y_shift), node.most), within(shifted(im, y_shift), node.most));
        }
    }
}

template <typename Vector>
inline Vector within_one(Vector g, std::int32_t right) {
    const Vector one = Vector{} + (std::int32_t{1} << right);
    g = g > one ? one : g;
    return g > 0 ? g : Vector{};
}

// The gates of a block of pairs: of real states, which are taken in twos, a number for each; of complex ones one for both.
template <bool kTurned>
inline Drops gates(const std::int32_t* g, std::int32_t i, std::int32_t right) {
    if constexpr (kTurned) {
        const Wide one = within_one(Lanes<std::int64_t>::read(g + kHalf * i), right);
        return {one, one};
    } else {
        const Wide two = Wide(within_one(reinterpret_cast<const Narrow*>(g)[i], right));
        return {first(two), second(two)};
    }
}

// What it keeps lies behind the state: of a rotation what that drops, then what the gate does.
template <typename T, bool kTurned>
void gated(const Operation& op, float* base, std::int32_t) noexcept {
    const FixedView& node = view(op);
    const Shift<T> x_shift = uniform_of_x<T>(node), y_shift = uniform<T>(node);
    const auto at = [base](std::uint32_t offset) { return reinterpret_cast<Wide*>(base + offset); };
    const std::int32_t* g = integers(base, op.in);
    const Wide* x = at(op.other);
    Wide *y = at(op.out), *state = at(op.state);
    Wide *turn = at(op.state + node.part), *rest = kTurned ? at(op.state + 2 * node.part) : turn;
    const Wide right = Wide{} + node.gate_right;
    for (std::int32_t i = 0; 2 * kHalf * i < op.n; ++i) {
        const Wide h = state[i];
        const Drops gate = gates<kTurned>(g, i, node.gate_right);
        if constexpr (sizeof(T) == 4) {  // all but the products fits 32 bits: both parts of a pair at once
            Narrow u = Narrow(h);
            if constexpr (kTurned) {
                const Drops lost = decayed(node, i, h, turn + i);
                u -= Narrow(paired(lost.re, lost.im));
            }
            const Wide apart = Wide(u - shifted(Narrow(x[i]), x_shift));
            const Wide q_re = multiplied(gate.re, apart) + first(rest[i]);
            const Wide q_im = multiplied(gate.im, second(apart)) + second(rest[i]);
            const Drops drop = dropped(q_re, q_im, right, rest + i);
            const Narrow next = within(u - Narrow(paired(drop.re, drop.im)), node.state_most);
            state[i] = Wide(next);
            y[i] = Wide(within(shifted(next, y_shift), node.most));
        } else {
            Wide re = first(h), im = second(h);
            if constexpr (kTurned) {
                const Drops lost = decayed(node, i, h, turn + i);
                re -= lost.re, im -= lost.im;
            }
            const Wide q_re = gate.re * (re - shifted(first(x[i]), x_shift)) + first(rest[i]);
            const Wide q_im = gate.im * (im - shifted(second(x[i]), x_shift)) + second(rest[i]);
            const Drops drop = dropped(q_re, q_im, right, rest + i);
            re = within(re - drop.re, node.state_most);
            im = within(im - drop.im, node.state_most);
            state[i] = paired(re, im);
            y[i] = paired(within(shifted(re, y_shift), node.most), within(shifted(im, y_shift), node.most));
        }
    }
}

}  // namespace
}  // namespace lrnn
