#include "core/engine/fixed.h"

#include "core/engine/fixed_loops.h"

namespace lrnn {

const FixedLoops fixed_loops_scalar = kFixedLoops;

const FixedLoops& fixed_loops([[maybe_unused]] Isa isa) {
#if defined(__x86_64__) || defined(_M_X64)
    if (float_isa(isa) == Isa::avx512) return fixed_loops_avx512;
    if (isa == Isa::avx2) return fixed_loops_avx2;
#endif
    return fixed_loops_scalar;
}

}  // namespace lrnn
