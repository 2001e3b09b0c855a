#include "core/engine/fixed_node.h"

#include <bit>

namespace lrnn {
namespace {

const FixedNode& node_of(const Operation& op) { return static_cast<const FixedNode&>(*op.fixed); }
std::int32_t* integers(float* base, std::uint32_t offset) { return reinterpret_cast<std::int32_t*>(base + offset); }

// 2^16 / sqrt(1 + i / 128) to the nearest integer, i = 0 ... 384. By integers, since a compiler's roots are not exact to the
// last bit everywhere: the m with (2 m - 1)^2 (128 + i) < 2^41 <= (2 m + 1)^2 (128 + i), of which the sides never meet.
struct InverseRoots {
    std::int32_t entry[385];
    constexpr InverseRoots() : entry() {
        std::int64_t m = 1 << 16;
        for (std::int64_t i = 0; i < 385; ++i) {
            while ((2 * m - 1) * (2 * m - 1) * (128 + i) >= std::int64_t{1} << 41) --m;
            entry[i] = static_cast<std::int32_t>(m);
        }
    }
};
constexpr InverseRoots kInverseRoots;

}  // namespace

InverseRoot inverse_root(std::int64_t v) noexcept {
    const int j = (static_cast<int>(std::bit_width(static_cast<std::uint64_t>(v))) - 31) >> 1;
    const std::int64_t m = (j > 0 ? v >> 2 * j : v << -2 * j) - (std::int64_t{1} << 30);
    const std::int32_t* entry = kInverseRoots.entry + (m >> 23);
    const std::int64_t slope = entry[1] - entry[0];
    const std::int64_t more = (slope * (m & ((1 << 23) - 1)) + (1 << 22)) >> 23;
    return {static_cast<std::int32_t>(entry[0] + more), j};
}

WideRows::WideRows(const std::int16_t* weight, std::int32_t rows, std::int32_t cols) {
    starts_.push_back(0);
    for (std::int32_t r = 0; r < rows; ++r, weight += cols) {
        for (std::int32_t c = 0; c < cols; ++c)
            if (weight[c] != 0) {
                columns_.push_back(c);
                weights_.push_back(weight[c]);
            }
        starts_.push_back(static_cast<std::int32_t>(columns_.size()));
    }
}

void WideRows::multiply(const std::int32_t* x, std::int64_t* y) const noexcept {
    for (std::size_t r = 0; r + 1 < starts_.size(); ++r) {
        std::int64_t sum = 0;
        for (std::int32_t k = starts_[r]; k < starts_[r + 1]; ++k)
            sum += std::int64_t{weights_[k]} * x[columns_[k]];
        y[r] = sum;
    }
}

std::size_t FixedNode::bytes() const noexcept {
    std::size_t total = (matrix ? matrix->bytes() : 0) + (rows ? rows->bytes() : 0) + (tokens ? tokens->bytes() : 0);
    for (const auto& array : arrays32) total += sizeof(std::int32_t) * array.size();
    for (const auto& array : arrays64) total += sizeof(std::int64_t) * array.size();
    return total;
}

// Scratch holds x in 16 bits, then the form that the kernel wants it in, then the sums; all on cache lines.
void fixed_linear(const Operation& op, float* base, std::int32_t) noexcept {
    const FixedNode& node = node_of(op);
    const std::int32_t* x = integers(base, op.in);
    std::byte* scratch = reinterpret_cast<std::byte*>(base + op.other);
    if (node.rows) {
        node.rows->multiply(x, reinterpret_cast<std::int64_t*>(scratch));
    } else {
        std::int16_t* words = reinterpret_cast<std::int16_t*>(scratch);
        std::byte* form = scratch + sizeof(std::int16_t) * padded(node.cols);
        scratch = form + padded(static_cast<std::int64_t>(node.matrix->form_bytes()));
        node.loops->to_words(x, node.cols, words);
        node.matrix->prepare(words, form);
        node.matrix->multiply(form, scratch);
    }
    node.loops->finish[node.finish](scratch, node, op.n, integers(base, op.out));
}

// Whether x is a token's number, the stream has seen before it runs.
void fixed_embedding(const Operation& op, float* base, std::int32_t) noexcept {
    const FixedNode& node = node_of(op);
    node.tokens->read(static_cast<std::int64_t>(base[op.in]), node.most, integers(base, op.out));
}

void fixed_table(const Operation& op, float* base, std::int32_t) noexcept {
    const FixedNode& node = node_of(op);
    const std::int32_t* x = integers(base, op.in);
    std::int32_t* y = integers(base, op.out);
    const std::int64_t mask = (std::int64_t{1} << node.step) - 1, half = (std::int64_t{1} << node.step) >> 1;
    for (std::int32_t i = 0; i < op.n; ++i) {
        const std::int64_t above = std::int64_t{x[i]} + node.offset;
        const std::int32_t* entry = node.table + (above >> node.step);
        const std::int64_t slope = std::int64_t{entry[1]} - entry[0];
        y[i] = static_cast<std::int32_t>(entry[0] + ((slope * (above & mask) + half) >> node.step));
    }
}

// State: the sums, then the count of frames, int64.
void fixed_mean_pool(const Operation& op, float* base, std::int32_t) noexcept {
    const std::int32_t* x = integers(base, op.in);
    std::int32_t* y = integers(base, op.out);
    std::int64_t* total = reinterpret_cast<std::int64_t*>(base + op.state);
    const std::int64_t count = ++total[op.n];
    for (std::int32_t i = 0; i < op.n; ++i) {
        total[i] += x[i];
        const std::int64_t above = 2 * total[i] + count, below = 2 * count;
        y[i] = static_cast<std::int32_t>(above / below - (above % below < 0));
    }
}

}  // namespace lrnn
