#include "core/engine/elementwise_loops.h"

namespace lrnn {

const Elementwise elementwise_avx2 = kElementwise;

}  // namespace lrnn
