// The native engine's C interface: build an immutable engine from nodes, then run any number of independent streams.
//
//     lrnn_engine* engine = lrnn_engine_new(257, LRNN_FORMAT_AUTO);   // value 0 is the input frame
//     int h = lrnn_engine_linear(engine, 0, 192, 257, weight, bias);  // returns the id of its value
//     int a = lrnn_engine_relu(engine, h);
//     if (lrnn_engine_finish(engine, a) != LRNN_OK) puts(lrnn_engine_error(engine));
//     lrnn_stream* stream = lrnn_stream_new(engine);
//     while (...) lrnn_stream_step(stream, in, out);
//     lrnn_stream_free(stream);
//     lrnn_engine_free(engine);
//
// Arrays are float32, row-major and copied: they may be freed after the call. The first error sticks, every later
// call on that engine returns it too, so that only lrnn_engine_finish needs checking. No call throws, prints or
// exits. Building belongs to one thread. A finished engine never changes and may be shared by threads; a stream
// belongs to one thread at a time and never allocates. Free an engine after its streams.
#pragma once

#include <stdint.h>

#include "core/api.h"

typedef struct lrnn_engine lrnn_engine;
typedef struct lrnn_stream lrnn_stream;

// What calls return: LRNN_OK or an id >= 0 on success, else one of the others; lrnn_engine_error has the words.
enum lrnn_status {
    LRNN_OK = 0,
    LRNN_BAD_ARGUMENT = -1,  // an argument is wrong in itself or does not fit the graph
    LRNN_OUT_OF_MEMORY = -2,
    LRNN_NOT_FINITE = -3,  // NaN or infinity in an input frame; the stream is as before the call
    LRNN_NOT_A_TOKEN = -4  // an input frame of an engine for tokens is the number of none; the same
};

// How matrices are stored: what should be faster at each one's density, or one way for all (to compare them). Tiles are
// for chunks: 64 frames at a time go through the network, at a fraction of the time per frame, but fewer, down to one, cost
// as much as 64.
enum lrnn_format { LRNN_FORMAT_AUTO = 0, LRNN_FORMAT_DENSE = 1, LRNN_FORMAT_SPARSE = 2, LRNN_FORMAT_TILES = 3 };

// An engine of the ISA that is active now (core/isa.h). Null only when there is no memory.
LRNN_API lrnn_engine* lrnn_engine_new(int32_t input_width, int32_t format);
LRNN_API void lrnn_engine_free(lrnn_engine* engine);

// Nodes. x, x0, x1 are ids of earlier values; bias may be null. Complex values are (re, im) pairs side by side.

// weight (rows, cols) x + bias (rows)
LRNN_API int32_t lrnn_engine_linear(lrnn_engine* engine, int32_t x, int32_t rows, int32_t cols, const float* weight,
                                    const float* bias);
// scale (n) * x + shift (n)
LRNN_API int32_t lrnn_engine_affine(lrnn_engine* engine, int32_t x, int32_t n, const float* scale, const float* shift);
// h = a h + x, complex, h carried over: a (pairs, 2)
LRNN_API int32_t lrnn_engine_diagonal(lrnn_engine* engine, int32_t x, int32_t pairs, const float* a);
// h = u + g (x - u), u the last h: g (size), x (size). With rotation (size, 2) = (cos, sin), x and h are complex (2 size)
// and u is rotation h.
LRNN_API int32_t lrnn_engine_gated(lrnn_engine* engine, int32_t g, int32_t x, int32_t size, const float* rotation);
// Row number x of weight (tokens, n): x is value 0, the input, of one number.
LRNN_API int32_t lrnn_engine_embedding(lrnn_engine* engine, int32_t x, int32_t tokens, int32_t n, const float* weight);
// max(x, 0)
LRNN_API int32_t lrnn_engine_relu(lrnn_engine* engine, int32_t x);
// A pair stays where re > 0, or re = 0 and im > 0; else it becomes zeros.
LRNN_API int32_t lrnn_engine_pair_relu(lrnn_engine* engine, int32_t x);
// 1 / (1 + exp(-x))
LRNN_API int32_t lrnn_engine_sigmoid(lrnn_engine* engine, int32_t x);
// x / (1 + exp(-x))
LRNN_API int32_t lrnn_engine_silu(lrnn_engine* engine, int32_t x);
// GELU in its tanh form
LRNN_API int32_t lrnn_engine_gelu(lrnn_engine* engine, int32_t x);
// (x - mean) / sqrt(var + eps) * scale (n) + shift (n), biased variance
LRNN_API int32_t lrnn_engine_layer_norm(lrnn_engine* engine, int32_t x, int32_t n, const float* scale,
                                        const float* shift, float eps);
