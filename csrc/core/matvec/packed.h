// Packed matrices on their own, behind a C ABI: for products from other languages, and for measuring kernels without a
// caller around them. Engines (core/engine) use matvec.h itself.
#pragma once

#include <stdint.h>

#include "core/api.h"

typedef struct lrnn_matvec lrnn_matvec;

enum lrnn_matvec_precision {
    LRNN_FLOAT32 = 0,
    LRNN_BFLOAT16 = 1,  // weights rounded to bfloat16, float32 sums
    LRNN_W8A16 = 2,     // int8 weights, int16 x, exact sums
    LRNN_W8A8 = 3       // int8 weights, x of -128 to 127, exact sums
};

enum lrnn_matvec_format {
    LRNN_MATVEC_AUTO = 0,    // dense or sparse, as the cost model has it
    LRNN_MATVEC_DENSE = 1,
    LRNN_MATVEC_SPARSE = 2,
    LRNN_MATVEC_EVENT = 3    // by columns: skips those whose x is zero
};

// Packs weight (rows, cols), row-major: float32 for the float precisions, int8 for the others; for the ISA that is active
// now. Null where an argument is out of range, a weight is not finite or there is no memory: *error then says what.
LRNN_API lrnn_matvec* lrnn_matvec_new(int32_t precision, int32_t format, int32_t rows, int32_t cols, const void* weight,
                                      const char** error);
LRNN_API void lrnn_matvec_free(lrnn_matvec* matvec);

LRNN_API int64_t lrnn_matvec_bytes(const lrnn_matvec* matvec);  // all that a product reads of the weights
LRNN_API const char* lrnn_matvec_kernel(const lrnn_matvec* matvec);  // "dense", "windows", "csr" or "event"
// What the cost model expects, in cycles of a Zen 4: dense, sparse, and event-driven per active nonzero weight.
LRNN_API void lrnn_matvec_costs(const lrnn_matvec* matvec, double costs[3]);

// y (rows) = W x (cols); any alignment. Not for two threads at a time: x and y are copied through the matrix's memory.
LRNN_API void lrnn_matvec_floats(lrnn_matvec* matvec, const float* x, float* y);
LRNN_API void lrnn_matvec_integers(lrnn_matvec* matvec, const int16_t* x, int64_t* y);
// Integers between floats: x is rounded to multiples of 1 / x_scale, half to even, and saturated to its width; y is the exact sum
// times row_scale (rows).
LRNN_API void lrnn_matvec_quantized(lrnn_matvec* matvec, const float* x, float x_scale, const float* row_scale,
                                    float* y);

// What lrnn_matvec_time measures: the product alone on an x that is ready (its kernel's form), or with all that is needed
// from float32 x to float32 y: roundings, scales, and sums that were kept in another order.
enum lrnn_matvec_span { LRNN_KERNEL = 0, LRNN_WHOLE = 1 };
// Seconds of one product, from `repeats` in a row on this thread; `density` is the share of x that is not zero.
LRNN_API double lrnn_matvec_time(lrnn_matvec* matvec, int32_t span, double density, int64_t repeats);
// Seconds of one product whose weights are not in a cache: `other` is read first (bytes, 64-byte aligned, larger than all
// caches), then x is made ready as it would be by the operation before. The code is cold, too.
LRNN_API double lrnn_matvec_time_cold(lrnn_matvec* matvec, int32_t span, double density, const uint8_t* other,
                                      int64_t bytes);
// Seconds of one read of `bytes` bytes, 64-byte aligned memory of its own, from `repeats` in a row: the floor of any
// product that reads as many.
LRNN_API double lrnn_read_time(int64_t bytes, int64_t repeats);
