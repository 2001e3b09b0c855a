// Which instruction set the kernels use, chosen once at run time.
//
// Kernels of an ISA stand in files of their own (NAME_avx2.cpp, NAME_avx512.cpp), the only ones compiled with its
// flags; everything else is compiled for the architecture's baseline. Dispatch reads `active_isa()`.
#pragma once

#include "core/api.h"

#ifdef __cplusplus
namespace lrnn {

// avx2: with FMA and F16C; avx512: F, BW, VL and DQ; avx512vnni: avx512 with VBMI and VNNI (Ice Lake, Zen 4 and later);
// neon: with the dot products of Armv8.2. `scalar` is portable C++ compiled for the baseline.
enum class Isa { scalar, avx2, avx512, avx512vnni, neon };

// The best one this machine has, or the one LRNN_ISA or lrnn_isa_select names.
Isa active_isa();

// The ISA whose kernels serve floats on `isa`: avx512vnni adds products of integers only.
inline Isa float_isa(Isa isa) { return isa == Isa::avx512vnni ? Isa::avx512 : isa; }

// Whether this machine multiplies bfloat16 pairs (AVX512_BF16): a feature of its own beside the levels of Isa.
bool has_bf16_dot();

}  // namespace lrnn
#endif

// Name of the active ISA: "scalar", "avx2", "avx512", "avx512vnni" or "neon".
LRNN_API const char* lrnn_isa(void);

// The names this machine can run, worst first, separated by commas.
LRNN_API const char* lrnn_isa_supported(void);

// Why LRNN_ISA was not followed (unknown name, or an ISA this machine lacks; "scalar" is used then), or null.
LRNN_API const char* lrnn_isa_error(void);

// Switches the whole process to the named ISA, or back to the best one where the name is null or empty. Returns null,
// or says why the name was not followed; then nothing changes. Results of different ISAs agree to rounding only.
LRNN_API const char* lrnn_isa_select(const char* name);
