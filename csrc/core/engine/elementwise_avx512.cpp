#include "core/engine/tile_loops.h"

namespace lrnn {

const Elementwise elementwise_avx512 = kElementwise;
const TileLoops tile_loops_avx512 = kTileLoops;

}  // namespace lrnn
