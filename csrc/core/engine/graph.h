// The graph an engine is built from: what the nodes compute, with their tensors packed.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "core/aligned.h"
#include "core/engine/fixed_node.h"
#include "core/matvec/matvec.h"

namespace lrnn {

enum class Kind {
    input,
    linear,
    affine,
    diagonal,
    gated,
    embedding,
    relu,
    pair_relu,
    sigmoid,
    silu,
    gelu,
    layer_norm,
    rms_norm,
    add,
    product,
    round,
    mean_pool,
    log_softmax,
    fixed  // of integers
};

enum class Numbers { floats, integers };  // of a value

inline constexpr std::int32_t kNone = -1;

// A node makes the value whose id is its place in the graph; node 0 is the input.
struct Node {
    Kind kind;
    std::int32_t width;
    std::int32_t in = kNone, other = kNone;
    std::vector<std::int32_t> state = {};  // widths of what it carries from frame to frame, in numbers of four bytes
    std::unique_ptr<PackedMatrix> matrix = {};  // linear only: a Matvec, in an engine of tiles a TileMatrix
    AlignedVector<float> a = {}, b = {};    // padded parameters, as the Elementwise loop wants them; empty where there are none
    float scalar = 0.0f;
    Numbers numbers = Numbers::floats;
    std::int32_t tokens = 0;  // how many it knows, where it reads a frame that is one token's number
    std::unique_ptr<FixedNode> fixed = {};  // of Kind::fixed
};

using Graph = std::vector<Node>;

}  // namespace lrnn
