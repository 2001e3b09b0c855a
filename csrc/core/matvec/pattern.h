// Which elements of a matrix are not zero, and what they are, in compressed rows.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace lrnn {

struct Pattern {
    std::int32_t rows = 0, cols = 0;
    std::vector<std::uint32_t> start;   // (rows + 1): where a row's elements begin
    std::vector<std::int32_t> column;   // ascending in a row

    std::int32_t count(std::int32_t row) const { return static_cast<std::int32_t>(start[row + 1] - start[row]); }
    std::int64_t nonzeros() const { return start.back(); }
};

// A matrix of weights in compressed rows: value[i] stands in column pattern.column[i].
template <typename T>
struct Sparse {
    Pattern pattern;
    std::vector<T> value;
};

// The nonzero elements of a dense, row-major matrix. -0.0 is zero.
template <typename T>
Sparse<T> compress(const T* weight, std::int32_t rows, std::int32_t cols) {
    Sparse<T> out;
    out.pattern.rows = rows;
    out.pattern.cols = cols;
    out.pattern.start.reserve(static_cast<std::size_t>(rows) + 1);
    out.pattern.start.push_back(0);
    for (std::int32_t r = 0; r < rows; ++r, weight += cols) {
        for (std::int32_t c = 0; c < cols; ++c)
            if (weight[c] != T{}) {
                out.pattern.column.push_back(c);
                out.value.push_back(weight[c]);
            }
        out.pattern.start.push_back(static_cast<std::uint32_t>(out.value.size()));
    }
    return out;
}

}  // namespace lrnn
