/* The native engine's C interface: build an immutable engine from nodes, then run any number of independent streams.
 *
 *     lrnn_engine *engine = lrnn_engine_new(257);                      // value 0 is the input frame
 *     int h = lrnn_engine_linear(engine, 0, 192, 257, weight, bias);   // every node returns the id of the value it makes
 *     int a = lrnn_engine_relu(engine, h);
 *     if (lrnn_engine_finish(engine, a) != LRNN_OK) puts(lrnn_engine_error(engine));
 *     lrnn_stream *stream = lrnn_stream_new(engine);
 *     while (...) lrnn_stream_step(stream, in, out);
 *     lrnn_stream_free(stream);
 *     lrnn_engine_free(engine);
 *
 * Arrays are float32, row-major and copied; they may be freed after the call. The first error sticks: every later call on
 * that engine returns it too, so that only lrnn_engine_finish needs checking. No call throws, prints or exits.
 * Building belongs to one thread. A finished engine never changes and may be shared by threads; a stream belongs to one
 * thread at a time and never allocates. Free an engine after its streams.
 */
#ifndef LRNN_CORE_ENGINE_H
#define LRNN_CORE_ENGINE_H

#include <stdint.h>

#include "core/api.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct lrnn_engine lrnn_engine;
typedef struct lrnn_stream lrnn_stream;

/* What calls return: LRNN_OK or an id >= 0 on success, else one of the others (lrnn_engine_error has the words). */
enum lrnn_status {
  LRNN_OK = 0,
  LRNN_BAD_GRAPH = -1,     /* an argument does not fit the graph */
  LRNN_OUT_OF_MEMORY = -2,
  LRNN_NOT_FINITE = -3     /* NaN or infinity in an input frame; the stream is as before the call */
};

/* How matrices are stored: the format that is faster for each one's density, or one for all (to compare them). */
enum lrnn_format { LRNN_FORMAT_AUTO = 0, LRNN_FORMAT_DENSE = 1, LRNN_FORMAT_SPARSE = 2 };

/* NULL only when there is no memory. */
LRNN_API lrnn_engine *lrnn_engine_new(int32_t input_width);
LRNN_API void lrnn_engine_free(lrnn_engine *engine);

/* Options, before the first matrix. `isa` is "scalar", "avx2" or "avx512"; the default is the best one this machine has. */
LRNN_API int32_t lrnn_engine_set_format(lrnn_engine *engine, int32_t format);
LRNN_API int32_t lrnn_engine_set_isa(lrnn_engine *engine, const char *isa);

/* Nodes. x, x0, x1 are ids of earlier values; bias may be NULL. Complex values are (re, im) pairs side by side. */
LRNN_API int32_t lrnn_engine_linear(lrnn_engine *engine, int32_t x, int32_t rows, int32_t cols, const float *weight,
                                    const float *bias);                        /* W x + b */
LRNN_API int32_t lrnn_engine_affine(lrnn_engine *engine, int32_t x, int32_t n, const float *scale,
                                    const float *shift);                       /* scale * x + shift */
LRNN_API int32_t lrnn_engine_diagonal(lrnn_engine *engine, int32_t x, int32_t pairs,
                                      const float *a);                         /* h = a h + x, complex */
LRNN_API int32_t lrnn_engine_relu(lrnn_engine *engine, int32_t x);             /* max(x, 0) */
LRNN_API int32_t lrnn_engine_pair_relu(lrnn_engine *engine, int32_t x);        /* a pair stays where re > 0, or re = 0 < im */
LRNN_API int32_t lrnn_engine_sigmoid(lrnn_engine *engine, int32_t x);          /* 1 / (1 + exp(-x)) */
LRNN_API int32_t lrnn_engine_gelu(lrnn_engine *engine, int32_t x);             /* GELU, tanh form */
LRNN_API int32_t lrnn_engine_layer_norm(lrnn_engine *engine, int32_t x, int32_t n, const float *scale,
                                        const float *shift, float eps);
LRNN_API int32_t lrnn_engine_add(lrnn_engine *engine, int32_t x0, int32_t x1);
LRNN_API int32_t lrnn_engine_product(lrnn_engine *engine, int32_t x0, int32_t x1);
LRNN_API int32_t lrnn_engine_round(lrnn_engine *engine, int32_t x, int32_t exponent); /* to multiples of 2^-exponent */
LRNN_API int32_t lrnn_engine_mean_pool(lrnn_engine *engine, int32_t x);        /* mean of all frames so far */
LRNN_API int32_t lrnn_engine_log_softmax(lrnn_engine *engine, int32_t x);

/* Makes the plan; nothing can be added afterwards. */
LRNN_API int32_t lrnn_engine_finish(lrnn_engine *engine, int32_t output);

/* Reports. The strings live as long as the engine. */
LRNN_API const char *lrnn_engine_error(const lrnn_engine *engine);             /* "" where all is well */
LRNN_API const char *lrnn_engine_isa(const lrnn_engine *engine);
LRNN_API int32_t lrnn_engine_width(const lrnn_engine *engine, int32_t value);  /* numbers in a value */
LRNN_API int32_t lrnn_engine_state_width(const lrnn_engine *engine);           /* numbers a stream carries */
LRNN_API int64_t lrnn_engine_bytes(const lrnn_engine *engine, int32_t value);  /* a node's tensors as stored; -1: no such */
LRNN_API const char *lrnn_engine_kernel(const lrnn_engine *engine, int32_t value); /* "dense", "tiles", "csr"; "" if none */

/* Streams. NULL when the engine is not finished, or there is no memory. All state starts at zero. */
LRNN_API lrnn_stream *lrnn_stream_new(const lrnn_engine *engine);
LRNN_API void lrnn_stream_free(lrnn_stream *stream);
LRNN_API int32_t lrnn_stream_step(lrnn_stream *stream, const float *in, float *out);
/* in (frames, input width), out (frames, output width). Nothing is run when any input is not finite. */
LRNN_API int32_t lrnn_stream_run(lrnn_stream *stream, int64_t frames, const float *in, float *out);
LRNN_API void lrnn_stream_reset(lrnn_stream *stream);
/* The state: each remembering node's numbers, in the order in which the nodes were added. */
LRNN_API void lrnn_stream_get_state(const lrnn_stream *stream, float *state);
LRNN_API void lrnn_stream_set_state(lrnn_stream *stream, const float *state);
/* Runs each operation `repeats` times on its own, on a copy of the current state, and adds the seconds of one go to
 * seconds[value], one entry per value. A fused operation counts for its last node. */
LRNN_API void lrnn_stream_profile(const lrnn_stream *stream, int32_t repeats, double *seconds);

#ifdef __cplusplus
}
#endif

#endif
