// Many frames at once: the layout of a tile, and its loops for one ISA.
//
// A tile holds kTileFrames frames of a value, row by row: all frames of number 0, then of number 1, ... so that products and
// whatever works element by element take whole vectors of frames. Within a row, frame t stands at
// (t % J) * lanes + t / J with J = kTileFrames / lanes: a vector holds every J-th frame, and a lane J frames in a row. The
// recurrence then runs down J vectors in all lanes at once, and only its `lanes` ends meet across lanes.
#pragma once

#include <cstdint>

#include "core/engine/elementwise.h"

namespace lrnn {

inline constexpr std::int32_t kTileFrames = 64;

struct TileLoops {
    std::int32_t lanes;
    // As on single frames, on `op.n` rows; `diagonal` takes tile_powers (tile_weights.h) as op.a. They keep to the first `frames`
    // frames where it matters: in what they remember.
    Elementwise loops;
    // The first `frames` of a tile from x (frames, width), the others zeros; and back.
    void (*pack)(const float* x, std::int32_t width, std::int32_t frames, float* tile) noexcept;
    void (*unpack)(const float* tile, std::int32_t width, std::int32_t frames, float* y) noexcept;
};

extern const TileLoops tile_loops_scalar, tile_loops_avx2, tile_loops_avx512;
const TileLoops& tile_loops(Isa isa);

}  // namespace lrnn
