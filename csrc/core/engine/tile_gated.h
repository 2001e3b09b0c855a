// The gated recurrence over a tile: kLanes states side by side, frame after frame, in the sums of a single step. What a gate
// keeps is never formed (1 - g loses a small g), so nothing can be reordered into a scan across lanes. Included by
// tile_loops.h, under its rules.
#pragma once

#include "core/engine/tile_layout.h"

namespace lrnn {
namespace {

// What kLanes rows hold, `stride` apart from row r on, frame by frame; zeros in lanes from `rows` on.
inline void to_frames(const float* tile, std::int32_t r, int stride, std::int32_t rows, Vector (&frames)[kTileFrames]) {
    for (int j = 0; j < kColumns; ++j) {
        Vector v[kLanes];
        for (int k = 0; k < kLanes; ++k) v[k] = k < rows ? row(tile, r + k * stride, j) : Vector{};
        transpose(v);
        for (int l = 0; l < kLanes; ++l) frames[l * kColumns + j] = v[l];
    }
}

inline void to_rows(const Vector (&frames)[kTileFrames], std::int32_t r, int stride, std::int32_t rows, float* tile) {
    for (int j = 0; j < kColumns; ++j) {
        Vector v[kLanes];
        for (int l = 0; l < kLanes; ++l) v[l] = frames[l * kColumns + j];
        transpose(v);
        for (int k = 0; k < rows; ++k) row(tile, r + k * stride, j) = v[k];
    }
}

void tile_gated(const Operation& op, float* base, std::int32_t frames) noexcept {
    Vector g[kTileFrames], x[kTileFrames];
    for (std::int32_t r = 0; r < op.n; r += kLanes) {
        const std::int32_t rows = op.n - r < kLanes ? op.n - r : kLanes;
        to_frames(base + op.in, r, 1, rows, g);
        to_frames(base + op.other, r, 1, rows, x);
        Vector h = at(base + op.state, r);
        for (std::int32_t t = 0; t < frames; ++t) x[t] = h = moved_towards(x[t], g[t], h);
        at(base + op.state, r) = h;
        to_rows(x, r, 1, rows, base + op.out);
    }
}

// op.a holds cos, op.b sin, one for each pair.
void tile_turned_gated(const Operation& op, float* base, std::int32_t frames) noexcept {
    Vector g[kTileFrames], re[kTileFrames], im[kTileFrames];
    for (std::int32_t p = 0; p < op.n / 2; p += kLanes) {
        const std::int32_t pairs = op.n / 2 - p < kLanes ? op.n / 2 - p : kLanes;
        to_frames(base + op.in, p, 1, pairs, g);
        to_frames(base + op.other, 2 * p, 2, pairs, re);
        to_frames(base + op.other, 2 * p + 1, 2, pairs, im);
        float* state = base + op.state + 2 * p;
        Vector h_re{}, h_im{};
        for (int k = 0; k < pairs; ++k) {
            h_re[k] = state[2 * k];
            h_im[k] = state[2 * k + 1];
        }
        const Vector cos = at(op.a, p), sin = at(op.b, p);
        for (std::int32_t t = 0; t < frames; ++t) {
            const Vector u_re = cos * h_re - sin * h_im, u_im = cos * h_im + sin * h_re;
            re[t] = h_re = moved_towards(re[t], g[t], u_re);
            im[t] = h_im = moved_towards(im[t], g[t], u_im);
        }
        for (int k = 0; k < pairs; ++k) {
            state[2 * k] = h_re[k];
            state[2 * k + 1] = h_im[k];
        }
        to_rows(re, 2 * p, 2, pairs, base + op.out);
        to_rows(im, 2 * p + 1, 2, pairs, base + op.out);
    }
}

}  // namespace
}  // namespace lrnn
