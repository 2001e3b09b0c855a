// Everything in a frame that is no matrix, for one ISA. What each writes to `out`, in terms of the Operation's fields;
// all may write where they read (out == in, out == other). `frames` is 1, save in a tile (tile.h).
#pragma once

#include <cstdint>

#include "core/isa.h"
#include "core/engine/operation.h"

namespace lrnn {

struct Elementwise {
    using Run = void (*)(const Operation&, float* base, std::int32_t frames) noexcept;
    Run clear;        // 0
    Run load;         // a
    Run copy;         // in
    Run accumulate;   // out + a
    Run scatter;      // out, with in[i] added to number order[i] of it; n numbers in `in`
    Run affine;       // a * in + b
    Run diagonal;     // complex h = A h + in in (re, im) pairs; a holds (Re A, Re A), b holds (-Im A, Im A)
    Run gated;        // h = u + in (other - u), u the last h
    Run turned_gated; // the same of (re, im) pairs, u = A h: a holds (cos, cos), b holds (-sin, sin)
    Run embedding;    // n numbers of a from number n * in[0] on
    Run relu;         // max(in, 0)
    Run pair_relu;    // pairs with re > 0, or re = 0 and im > 0
    Run sigmoid;      // 1 / (1 + exp(-in))
    Run silu;         // in / (1 + exp(-in))
    Run gelu;         // tanh form
    Run layer_norm;   // (in - mean) / sqrt(var + scalar) * a + b
    Run rms_norm;     // in / sqrt(mean(in^2) + scalar) * a
    Run add;          // in + other
    Run product;      // in * other
    Run sigmoid_gate; // in * sigmoid(other)
    Run silu_gate;    // in * silu(other)
    Run relu_gate;    // in * max(other, 0)
    Run round;        // to multiples of 1 / scalar, half to even
    Run mean_pool;    // mean over the frames so far; state: the sum (n), the count of frames
    Run log_softmax;  // in - log(sum(exp(in)))

    bool (*all_finite)(const float* x, std::int64_t n) noexcept;
};

extern const Elementwise elementwise_scalar, elementwise_avx2, elementwise_avx512;
const Elementwise& elementwise(Isa isa);

}  // namespace lrnn
