#include "core/engine/elementwise_loops.h"

namespace lrnn {

const Elementwise elementwise_avx512 = kElementwise;

}  // namespace lrnn
