// How the loops of a tile move between frames and rows (tile.h has the layout); included by tile_loops.h, under its rules.
#pragma once

#include "core/engine/elementwise_loops.h"
#include "core/engine/tile.h"

namespace lrnn {
namespace {

constexpr int kColumns = kTileFrames / kLanes;  // vectors in a row, and frames in a lane
using Frames = float __attribute__((vector_size(4 * kLanes), aligned(4), may_alias));

inline Vector& row(float* tile, std::int32_t r, int j) { return at(tile, r * kTileFrames + j * kLanes); }
inline const Vector& row(const float* tile, std::int32_t r, int j) { return at(tile, r * kTileFrames + j * kLanes); }
inline int place(int t) { return t % kColumns * kLanes + t / kColumns; }

// Lane l gets what lane l - distance held; the first ones get the last of `before`.
inline Vector moved_up(Vector v, int distance, Vector before) {
    const Integers from = lane_numbers() - distance;
    return chosen(v, before, from < 0 ? from + 2 * kLanes : from);
}

// Rows become columns: at each level, blocks of `half` lanes change places between vectors `half` apart.
inline void transpose(Vector (&v)[kLanes]) {
    const Integers lanes = lane_numbers();
#pragma GCC unroll 4
    for (int half = 1; half < kLanes; half *= 2) {
        const Integers upper = (lanes & half) != 0;
        const Integers low = upper ? lanes + kLanes - half : lanes, high = upper ? lanes + kLanes : lanes + half;
#pragma GCC unroll 16
        for (int i = 0; i < kLanes; ++i)
            if ((i & half) == 0) {
                const Vector a = v[i], b = v[i + half];
                v[i] = chosen(a, b, low);
                v[i + half] = chosen(a, b, high);
            }
    }
}

// Runs body(first row, rows, j) for every block of kLanes rows of column j.
template <typename Body>
inline void over_blocks(std::int32_t width, Body body) {
    for (std::int32_t r = 0; r < width; r += kLanes)
        for (int j = 0; j < kColumns; ++j) body(r, width - r < kLanes ? width - r : kLanes, j);
}

// Frame t of a tile from frame_of(t), `width` numbers.
template <typename FrameOf>
inline void pack_frames(std::int32_t width, std::int32_t frames, float* tile, FrameOf frame_of) {
    over_blocks(width, [=](std::int32_t r, std::int32_t rows, int j) {
        Vector v[kLanes];
        for (int l = 0; l < kLanes; ++l) {
            const int t = l * kColumns + j;
            v[l] = Vector{};
            if (t < frames && rows == kLanes) v[l] = *reinterpret_cast<const Frames*>(frame_of(t) + r);
            else if (t < frames) __builtin_memcpy(&v[l], frame_of(t) + r, sizeof(float) * rows);
        }
        transpose(v);
        for (int k = 0; k < rows; ++k) row(tile, r + k, j) = v[k];
    });
}

void pack(const float* x, std::int32_t width, std::int32_t frames, float* tile) noexcept {
    pack_frames(width, frames, tile, [=](int t) { return x + static_cast<std::int64_t>(t) * width; });
}

void unpack(const float* tile, std::int32_t width, std::int32_t frames, float* y) noexcept {
    over_blocks(width, [=](std::int32_t r, std::int32_t rows, int j) {
        Vector v[kLanes];
        for (int k = 0; k < kLanes; ++k) v[k] = k < rows ? row(tile, r + k, j) : Vector{};
        transpose(v);
        for (int l = 0; l < kLanes; ++l) {
            const int t = l * kColumns + j;
            float* to = y + static_cast<std::int64_t>(t) * width + r;
            if (t < frames && rows == kLanes) *reinterpret_cast<Frames*>(to) = v[l];
            else if (t < frames) __builtin_memcpy(to, &v[l], sizeof(float) * rows);
        }
    });
}

}  // namespace
}  // namespace lrnn
