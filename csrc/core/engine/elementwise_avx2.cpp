#include "core/engine/tile_loops.h"

namespace lrnn {

const Elementwise elementwise_avx2 = kElementwise;
const TileLoops tile_loops_avx2 = kTileLoops;

}  // namespace lrnn
