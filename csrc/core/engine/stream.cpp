// Streams: memory of their own for an engine's plan.

#include <chrono>
#include <cstring>
#include <optional>

#include "core/engine/build.h"
#include "core/engine/flush.h"

using namespace lrnn;

// The head of one allocation; the numbers of the plan follow it.
struct alignas(kCacheLine) lrnn_stream {
    const lrnn_engine* engine;
    float* base() { return reinterpret_cast<float*>(this + 1); }
    const float* base() const { return reinterpret_cast<const float*>(this + 1); }
};

namespace {

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

bool are_tokens(const float* in, std::int64_t n, std::int32_t tokens) {
    const float end = static_cast<float>(tokens);
    return std::all_of(in, in + n, [end](float x) { return x >= 0.0f && x < end && x == std::floor(x); });
}

// Floats at the ends of integers are what numpy makes of them, denormal or not.
std::optional<FlushDenormals> flushing(const lrnn_engine& engine) {
    return engine.has_integers ? std::nullopt : std::optional<FlushDenormals>(std::in_place);
}

}  // namespace

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
    if (engine.tokens > 0 && !are_tokens(in, frames, engine.tokens)) return LRNN_NOT_A_TOKEN;
    const std::optional<FlushDenormals> flush = flushing(engine);
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
    const std::optional<FlushDenormals> flush = flushing(engine);
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
