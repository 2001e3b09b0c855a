// Compressed rows and columns that own their arrays.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "core/matvec/kernels.h"
#include "core/matvec/pattern.h"

namespace lrnn {

template <typename Vector>
std::size_t bytes_of(const Vector& v) {
    return v.size() * sizeof(v[0]);
}

// The rows of a matrix, or with `transposed` its columns.
template <typename T>
class LineStore {
public:
    explicit LineStore(Sparse<T> lines) : lines_(std::move(lines)) {}
    Lines<T> view() const noexcept {
        return {lines_.pattern.start.data(), lines_.pattern.column.data(), lines_.value.data(), lines_.pattern.rows};
    }
    std::size_t bytes() const noexcept {
        return bytes_of(lines_.pattern.start) + bytes_of(lines_.pattern.column) + bytes_of(lines_.value);
    }

private:
    Sparse<T> lines_;
};

template <typename T>
Sparse<T> transposed(const Sparse<T>& from) {
    const Pattern& p = from.pattern;
    Sparse<T> to;
    to.pattern = {p.cols, p.rows, std::vector<std::uint32_t>(static_cast<std::size_t>(p.cols) + 1, 0),
                  std::vector<std::int32_t>(from.value.size())};
    to.value.resize(from.value.size());
    for (const std::int32_t c : p.column) ++to.pattern.start[c + 1];
    for (std::int32_t c = 0; c < p.cols; ++c) to.pattern.start[c + 1] += to.pattern.start[c];
    std::vector<std::uint32_t> next(to.pattern.start.begin(), to.pattern.start.end() - 1);
    for (std::int32_t r = 0; r < p.rows; ++r)
        for (std::uint32_t i = p.start[r]; i < p.start[r + 1]; ++i) {
            const std::uint32_t at = next[p.column[i]]++;
            to.pattern.column[at] = r;
            to.value[at] = from.value[i];
        }
    return to;
}

}  // namespace lrnn
