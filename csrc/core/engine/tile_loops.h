// The loops behind TileLoops, in the compiler's generic vectors; included by one file per ISA as elementwise_loops.h is,
// and under the same rules. What works element by element is that file's, run over all numbers of a tile.
#pragma once

#include "core/engine/tile_gated.h"
#include "core/engine/tile_layout.h"

namespace lrnn {
namespace {

// A loop that works element by element, over all numbers of a tile.
template <Elementwise::Run loop>
void over_tile(const Operation& op, float* base, std::int32_t frames) noexcept {
    Operation all = op;
    all.n = op.n * kTileFrames;
    loop(all, base, frames);
}

// out[r][j] = f(r, j) for all rows.
template <typename F>
inline void each_row(const Operation& op, float* base, F f) {
    float* out = base + op.out;
    for (std::int32_t r = 0; r < op.n; ++r)
        for (int j = 0; j < kColumns; ++j) row(out, r, j) = f(r, j);
}

void tile_affine(const Operation& op, float* base, std::int32_t) noexcept {
    const float* x = base + op.in;
    each_row(op, base, [&](std::int32_t r, int j) { return op.a[r] * row(x, r, j) + op.b[r]; });
}

void tile_pair_relu(const Operation& op, float* base, std::int32_t) noexcept {
    const float* x = base + op.in;
    float* out = base + op.out;
    for (std::int32_t r = 0; r < op.n; r += 2)
        for (int j = 0; j < kColumns; ++j) {
            const Vector re = row(x, r, j), im = row(x, r + 1, j);
            const Integers stays = (re > 0.0f) | ((re == 0.0f) & (im > 0.0f));
            row(out, r, j) = stays ? re : Vector{};
            row(out, r + 1, j) = stays ? im : Vector{};
        }
}

struct Complex {
    Vector re, im;
};

// a h + x, `a` a (re, im) pair
inline Complex stepped(const float* a, Complex h, Complex x) {
    return {x.re + a[0] * h.re - a[1] * h.im, x.im + a[0] * h.im + a[1] * h.re};
}

// One pair through the tile. In each lane from zero; what the lanes end with adds up across them, in log(lanes) steps of
// doubled distance; then what stood before each lane goes on through it: h[j] += a^(j+1) (the end of the lane before).
inline void diagonal_pair(const float* powers, const float* re, const float* im, float* out_re, float* out_im,
                          float* state, std::int32_t frames) {
    Complex h[kColumns];
    h[0] = {at(re, 0), at(im, 0)};
#pragma GCC unroll 16
    for (int j = 1; j < kColumns; ++j)
        h[j] = stepped(powers, h[j - 1], {at(re, j * kLanes), at(im, j * kLanes)});
    const float* whole = powers + 2 * (kColumns - 1);  // a^J: through one lane
    Complex ends = h[kColumns - 1];
    ends.re[0] += whole[0] * state[0] - whole[1] * state[1];
    ends.im[0] += whole[0] * state[1] + whole[1] * state[0];
    const float* power = whole;
#pragma GCC unroll 4
    for (int distance = 1; distance < kLanes; distance *= 2, power += 2)
        ends = stepped(power, {moved_up(ends.re, distance, Vector{}), moved_up(ends.im, distance, Vector{})}, ends);
    const Complex before{moved_up(ends.re, 1, all(state[0])), moved_up(ends.im, 1, all(state[1]))};
#pragma GCC unroll 16
    for (int j = 0; j < kColumns; ++j) {
        const Complex now = stepped(powers + 2 * j, before, h[j]);
        at(out_re, j * kLanes) = now.re;
        at(out_im, j * kLanes) = now.im;
    }
    state[0] = out_re[place(frames - 1)];
    state[1] = out_im[place(frames - 1)];
}

void tile_diagonal(const Operation& op, float* base, std::int32_t frames) noexcept {
    int levels = 0;
    while ((1 << levels) < kLanes) ++levels;
    const int powers = 2 * (kColumns + levels - 1);
    const float* x = base + op.in;
    float* out = base + op.out;
    for (std::int32_t r = 0; r < op.n; r += 2)
        diagonal_pair(op.a + r / 2 * powers, x + r * kTileFrames, x + (r + 1) * kTileFrames, out + r * kTileFrames,
                      out + (r + 1) * kTileFrames, base + op.state + r, frames);
}

void tile_layer_norm(const Operation& op, float* base, std::int32_t) noexcept {
    const float* x = base + op.in;
    float* out = base + op.out;
    const float count = static_cast<float>(op.n);
    for (int j = 0; j < kColumns; ++j) {
        Vector mean{}, var{};
        for (std::int32_t r = 0; r < op.n; ++r) mean += row(x, r, j);
        mean /= count;
        for (std::int32_t r = 0; r < op.n; ++r) var += (row(x, r, j) - mean) * (row(x, r, j) - mean);
        Vector scale = var / count + op.scalar;
        for (int k = 0; k < kLanes; ++k) scale[k] = 1.0f / __builtin_sqrtf(scale[k]);
        for (std::int32_t r = 0; r < op.n; ++r) row(out, r, j) = (row(x, r, j) - mean) * scale * op.a[r] + op.b[r];
    }
}

void tile_rms_norm(const Operation& op, float* base, std::int32_t) noexcept {
    const float* x = base + op.in;
    float* out = base + op.out;
    for (int j = 0; j < kColumns; ++j) {
        Vector scale{};
        for (std::int32_t r = 0; r < op.n; ++r) scale += row(x, r, j) * row(x, r, j);
        scale = scale / static_cast<float>(op.n) + op.scalar;
        for (int k = 0; k < kLanes; ++k) scale[k] = 1.0f / __builtin_sqrtf(scale[k]);
        for (std::int32_t r = 0; r < op.n; ++r) row(out, r, j) = row(x, r, j) * scale * op.a[r];
    }
}

void tile_embedding(const Operation& op, float* base, std::int32_t frames) noexcept {
    const float* tokens = base + op.in;
    pack_frames(op.n, frames, base + op.out, [&op, tokens](int t) {
        return op.a + static_cast<std::int64_t>(tokens[place(t)]) * op.n;
    });
}

void tile_mean_pool(const Operation& op, float* base, std::int32_t frames) noexcept {
    float* total = base + op.state;
    const float count = total[op.n];
    for (std::int32_t r = 0; r < op.n; ++r) {
        const float* x = base + op.in + r * kTileFrames;
        float* out = base + op.out + r * kTileFrames;
        float sum = total[r];
        for (int t = 0; t < frames; ++t) out[place(t)] = (sum += x[place(t)]) / (count + static_cast<float>(t + 1));
        total[r] = sum;
    }
    total[op.n] = count + static_cast<float>(frames);
}

void tile_log_softmax(const Operation& op, float* base, std::int32_t) noexcept {
    const float* x = base + op.in;
    float* out = base + op.out;
    for (int j = 0; j < kColumns; ++j) {
        Vector top = row(x, 0, j), sum{};
        for (std::int32_t r = 1; r < op.n; ++r) top = row(x, r, j) > top ? row(x, r, j) : top;
        for (std::int32_t r = 0; r < op.n; ++r) sum += exponential(row(x, r, j) - top);
        for (int k = 0; k < kLanes; ++k) sum[k] = __builtin_logf(sum[k]);
        for (std::int32_t r = 0; r < op.n; ++r) row(out, r, j) = (row(x, r, j) - top) - sum;
    }
}

constexpr TileLoops kTileLoops = {
    kLanes,
    {
        .clear = over_tile<clear>,
        .load = nullptr,  // a product of tiles starts from its bias itself
        .copy = over_tile<copy>,
        .accumulate = nullptr,
        .scatter = nullptr,
        .affine = tile_affine,
        .diagonal = tile_diagonal,
        .gated = tile_gated,
        .turned_gated = tile_turned_gated,
        .embedding = tile_embedding,
        .relu = over_tile<relu>,
        .pair_relu = tile_pair_relu,
        .sigmoid = over_tile<sigmoid>,
        .silu = over_tile<silu>,
        .gelu = over_tile<gelu>,
        .layer_norm = tile_layer_norm,
        .rms_norm = tile_rms_norm,
        .add = over_tile<add>,
        .product = over_tile<product>,
        .sigmoid_gate = over_tile<sigmoid_gate>,
        .silu_gate = over_tile<silu_gate>,
        .relu_gate = over_tile<relu_gate>,
        .round = over_tile<round>,
        .mean_pool = tile_mean_pool,
        .log_softmax = tile_log_softmax,
        .all_finite = all_finite,
    },
    pack,
    unpack,
};

}  // namespace
}  // namespace lrnn