// x / sqrt(mean(x^2) + eps) * scale (n)
LRNN_API int32_t lrnn_engine_rms_norm(lrnn_engine* engine, int32_t x, int32_t n, const float* scale, float eps);
// x0 + x1
LRNN_API int32_t lrnn_engine_add(lrnn_engine* engine, int32_t x0, int32_t x1);
// x0 * x1, element by element
LRNN_API int32_t lrnn_engine_product(lrnn_engine* engine, int32_t x0, int32_t x1);
// x to the nearest multiple of 2^-exponent, half to even; |exponent| <= 64
LRNN_API int32_t lrnn_engine_round(lrnn_engine* engine, int32_t x, int32_t exponent);
// Mean of all frames so far.
LRNN_API int32_t lrnn_engine_mean_pool(lrnn_engine* engine, int32_t x);
// x - log(sum(exp(x)))
LRNN_API int32_t lrnn_engine_log_softmax(lrnn_engine* engine, int32_t x);

// Nodes of integers, for programs in fixed point; lrnn/program/fixed/numpy_nodes.py says what each computes. x, x0, x1
// are values of integers, |x| within what the caller promises. A shift of s multiplies by 2^-s and rounds; |s| <= 62.

enum lrnn_rounding { LRNN_NEAREST_EVEN = 0, LRNN_NEAREST_UP = 1, LRNN_FLOOR = 2 };

// How sums become a value: rounding of the shift, bits of the value, which saturates, and 32 or 64 bits that provably hold
// the sums, what rounds them added in.
typedef struct lrnn_finish {
    int32_t rounding, bits, accumulator_bits;
} lrnn_finish;

// Reads floats: x * 2^exponent to the nearest, halves to even, saturated.
LRNN_API int32_t lrnn_engine_fixed_quantize(lrnn_engine* engine, int32_t x, int32_t exponent, int32_t bits);
// The only one that makes floats: x * 2^-exponent.
LRNN_API int32_t lrnn_engine_fixed_dequantize(lrnn_engine* engine, int32_t x, int32_t exponent);
LRNN_API int32_t lrnn_engine_fixed_rescale(lrnn_engine* engine, int32_t x, int32_t shift, lrnn_finish finish);
// weight (rows, cols) x + bias (rows), row r shifted by shift[r]; |x| <= x_most.
LRNN_API int32_t lrnn_engine_fixed_linear(lrnn_engine* engine, int32_t x, int32_t rows, int32_t cols,
                                          const int16_t* weight, const int64_t* bias, const int32_t* shift,
                                          int64_t x_most, lrnn_finish finish);
// scale (n) * x + bias (n), number i shifted by shift[i].
LRNN_API int32_t lrnn_engine_fixed_affine(lrnn_engine* engine, int32_t x, int32_t n, const int16_t* scale,
                                          const int64_t* bias, const int32_t* shift, lrnn_finish finish);
// With D = decay (pairs, 2) and s = decay_exponent (pairs): q = D h + rest, h = within(h - floor(q 2^-s) + x shifted by
// x_shift), rest = q mod 2^s; the value is h shifted. h has state_bits.
LRNN_API int32_t lrnn_engine_fixed_diagonal(lrnn_engine* engine, int32_t x, int32_t pairs, const int32_t* decay,
                                            const int32_t* decay_exponent, int32_t x_shift, int32_t state_bits,
                                            int32_t shift, lrnn_finish finish);
// With e = gate_exponent and g within 0 to 2^e: q = g (h - x shifted by x_shift) + rest, h = within(h - floor(q 2^-e)),
// rest = q mod 2^e; the value is h shifted. With a decay (n, 2), which may be null, g (n) counts for both parts of x's
// pairs, and h is first turned as by fixed_diagonal.
LRNN_API int32_t lrnn_engine_fixed_gated(lrnn_engine* engine, int32_t g, int32_t x, int32_t n, const int32_t* decay,
                                         const int32_t* decay_exponent, int32_t gate_exponent, int32_t x_shift,
                                         int32_t state_bits, int32_t shift, lrnn_finish finish);
