#include "core/engine/elementwise.h"

#include "core/engine/tile_loops.h"

namespace lrnn {

const Elementwise elementwise_scalar = kElementwise;
const TileLoops tile_loops_scalar = kTileLoops;

const Elementwise& elementwise([[maybe_unused]] Isa isa) {
#if defined(__x86_64__) || defined(_M_X64)
    if (float_isa(isa) == Isa::avx512) return elementwise_avx512;
    if (isa == Isa::avx2) return elementwise_avx2;
#endif
    return elementwise_scalar;
}

const TileLoops& tile_loops([[maybe_unused]] Isa isa) {
#if defined(__x86_64__) || defined(_M_X64)
    if (float_isa(isa) == Isa::avx512) return tile_loops_avx512;
    if (isa == Isa::avx2) return tile_loops_avx2;
#endif
    return tile_loops_scalar;
}

}  // namespace lrnn
