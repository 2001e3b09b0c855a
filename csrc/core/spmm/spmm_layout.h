// Between time steps of x and y and the panels that products work on: vectors, and transpositions with them. `Isa` as
// spmm_panels.h has it; the rules of such files in core/matvec/kernels.h.
#pragma once

#include "core/spmm/spmm_isa.h"

namespace lrnn {
namespace {

template <class T, int Bytes>
struct VectorOf {
    typedef T type __attribute__((vector_size(Bytes), aligned(Bytes), may_alias));
    typedef T anywhere __attribute__((vector_size(Bytes), aligned(alignof(T)), may_alias));
};

using Quad = VectorOf<float, 16>::type;
using QuadAnywhere = VectorOf<float, 16>::anywhere;

// The least common denominator: one quad per vector. Also serves what is too narrow for wider ones.
struct OneQuad {
    using Vector = Quad;
    static constexpr int lanes = 4, tile_quads = 1;
    template <int Quads>
    static void quads(const float* p, int64_t, int i, Vector (&v)[Quads][4]) {
        for (int q = 0; q < Quads; ++q) v[q][i] = *reinterpret_cast<const QuadAnywhere*>(p + 4 * q);
    }
    static void transpose(Vector (&r)[4]) {
        const Vector a = r[0], b = r[1], c = r[2], d = r[3];
        r[0] = Vector{a[0], b[0], c[0], d[0]};
        r[1] = Vector{a[1], b[1], c[1], d[1]};
        r[2] = Vector{a[2], b[2], c[2], d[2]};
        r[3] = Vector{a[3], b[3], c[3], d[3]};
    }
    static Quad fold(Vector v) { return v; }
};

template <class Isa, int lanes>
struct LanesOf {
    static_assert(lanes == Isa::lanes);
    using type = Isa;
};
template <class Isa>
struct LanesOf<Isa, 4> {
    using type = OneQuad;
};

// to[c][r] = from[r][c] for `lanes` rows and 4 * Quads columns; the strides are of rows. Of each row all quads are read
// before the next row is: rows a power of two apart share few sets of the first-level cache and would drive each other out.
template <class Isa, int Quads>
inline void transpose_tile(const float* from, int64_t from_stride, float* to, int64_t to_stride) {
    using Anywhere = typename VectorOf<float, Isa::lanes * 4>::anywhere;
    typename Isa::Vector v[Quads][4];
    for (int i = 0; i < 4; ++i) Isa::template quads<Quads>(from + i * from_stride, 4 * from_stride, i, v);
    for (int q = 0; q < Quads; ++q) {
        Isa::transpose(v[q]);
        for (int i = 0; i < 4; ++i) *reinterpret_cast<Anywhere*>(to + (4 * q + i) * to_stride) = v[q][i];
    }
}

// The same for any number of columns, rounded down to a multiple of 4.
template <class Isa>
void transpose_rows(const float* from, int64_t from_stride, float* to, int64_t to_stride, int64_t cols) {
    constexpr int width = 4 * Isa::tile_quads;
    int64_t c = 0;
    for (; c + width <= cols; c += width)
        transpose_tile<Isa, Isa::tile_quads>(from + c, from_stride, to + c * to_stride, to_stride);
    for (; c + 4 <= cols; c += 4) transpose_tile<Isa, 1>(from + c, from_stride, to + c * to_stride, to_stride);
}

template <class Isa>
void transpose(const float* from, int64_t from_stride, float* to, int64_t to_stride, int64_t rows, int64_t cols) {
    int64_t r = 0;
    for (; r + Isa::lanes <= rows; r += Isa::lanes)
        transpose_rows<Isa>(from + r * from_stride, from_stride, to + r, to_stride, cols);
    for (; r + 4 <= rows; r += 4)
        transpose_rows<OneQuad>(from + r * from_stride, from_stride, to + r, to_stride, cols);
    for (int64_t i = 0; i < r; ++i)
        for (int64_t c = cols & ~int64_t{3}; c < cols; ++c) to[c * to_stride + i] = from[i * from_stride + c];
    for (; r < rows; ++r)
        for (int64_t c = 0; c < cols; ++c) to[c * to_stride + r] = from[r * from_stride + c];
}

template <class Isa>
void transpose(const double* from, int64_t from_stride, double* to, int64_t to_stride, int64_t rows, int64_t cols) {
    for (int64_t r = 0; r < rows; ++r)
        for (int64_t c = 0; c < cols; ++c) to[c * to_stride + r] = from[r * from_stride + c];
}

// Steps of x (stride cols) as a panel (cols, width); steps that it lacks are zeros.
template <class Isa, class T>
void pack(const T* x, int64_t steps, int64_t cols, T* panel, int width) {
    transpose<Isa>(x, cols, panel, width, steps, cols);
    for (int64_t c = 0; steps < width && c < cols; ++c)
        for (int64_t t = steps; t < width; ++t) panel[c * width + t] = 0;
}

// A panel (rows, width) as steps of y (stride rows). Long steps are written a few at a time from end to end: steps a power of
// two apart share few sets of the cache, and going from one to the next at every store costs half as much again.
template <class Isa, class T>
void unpack(const T* panel, int width, T* y, int64_t steps, int64_t rows) {
    const int64_t band = rows > 256 ? Isa::lanes : width;
    for (int64_t t = 0; t < steps; t += band) {
        const int64_t n = steps - t < band ? steps - t : band;
        transpose<Isa>(panel + t, width, y + t * rows, rows, rows, n);
    }
}

}  // namespace
}  // namespace lrnn
