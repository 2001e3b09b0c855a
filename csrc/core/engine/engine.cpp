#include "core/engine/engine.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <new>
#include <stdexcept>
#include <string>

#include "core/engine/flush.h"
#include "core/engine/graph.h"
#include "core/isa.h"
#include "core/engine/plan.h"
#include "core/engine/tile_weights.h"

using namespace lrnn;

struct lrnn_engine {
    Isa isa;
    std::int32_t format;  // lrnn_format
    Graph graph;
    Plan plan;
    bool finished = false;
    std::int32_t output = kNone;
    std::int32_t status = LRNN_OK;  // the first error
    std::string error;
    bool tiled() const { return format == LRNN_FORMAT_TILES; }
};

// The head of one allocation; the numbers of the plan follow it.
struct alignas(kCacheLine) lrnn_stream {
    const lrnn_engine* engine;
    float* base() { return reinterpret_cast<float*>(this + 1); }
    const float* base() const { return reinterpret_cast<const float*>(this + 1); }
};

namespace {

constexpr std::int32_t kLargestWidth = 1 << 24;

[[noreturn]] void refuse(const std::string& message) { throw std::invalid_argument(message); }

std::string found(const std::string& what, std::int64_t is, std::int64_t expected) {
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

void check_width(const char* name, std::int64_t width) {
    if (width < 0 || width > kLargestWidth)
        refuse(std::string(name) + " is " + std::to_string(width) + ", expected 0 to " + std::to_string(kLargestWidth));
}

void check_tensor(const char* name, const float* tensor, std::int64_t n) {
    if (tensor == nullptr && n > 0) refuse(std::string(name) + " is null");
    if (!std::all_of(tensor, tensor + n, [](float v) { return std::isfinite(v); }))
        refuse(std::string(name) + " has NaN or infinite values");
}

AlignedVector<float> padded_copy(const float* tensor, std::int64_t n) {
    AlignedVector<float> copy(static_cast<std::size_t>(padded(n)), 0.0f);
    std::copy(tensor, tensor + n, copy.begin());
    return copy;
}

std::int32_t width_of(const lrnn_engine* engine, const char* name, std::int32_t value) {
    if (value < 0 || static_cast<std::size_t>(value) >= engine->graph.size())
        refuse(std::string(name) + " is " + std::to_string(value) + ", expected the id of one of the " +
               std::to_string(engine->graph.size()) + " values so far");
    return engine->graph[value].width;
}

Node unary(const lrnn_engine* engine, Kind kind, std::int32_t x) {
    Node node{kind, width_of(engine, "x", x)};
    node.in = x;
    return node;
}

Node binary(const lrnn_engine* engine, Kind kind, std::int32_t x0, std::int32_t x1) {
    Node node{kind, width_of(engine, "x0", x0)};
    node.in = x0;
    node.other = x1;
    if (width_of(engine, "x1", x1) != node.width) refuse(found("width of x1", engine->graph[x1].width, node.width));
    return node;
}

Node scaled(const lrnn_engine* engine, Kind kind, std::int32_t x, std::int32_t n, const float* scale,
            const float* shift) {
    Node node = unary(engine, kind, x);
    if (n != node.width) refuse(found("n", n, node.width));
    check_tensor("scale", scale, n);
    check_tensor("shift", shift, n);
    node.a = padded_copy(scale, n);
    node.b = padded_copy(shift, n);
    return node;
}

std::int32_t append(lrnn_engine* engine, Node node) {
    engine->graph.push_back(std::move(node));
    return static_cast<std::int32_t>(engine->graph.size() - 1);
}

std::int32_t append_unary(lrnn_engine* engine, Kind kind, std::int32_t x) {
    return guarded(engine, [&] { return append(engine, unary(engine, kind, x)); });
}

void run_frame(lrnn_stream* stream, const float* in, float* out) noexcept {
    const lrnn_engine& engine = *stream->engine;
    float* base = stream->base();
    std::memcpy(base + engine.plan.input, in, sizeof(float) * engine.graph[0].width);
    for (const Operation& op : engine.plan.operations) op.run(op, base, 1);
    std::memcpy(out, base + engine.plan.output, sizeof(float) * engine.graph[engine.output].width);
}

// Up to kTileFrames frames.
void run_tile(lrnn_stream* stream, std::int32_t frames, const float* in, float* out) noexcept {
    const lrnn_engine& engine = *stream->engine;
    const TileLoops& loops = tile_loops(engine.isa);
    float* base = stream->base();
    loops.pack(in, engine.graph[0].width, frames, base + engine.plan.input);
    for (const Operation& op : engine.plan.operations) op.run(op, base, frames);
    loops.unpack(base + engine.plan.output, engine.graph[engine.output].width, frames, out);
}

}  // namespace

lrnn_engine* lrnn_engine_new(std::int32_t input_width, std::int32_t format) {
    lrnn_engine* engine = new (std::nothrow) lrnn_engine{};
    if (engine == nullptr) return nullptr;
    guarded(engine, [&] {
        engine->isa = active_isa();
        if (format < LRNN_FORMAT_AUTO || format > LRNN_FORMAT_TILES)
            refuse("format is " + std::to_string(format) + ", expected 0 (auto), 1 (dense), 2 (sparse) or 3 (tiles)");
        engine->format = format;
        check_width("input_width", input_width);
        return append(engine, Node{Kind::input, input_width});
    });
    return engine;
}

void lrnn_engine_free(lrnn_engine* engine) { delete engine; }

std::int32_t lrnn_engine_linear(lrnn_engine* engine, std::int32_t x, std::int32_t rows, std::int32_t cols,
                                const float* weight, const float* bias) {
    return guarded(engine, [&] {
        Node node = unary(engine, Kind::linear, x);
        if (cols != node.width) refuse(found("cols", cols, node.width));
        check_width("rows", rows);
        check_tensor("weight", weight, static_cast<std::int64_t>(rows) * cols);
        if (bias != nullptr) {
            check_tensor("bias", bias, rows);
            node.a = padded_copy(bias, rows);
        }
        node.width = rows;
        if (engine->tiled()) node.matrix = std::make_unique<TileMatrix>(weight, rows, cols);
        else node.matrix = pack(weight, rows, cols, engine->isa, static_cast<Format>(engine->format));
        return append(engine, std::move(node));
    });
}

std::int32_t lrnn_engine_affine(lrnn_engine* engine, std::int32_t x, std::int32_t n, const float* scale,
                                const float* shift) {
    return guarded(engine, [&] { return append(engine, scaled(engine, Kind::affine, x, n, scale, shift)); });
}

std::int32_t lrnn_engine_diagonal(lrnn_engine* engine, std::int32_t x, std::int32_t pairs, const float* a) {
    return guarded(engine, [&] {
        Node node = unary(engine, Kind::diagonal, x);
        if (2 * static_cast<std::int64_t>(pairs) != node.width) refuse(found("width of x", node.width, 2LL * pairs));
        check_tensor("a", a, node.width);
        node.state_width = node.width;
        if (engine->tiled()) {
            node.a = tile_powers(a, pairs, tile_loops(engine->isa).lanes);
            return append(engine, std::move(node));
        }
        node.a = padded_copy(a, node.width);
        node.b = node.a;
        for (std::int32_t i = 0; i < node.width; i += 2) {
            node.a[i + 1] = a[i];
            node.b[i] = -a[i + 1];
        }
        return append(engine, std::move(node));
    });
}

std::int32_t lrnn_engine_relu(lrnn_engine* engine, std::int32_t x) { return append_unary(engine, Kind::relu, x); }

std::int32_t lrnn_engine_pair_relu(lrnn_engine* engine, std::int32_t x) {
    return guarded(engine, [&] {
        Node node = unary(engine, Kind::pair_relu, x);
        if (node.width % 2 != 0) refuse(found("width of x modulo 2", 1, 0));
        return append(engine, std::move(node));
    });
}

std::int32_t lrnn_engine_sigmoid(lrnn_engine* engine, std::int32_t x) { return append_unary(engine, Kind::sigmoid, x); }

std::int32_t lrnn_engine_gelu(lrnn_engine* engine, std::int32_t x) { return append_unary(engine, Kind::gelu, x); }

std::int32_t lrnn_engine_layer_norm(lrnn_engine* engine, std::int32_t x, std::int32_t n, const float* scale,
                                    const float* shift, float eps) {
    return guarded(engine, [&] {
        Node node = scaled(engine, Kind::layer_norm, x, n, scale, shift);
        if (!(eps >= 0.0f) || !std::isfinite(eps)) refuse("eps is " + std::to_string(eps) + ", expected >= 0");
        node.scalar = eps;
        return append(engine, std::move(node));
    });
}

std::int32_t lrnn_engine_add(lrnn_engine* engine, std::int32_t x0, std::int32_t x1) {
    return guarded(engine, [&] { return append(engine, binary(engine, Kind::add, x0, x1)); });
}

std::int32_t lrnn_engine_product(lrnn_engine* engine, std::int32_t x0, std::int32_t x1) {
    return guarded(engine, [&] { return append(engine, binary(engine, Kind::product, x0, x1)); });
}

std::int32_t lrnn_engine_round(lrnn_engine* engine, std::int32_t x, std::int32_t exponent) {
    return guarded(engine, [&] {
        Node node = unary(engine, Kind::round, x);
        if (exponent < -64 || exponent > 64)
            refuse("exponent is " + std::to_string(exponent) + ", expected -64 to 64");
        node.scalar = std::ldexp(1.0f, exponent);
        return append(engine, std::move(node));
    });
}

std::int32_t lrnn_engine_mean_pool(lrnn_engine* engine, std::int32_t x) {
    return guarded(engine, [&] {
        Node node = unary(engine, Kind::mean_pool, x);
        node.state_width = node.width + 1;
        return append(engine, std::move(node));
    });
}

std::int32_t lrnn_engine_log_softmax(lrnn_engine* engine, std::int32_t x) {
    return append_unary(engine, Kind::log_softmax, x);
}

std::int32_t lrnn_engine_finish(lrnn_engine* engine, std::int32_t output) {
    return guarded(engine, [&] {
        width_of(engine, "output", output);
        engine->plan = engine->tiled() ? make_plan(engine->graph, output, tile_loops(engine->isa))
                                       : make_plan(engine->graph, output, elementwise(engine->isa));
        engine->output = output;
        engine->finished = true;
        return static_cast<std::int32_t>(LRNN_OK);
    });
}

const char* lrnn_engine_error(const lrnn_engine* engine) { return engine->error.c_str(); }

std::int32_t lrnn_engine_width(const lrnn_engine* engine, std::int32_t value) {
    if (value < 0 || static_cast<std::size_t>(value) >= engine->graph.size()) return -1;
    return engine->graph[value].width;
}

std::int32_t lrnn_engine_state_width(const lrnn_engine* engine) {
    std::int32_t width = 0;
    for (const Node& node : engine->graph) width += node.state_width;
    return width;
}

std::int64_t lrnn_engine_bytes(const lrnn_engine* engine, std::int32_t value) {
    if (value < 0 || static_cast<std::size_t>(value) >= engine->graph.size()) return 0;
    const Node& node = engine->graph[value];
    const std::size_t matrix = node.matrix ? node.matrix->bytes() : 0;
    return static_cast<std::int64_t>(matrix + sizeof(float) * (node.a.size() + node.b.size()));
}

const char* lrnn_engine_kernel(const lrnn_engine* engine, std::int32_t value) {
    if (value < 0 || static_cast<std::size_t>(value) >= engine->graph.size()) return "";
    return engine->graph[value].matrix ? engine->graph[value].matrix->name() : "";
}

lrnn_stream* lrnn_stream_new(const lrnn_engine* engine) {
    if (engine == nullptr || !engine->finished) return nullptr;
    const std::size_t bytes = sizeof(lrnn_stream) + sizeof(float) * static_cast<std::size_t>(engine->plan.size);
    void* memory = ::operator new(bytes, std::align_val_t{kCacheLine}, std::nothrow);
    if (memory == nullptr) return nullptr;
    std::memset(memory, 0, bytes);
    return new (memory) lrnn_stream{engine};
}

void lrnn_stream_free(lrnn_stream* stream) { ::operator delete(stream, std::align_val_t{kCacheLine}); }

std::int32_t lrnn_stream_step(lrnn_stream* stream, const float* in, float* out) {
    return lrnn_stream_run(stream, 1, in, out);
}

std::int32_t lrnn_stream_run(lrnn_stream* stream, std::int64_t frames, const float* in, float* out) {
    if (stream == nullptr || frames < 0 || in == nullptr || out == nullptr) return LRNN_BAD_ARGUMENT;
    const lrnn_engine& engine = *stream->engine;
    const std::int32_t width_in = engine.graph[0].width, width_out = engine.graph[engine.output].width;
    if (!elementwise(engine.isa).all_finite(in, frames * width_in)) return LRNN_NOT_FINITE;
    const FlushDenormals flush;
    for (std::int64_t t = 0; t < frames;) {
        const std::int64_t n = engine.tiled() ? std::min<std::int64_t>(frames - t, kTileFrames) : 1;
        if (engine.tiled()) run_tile(stream, static_cast<std::int32_t>(n), in + t * width_in, out + t * width_out);
        else run_frame(stream, in + t * width_in, out + t * width_out);
        t += n;
    }
    return LRNN_OK;
}

void lrnn_stream_reset(lrnn_stream* stream) {
    for (const Plan::State& state : stream->engine->plan.states)
        std::memset(stream->base() + state.offset, 0, sizeof(float) * state.width);
}

void lrnn_stream_get_state(const lrnn_stream* stream, float* out) {
    for (const Plan::State& state : stream->engine->plan.states) {
        std::memcpy(out, stream->base() + state.offset, sizeof(float) * state.width);
        out += state.width;
    }
}

void lrnn_stream_set_state(lrnn_stream* stream, const float* in) {
    for (const Plan::State& state : stream->engine->plan.states) {
        std::memcpy(stream->base() + state.offset, in, sizeof(float) * state.width);
        in += state.width;
    }
}

std::int32_t lrnn_stream_profile(const lrnn_stream* stream, std::int32_t repeats, double* seconds) {
    if (stream == nullptr || seconds == nullptr || repeats < 1) return LRNN_BAD_ARGUMENT;
    const lrnn_engine& engine = *stream->engine;
    lrnn_stream* copy = lrnn_stream_new(&engine);
    if (copy == nullptr) return LRNN_OUT_OF_MEMORY;
    std::memcpy(copy->base(), stream->base(), sizeof(float) * static_cast<std::size_t>(engine.plan.size));
    std::fill(seconds, seconds + engine.graph.size(), 0.0);
    const FlushDenormals flush;
    const std::int32_t frames = engine.tiled() ? kTileFrames : 1;
    for (const Operation& op : engine.plan.operations) {
        const auto start = std::chrono::steady_clock::now();
        for (std::int32_t i = 0; i < repeats; ++i) op.run(op, copy->base(), frames);
        const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - start;
        seconds[op.value] += spent.count() / repeats / frames;
    }
    lrnn_stream_free(copy);
    return LRNN_OK;
}