// Row number x of weight (tokens, n), shifted by shift[x] (tokens). Reads floats: the engine's input, one number.
LRNN_API int32_t lrnn_engine_fixed_embedding(lrnn_engine* engine, int32_t x, int32_t tokens, int32_t n,
                                             const int16_t* weight, const int32_t* shift, lrnn_finish finish);
LRNN_API int32_t lrnn_engine_fixed_relu(lrnn_engine* engine, int32_t x);
LRNN_API int32_t lrnn_engine_fixed_pair_relu(lrnn_engine* engine, int32_t x);
// table (entries) over the range of x, which has x_bits, linear in between.
LRNN_API int32_t lrnn_engine_fixed_table(lrnn_engine* engine, int32_t x, int32_t entries, const int32_t* table,
                                         int32_t x_bits);
// (x - mean) / sqrt(var + eps) * scale (n) + bias (n), the mean taken as zero where it is not `centred`.
LRNN_API int32_t lrnn_engine_fixed_norm(lrnn_engine* engine, int32_t x, int32_t n, const int16_t* scale,
                                        const int64_t* bias, const int32_t* shift, int64_t eps, int32_t centred,
                                        lrnn_finish finish);
// x0 2^left0 + x1 2^left1, shifted.
LRNN_API int32_t lrnn_engine_fixed_add(lrnn_engine* engine, int32_t x0, int32_t x1, int32_t left0, int32_t left1,
                                       int32_t shift, lrnn_finish finish);
LRNN_API int32_t lrnn_engine_fixed_product(lrnn_engine* engine, int32_t x0, int32_t x1, int32_t shift,
                                           lrnn_finish finish);
// Mean of all frames so far, halves up.
LRNN_API int32_t lrnn_engine_fixed_mean_pool(lrnn_engine* engine, int32_t x);

// Makes the plan; nothing can be added afterwards.
LRNN_API int32_t lrnn_engine_finish(lrnn_engine* engine, int32_t output);

// Reports. The strings live as long as the engine.

// Why a call failed, one line; "" where none has.
LRNN_API const char* lrnn_engine_error(const lrnn_engine* engine);
// Numbers in a value; -1 where there is no such value.
LRNN_API int32_t lrnn_engine_width(const lrnn_engine* engine, int32_t value);
// Numbers of four bytes that a stream carries from frame to frame.
LRNN_API int32_t lrnn_engine_state_width(const lrnn_engine* engine);
// Bytes of the tensors of the node that makes `value`, as stored; 0 where it has none.
LRNN_API int64_t lrnn_engine_bytes(const lrnn_engine* engine, int32_t value);
// How the matrix of the node that makes `value` is stored: "dense", "windows", "csr", "tiles"; "" where it has none.
LRNN_API const char* lrnn_engine_kernel(const lrnn_engine* engine, int32_t value);

// Streams. State starts at zero. Null when the engine is not finished or there is no memory.
LRNN_API lrnn_stream* lrnn_stream_new(const lrnn_engine* engine);
LRNN_API void lrnn_stream_free(lrnn_stream* stream);
// One frame: in (input width), out (output width).
LRNN_API int32_t lrnn_stream_step(lrnn_stream* stream, const float* in, float* out);
// A chunk: in (frames, input width), out (frames, output width). Nothing is run when any number in it is not finite or,
// where an embedding reads it, no token's.
LRNN_API int32_t lrnn_stream_run(lrnn_stream* stream, int64_t frames, const float* in, float* out);
LRNN_API void lrnn_stream_reset(lrnn_stream* stream);
// The state, (state width): each remembering node's numbers, in the order in which the nodes were added.
LRNN_API void lrnn_stream_get_state(const lrnn_stream* stream, float* state);
LRNN_API void lrnn_stream_set_state(lrnn_stream* stream, const float* state);
// Where the time goes: runs each operation `repeats` times in a row on the values of the last frame and writes the
// seconds of one go to seconds[value], one entry per value. A fused operation counts for the last of its nodes.
// Works on a copy of the stream, so it allocates.
LRNN_API int32_t lrnn_stream_profile(const lrnn_stream* stream, int32_t repeats, double* seconds);
