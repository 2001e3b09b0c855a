// Replays what builds an engine from a file that test_arm.py writes, runs the file's frames, and writes the outputs:
// float32 frames in, float32 frames out, on the active ISA. A third argument asks for an engine of tiles.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

#include "core/engine/engine.h"

namespace {

struct Argument {
    std::int64_t number = 0;
    std::vector<char> bytes;  // of an array; one that is absent is a number
    template <typename T>
    const T* array() const {
        return bytes.empty() ? nullptr : reinterpret_cast<const T*>(bytes.data());
    }
};

struct Call {
    std::string name;
    std::vector<Argument> with;  // inputs first
    std::int32_t number(std::size_t i) const { return static_cast<std::int32_t>(with[i].number); }
    const std::int16_t* words(std::size_t i) const { return with[i].array<std::int16_t>(); }
    // Null where there are none.
    const float* floats(std::size_t i) const { return with[i].bytes.empty() ? nullptr : with[i].array<float>(); }
    const std::int32_t* ints(std::size_t i) const { return with[i].array<std::int32_t>(); }
    const std::int64_t* wide(std::size_t i) const { return with[i].array<std::int64_t>(); }
    lrnn_finish finish() const {
        const std::int32_t* three = with.back().array<std::int32_t>();
        return {three[0], three[1], three[2]};
    }
};

std::int64_t read_number(std::istream& in) {
    std::int64_t value = 0;
    in.read(reinterpret_cast<char*>(&value), sizeof value);
    if (!in) std::exit(3);
    return value;
}

std::vector<char> read_bytes(std::istream& in) {
    std::vector<char> bytes(static_cast<std::size_t>(read_number(in)));
    in.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    return bytes;
}

Call read_call(std::istream& in) {
    const std::vector<char> name = read_bytes(in);
    Call call{{name.begin(), name.end()}, {}};
    for (std::int64_t left = read_number(in); left > 0; --left) {
        const bool is_array = read_number(in) != 0;
        Argument argument;
        if (is_array) argument.bytes = read_bytes(in);
        else argument.number = read_number(in);
        call.with.push_back(std::move(argument));
    }
    return call;
}

std::int32_t add_float(lrnn_engine* e, const Call& c, const std::string& op) {
    const std::int32_t x = c.number(0);
    if (op == "linear") return lrnn_engine_linear(e, x, c.number(1), c.number(2), c.floats(3), c.floats(4));
    if (op == "affine") return lrnn_engine_affine(e, x, c.number(1), c.floats(2), c.floats(3));
    if (op == "gated") return lrnn_engine_gated(e, x, c.number(1), c.number(2), c.floats(3));
    if (op == "embedding") return lrnn_engine_embedding(e, x, c.number(1), c.number(2), c.floats(3));
    if (op == "relu") return lrnn_engine_relu(e, x);
    if (op == "sigmoid") return lrnn_engine_sigmoid(e, x);
    if (op == "silu") return lrnn_engine_silu(e, x);
    if (op == "rms_norm") return lrnn_engine_rms_norm(e, x, c.number(1), c.floats(2), *c.floats(3));
    if (op == "layer_norm")
        return lrnn_engine_layer_norm(e, x, c.number(1), c.floats(2), c.floats(3), *c.floats(4));
    if (op == "add") return lrnn_engine_add(e, x, c.number(1));
    if (op == "product") return lrnn_engine_product(e, x, c.number(1));
    std::exit(4);
}

std::int32_t add(lrnn_engine* e, const Call& c) {
    const std::string fixed = "lrnn_engine_fixed_";
    if (c.name.rfind(fixed, 0) != 0) return add_float(e, c, c.name.substr(std::string("lrnn_engine_").size()));
    const std::string op = c.name.substr(fixed.size());
    const std::int32_t x = c.number(0);
    if (op == "quantize") return lrnn_engine_fixed_quantize(e, x, c.number(1), c.number(2));
    if (op == "dequantize") return lrnn_engine_fixed_dequantize(e, x, c.number(1));
    if (op == "rescale") return lrnn_engine_fixed_rescale(e, x, c.number(1), c.finish());
    if (op == "linear")
        return lrnn_engine_fixed_linear(e, x, c.number(1), c.number(2), c.words(3), c.wide(4), c.ints(5),
                                        c.with[6].number, c.finish());
    if (op == "affine")
        return lrnn_engine_fixed_affine(e, x, c.number(1), c.words(2), c.wide(3), c.ints(4), c.finish());
    if (op == "diagonal")
        return lrnn_engine_fixed_diagonal(e, x, c.number(1), c.ints(2), c.ints(3), c.number(4), c.number(5),
                                          c.number(6), c.finish());
    if (op == "gated")
        return lrnn_engine_fixed_gated(e, x, c.number(1), c.number(2), c.ints(3), c.ints(4), c.number(5), c.number(6),
                                       c.number(7), c.number(8), c.finish());
    if (op == "embedding")
        return lrnn_engine_fixed_embedding(e, x, c.number(1), c.number(2), c.words(3), c.ints(4), c.finish());
    if (op == "relu") return lrnn_engine_fixed_relu(e, x);
    if (op == "pair_relu") return lrnn_engine_fixed_pair_relu(e, x);
    if (op == "table") return lrnn_engine_fixed_table(e, x, c.number(1), c.ints(2), c.number(3));
    if (op == "norm")
        return lrnn_engine_fixed_norm(e, x, c.number(1), c.words(2), c.wide(3), c.ints(4), c.with[5].number,
                                      c.number(6), c.finish());
    if (op == "add")
        return lrnn_engine_fixed_add(e, x, c.number(1), c.number(2), c.number(3), c.number(4), c.finish());
    if (op == "product") return lrnn_engine_fixed_product(e, x, c.number(1), c.number(2), c.finish());
    if (op == "mean_pool") return lrnn_engine_fixed_mean_pool(e, x);
    std::exit(4);
}

}  // namespace

int main(int count_of_paths, char** paths) {
    std::ifstream in(paths[1], std::ios::binary);
    const std::int32_t width = static_cast<std::int32_t>(read_number(in));
    lrnn_engine* engine = lrnn_engine_new(width, count_of_paths > 3 ? LRNN_FORMAT_TILES : LRNN_FORMAT_AUTO);
    std::int32_t last = 0;
    for (std::int64_t left = read_number(in); left > 0; --left) last = add(engine, read_call(in));
    const std::vector<char> frames = read_bytes(in);
    if (lrnn_engine_finish(engine, last) < 0) return std::puts(lrnn_engine_error(engine)), 2;
    const std::int64_t count = static_cast<std::int64_t>(frames.size() / sizeof(float)) / width;
    std::vector<float> out(static_cast<std::size_t>(count) * lrnn_engine_width(engine, last));
    lrnn_stream* stream = lrnn_stream_new(engine);
    lrnn_stream_run(stream, count, reinterpret_cast<const float*>(frames.data()), out.data());
    std::ofstream(paths[2], std::ios::binary)
        .write(reinterpret_cast<const char*>(out.data()), static_cast<std::streamsize>(sizeof(float) * out.size()));
    lrnn_stream_free(stream);
    lrnn_engine_free(engine);
    return 0;
}
