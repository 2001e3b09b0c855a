#include "core/engine/engine.h"

#include "core/engine/build.h"
#include "core/engine/tile_weights.h"

using namespace lrnn;

namespace {

Node scaled(const lrnn_engine* engine, Kind kind, std::int32_t x, std::int32_t n, const float* scale,
            const float* shift) {
    Node node = unary(engine, kind, x);
    if (n != node.width) refuse(found("n", n, node.width));
    check_tensor("scale", scale, n);
    check_tensor("shift", shift, n);
    node.a = padded_copy<float>(scale, n);
    node.b = padded_copy<float>(shift, n);
    return node;
}

void check_eps(float eps) {
    if (!(eps >= 0.0f) || !std::isfinite(eps)) refuse("eps is " + std::to_string(eps) + ", expected >= 0");
}

// (n, 2) to its columns, or so that a complex product is a h + b (h with its parts swapped).
void split_rotation(const float* rotation, std::int32_t n, bool columns, Node& node) {
    node.a = padded_copy<float>(rotation, columns ? n : 2 * n);
    node.b = node.a;
    for (std::int32_t i = 0; i < n; ++i) {
        const float re = rotation[2 * i], im = rotation[2 * i + 1];
        if (columns) {
            node.a[i] = re;
            node.b[i] = im;
        } else {
            node.a[2 * i] = node.a[2 * i + 1] = re;
            node.b[2 * i] = -im;
            node.b[2 * i + 1] = im;
        }
    }
}

std::int32_t append_unary(lrnn_engine* engine, Kind kind, std::int32_t x) {
    return guarded(engine, [&] { return append(engine, unary(engine, kind, x)); });
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
            node.a = padded_copy<float>(bias, rows);
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
        node.state = {node.width};
        if (engine->tiled()) {
            node.a = tile_powers(a, pairs, tile_loops(engine->isa).lanes);
            return append(engine, std::move(node));
        }
        split_rotation(a, pairs, false, node);
        return append(engine, std::move(node));
    });
}

std::int32_t lrnn_engine_gated(lrnn_engine* engine, std::int32_t g, std::int32_t x, std::int32_t size,
                               const float* rotation) {
    return guarded(engine, [&] {
        const std::int64_t width = rotation == nullptr ? size : 2LL * size;
        Node node = unary(engine, Kind::gated, x);
        if (node.width != width) refuse(found("width of x", node.width, width));
        node.in = g;
        node.other = x;
        if (width_of(engine, "g", g, Numbers::floats) != size) refuse(found("width of g", engine->graph[g].width, size));
        node.state = {node.width};
        if (rotation != nullptr) {
            check_tensor("rotation", rotation, width);
            split_rotation(rotation, size, engine->tiled(), node);
        }
        return append(engine, std::move(node));
    });
}

std::int32_t lrnn_engine_embedding(lrnn_engine* engine, std::int32_t x, std::int32_t tokens, std::int32_t n,
                                   const float* weight) {
    return guarded(engine, [&] {
        Node node = of_token(engine, Kind::embedding, x, tokens, n);
        check_tensor("weight", weight, static_cast<std::int64_t>(tokens) * n);
        node.a = padded_copy<float>(weight, static_cast<std::int64_t>(tokens) * n);
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

std::int32_t lrnn_engine_silu(lrnn_engine* engine, std::int32_t x) { return append_unary(engine, Kind::silu, x); }

std::int32_t lrnn_engine_gelu(lrnn_engine* engine, std::int32_t x) { return append_unary(engine, Kind::gelu, x); }

std::int32_t lrnn_engine_layer_norm(lrnn_engine* engine, std::int32_t x, std::int32_t n, const float* scale,
                                    const float* shift, float eps) {
    return guarded(engine, [&] {
        Node node = scaled(engine, Kind::layer_norm, x, n, scale, shift);
        check_eps(eps);
        node.scalar = eps;
        return append(engine, std::move(node));
    });
}

std::int32_t lrnn_engine_rms_norm(lrnn_engine* engine, std::int32_t x, std::int32_t n, const float* scale,
                                  float eps) {
    return guarded(engine, [&] {
        Node node = unary(engine, Kind::rms_norm, x);
        if (n != node.width) refuse(found("n", n, node.width));
        check_tensor("scale", scale, n);
        check_eps(eps);
        node.a = padded_copy<float>(scale, n);
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
        node.state = {node.width + 1};
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
    for (const Node& node : engine->graph)
        for (std::int32_t part : node.state) width += part;
    return width;
}

std::int64_t lrnn_engine_bytes(const lrnn_engine* engine, std::int32_t value) {
    if (value < 0 || static_cast<std::size_t>(value) >= engine->graph.size()) return 0;
    const Node& node = engine->graph[value];
    const std::size_t integers = node.fixed ? node.fixed->bytes() : 0;
    const std::size_t matrix = node.matrix ? node.matrix->bytes() : 0;
    return static_cast<std::int64_t>(integers + matrix + sizeof(float) * (node.a.size() + node.b.size()));
}

const char* lrnn_engine_kernel(const lrnn_engine* engine, std::int32_t value) {
    if (value < 0 || static_cast<std::size_t>(value) >= engine->graph.size()) return "";
    const Node& node = engine->graph[value];
    if (node.fixed && node.fixed->matrix) return node.fixed->matrix->name();
    if (node.fixed && node.fixed->rows) return node.fixed->rows->name();
    return node.matrix ? node.matrix->name() : "";
}
