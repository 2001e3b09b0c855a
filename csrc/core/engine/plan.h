// From a graph to the operations of a frame and the memory they run in.
#pragma once

#include <cstdint>
#include <vector>

#include "core/engine/elementwise.h"
#include "core/engine/graph.h"
#include "core/engine/operation.h"
#include "core/engine/tile.h"

namespace lrnn {

// Offsets and `size` count numbers of four bytes. Points into the graph that it was made from.
struct Plan {
    struct State {
        std::uint32_t offset;
        std::int32_t width;
    };
    std::vector<Operation> operations;
    std::vector<State> states;  // of the remembering nodes, in the graph's order
    std::uint32_t input, output;
    std::uint64_t size;
};

// For single frames, or for tiles, of a graph whose matrices are packed for that. States stand at the same offsets in both.
// Throws std::length_error where a stream would need more memory than offsets can tell.
Plan make_plan(const Graph& graph, std::int32_t output, const Elementwise& loops);
Plan make_plan(const Graph& graph, std::int32_t output, const TileLoops& loops);

}  // namespace lrnn
