// What building an engine's nodes takes: the engine itself, and checks that name what is wrong.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <new>
#include <stdexcept>
#include <string>
#include <utility>

#include "core/engine/engine.h"
#include "core/engine/graph.h"
#include "core/engine/plan.h"

struct lrnn_engine {
    lrnn::Isa isa;
    std::int32_t format;  // lrnn_format
    lrnn::Graph graph;
    lrnn::Plan plan;
    bool finished = false;
    bool has_integers = false;  // some node is in fixed point
    std::int32_t tokens = 0;  // how many it knows, where its input frames are tokens' numbers
    std::int32_t output = lrnn::kNone;
    std::int32_t status = LRNN_OK;  // the first error
    std::string error;
    bool tiled() const { return format == LRNN_FORMAT_TILES; }
};

namespace lrnn {

inline constexpr std::int32_t kLargestWidth = 1 << 24;

[[noreturn]] inline void refuse(const std::string& message) { throw std::invalid_argument(message); }

inline std::string found(const std::string& what, std::int64_t is, std::int64_t expected) {
    return what + " is " + std::to_string(is) + ", expected " + std::to_string(expected);
}

// Runs `build`, and turns what it throws into the engine's error.
template <typename Build>
std::int32_t guarded(lrnn_engine* engine, Build build) {
    if (engine == nullptr || engine->finished) return LRNN_BAD_ARGUMENT;
    if (engine->status != LRNN_OK) return engine->status;
    try {
        return build();
    } catch (const std::bad_alloc&) {
        engine->status = LRNN_OUT_OF_MEMORY;
        engine->error = "out of memory";  // short: held inside the string
    } catch (const std::exception& e) {
        engine->status = LRNN_BAD_ARGUMENT;
        engine->error = e.what();
    }
    return engine->status;
}

inline void check_between(const char* name, std::int64_t value, std::int64_t low, std::int64_t high) {
    if (value < low || value > high)
        refuse(std::string(name) + " is " + std::to_string(value) + ", expected " + std::to_string(low) + " to " +
               std::to_string(high));
}

inline void check_width(const char* name, std::int64_t width) { check_between(name, width, 0, kLargestWidth); }

template <typename T>
void check_present(const char* name, const T* tensor, std::int64_t n) {
    if (tensor == nullptr && n > 0) refuse(std::string(name) + " is null");
}

inline void check_tensor(const char* name, const float* tensor, std::int64_t n) {
    check_present(name, tensor, n);
    if (!std::all_of(tensor, tensor + n, [](float v) { return std::isfinite(v); }))
        refuse(std::string(name) + " has NaN or infinite values");
}

template <typename T, typename From>
AlignedVector<T> padded_copy(const From* tensor, std::int64_t n) {
    AlignedVector<T> copy(static_cast<std::size_t>(padded(n)), T{0});
    std::transform(tensor, tensor + n, copy.begin(), [](From v) { return static_cast<T>(v); });
    return copy;
}

inline std::int32_t width_of(const lrnn_engine* engine, const char* name, std::int32_t value) {
    if (value < 0 || static_cast<std::size_t>(value) >= engine->graph.size())
        refuse(std::string(name) + " is " + std::to_string(value) + ", expected the id of one of the " +
               std::to_string(engine->graph.size()) + " values so far");
    return engine->graph[value].width;
}

// The width of a value that must hold floats, or integers.
inline std::int32_t width_of(const lrnn_engine* engine, const char* name, std::int32_t value, Numbers numbers) {
    const std::int32_t width = width_of(engine, name, value);
    if (engine->graph[value].numbers != numbers)
        refuse(std::string(name) + " is " + std::to_string(value) +
               (numbers == Numbers::floats ? ", a value of integers, expected floats"
                                           : ", a value of floats, expected integers"));
    return width;
}

inline Node unary(const lrnn_engine* engine, Kind kind, std::int32_t x, Numbers numbers = Numbers::floats) {
    Node node{kind, width_of(engine, "x", x, numbers)};
    node.numbers = numbers;
    node.in = x;
    return node;
}

inline Node binary(const lrnn_engine* engine, Kind kind, std::int32_t x0, std::int32_t x1,
                   Numbers numbers = Numbers::floats) {
    Node node{kind, width_of(engine, "x0", x0, numbers)};
    node.numbers = numbers;
    node.in = x0;
    node.other = x1;
    if (width_of(engine, "x1", x1, numbers) != node.width)
        refuse(found("width of x1", engine->graph[x1].width, node.width));
    return node;
}

// A node of `n` numbers for one of so many tokens, whose number x, the engine's input, is.
inline Node of_token(const lrnn_engine* engine, Kind kind, std::int32_t x, std::int32_t tokens, std::int32_t n) {
    Node node = unary(engine, kind, x);
    if (x != 0 || node.width != 1) refuse("x is no frame of one number, expected the input of an engine for tokens");
    check_between("tokens", tokens, 1, 1 << 24);
    check_width("n", n);
    node.tokens = tokens;
    node.width = n;
    return node;
}

inline std::int32_t append(lrnn_engine* engine, Node node) {
    if (node.tokens > 0) engine->tokens = engine->tokens > 0 ? std::min(engine->tokens, node.tokens) : node.tokens;
    engine->graph.push_back(std::move(node));
    return static_cast<std::int32_t>(engine->graph.size() - 1);
}

}  // namespace lrnn
