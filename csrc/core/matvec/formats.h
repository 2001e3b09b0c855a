// Compressed rows and columns as owners of their arrays.
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

template <typename T>
struct RowStore {
    Sparse<T> sparse;
    explicit RowStore(Sparse<T> from) : sparse(std::move(from)) {}
    Rows<T> view() const noexcept {
        return {sparse.pattern.start.data(), sparse.pattern.column.data(), sparse.value.data(), sparse.pattern.rows};
    }
    std::size_t bytes() const noexcept {
        return bytes_of(sparse.pattern.start) + bytes_of(sparse.pattern.column) + bytes_of(sparse.value);
    }
};

template <typename T>
struct ColumnStore {
    std::vector<std::uint32_t> start;
    std::vector<std::int32_t> row;
    std::vector<T> weight;

    explicit ColumnStore(const Sparse<T>& from)
        : start(static_cast<std::size_t>(from.pattern.cols) + 1, 0), row(from.value.size()), weight(from.value.size()) {
        const Pattern& p = from.pattern;
        for (const std::int32_t c : p.column) ++start[c + 1];
        for (std::int32_t c = 0; c < p.cols; ++c) start[c + 1] += start[c];
        std::vector<std::uint32_t> next(start.begin(), start.end() - 1);
        for (std::int32_t r = 0; r < p.rows; ++r)
            for (std::uint32_t i = p.start[r]; i < p.start[r + 1]; ++i) {
                const std::uint32_t at = next[p.column[i]]++;
                row[at] = r;
                weight[at] = from.value[i];
            }
    }
    Columns<T> view() const noexcept {
        return {start.data(), row.data(), weight.data(), static_cast<std::int32_t>(start.size()) - 1};
    }
    std::size_t bytes() const noexcept { return bytes_of(start) + bytes_of(row) + bytes_of(weight); }
};

}  // namespace lrnn
