#include "core/engine/fixed_loops.h"

namespace lrnn {

const FixedLoops fixed_loops_avx2 = kFixedLoops;

}  // namespace lrnn
