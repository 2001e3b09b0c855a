#include "core/engine/plan.h"

#include <limits>
#include <map>
#include <stdexcept>

#include "core/engine/tile_weights.h"

namespace lrnn {
namespace {

// A node as it will run: with what was fused into it.
struct Step {
    std::int32_t node;                 // makes this value
    std::int32_t in, other;            // reads these
    std::int32_t matrix = kNone;       // the linear node whose product is added to `other`
    Kind gate = Kind::product;         // of a product whose `other` goes through this function first
};

std::vector<std::int32_t> count_readers(const Graph& graph, std::int32_t output) {
    std::vector<std::int32_t> readers(graph.size(), 0);
    for (const Node& node : graph)
        for (std::int32_t value : {node.in, node.other})
            if (value != kNone) ++readers[value];
    ++readers[output];
    return readers;
}

// The operand of a two-input node that is of `kind` and read by nothing else, or kNone.
std::int32_t fusible(const Graph& graph, const std::vector<std::int32_t>& readers, const Node& node, Kind kind) {
    for (std::int32_t value : {node.in, node.other})
        if (graph[value].kind == kind && readers[value] == 1) return value;
    return kNone;
}

// add(linear, v) becomes one product that starts from v; product(v, sigmoid) one gate, and so with SiLU and ReLU. The
// fused node runs where the later one stands.
std::vector<Step> fuse(const Graph& graph, std::int32_t output) {
    const std::vector<std::int32_t> readers = count_readers(graph, output);
    std::vector<bool> fused(graph.size(), false);
    std::vector<Step> steps(graph.size());
    for (std::size_t i = 1; i < graph.size(); ++i) {
        const Node& node = graph[i];
        steps[i] = {static_cast<std::int32_t>(i), node.in, node.other};
        if (node.kind == Kind::linear) steps[i].matrix = steps[i].node;
        std::int32_t operand = kNone;
        if (node.kind == Kind::add) operand = fusible(graph, readers, node, Kind::linear);
        if (node.kind == Kind::product)
            for (Kind function : {Kind::sigmoid, Kind::silu, Kind::relu})
                if (operand == kNone) operand = fusible(graph, readers, node, function);
        if (operand == kNone) continue;
        const std::int32_t rest = node.in == operand ? node.other : node.in;
        fused[operand] = true;
        if (node.kind == Kind::add)
            steps[i] = {steps[i].node, graph[operand].in, rest, operand};
        else
            steps[i] = {steps[i].node, rest, graph[operand].in, kNone, graph[operand].kind};
    }
    std::vector<Step> kept;
    for (std::size_t i = 1; i < graph.size(); ++i)
        if (!fused[i]) kept.push_back(steps[i]);
    return kept;
}

// Memory for values of `frames` frames: what is no longer read makes room for what comes.
class Buffers {
public:
    Buffers(std::uint64_t start, std::int32_t frames) : frames_(frames), end_(start) {}

    std::uint32_t take(std::int32_t width) {
        const std::int64_t room = room_for(width);
        if (auto it = free_.find(room); it != free_.end()) {
            const std::uint32_t offset = it->second;
            free_.erase(it);
            return offset;
        }
        const std::uint64_t offset = end_;
        end_ += room;
        if (end_ > std::numeric_limits<std::uint32_t>::max()) throw std::length_error("a stream needs over 16 GiB");
        return static_cast<std::uint32_t>(offset);
    }
    void give(std::uint32_t offset, std::int32_t width) { free_.emplace(room_for(width), offset); }
    std::uint64_t end() const { return end_; }

private:
    std::int64_t room_for(std::int32_t width) const { return padded(std::int64_t{width > 0 ? width : 1} * frames_); }
    std::int32_t frames_;
    std::uint64_t end_;
    std::multimap<std::int64_t, std::uint32_t> free_;
};

Elementwise::Run gate_of(Kind function, const Elementwise& loops) {
    switch (function) {
        case Kind::sigmoid: return loops.sigmoid_gate;
        case Kind::silu: return loops.silu_gate;
        case Kind::relu: return loops.relu_gate;
        default: return loops.product;
    }
}

Elementwise::Run loop_of(const Step& step, const Node& node, const Elementwise& loops) {
    switch (node.kind) {
        case Kind::affine: return loops.affine;
        case Kind::diagonal: return loops.diagonal;
        case Kind::gated: return node.a.empty() ? loops.gated : loops.turned_gated;
        case Kind::embedding: return loops.embedding;
        case Kind::relu: return loops.relu;
        case Kind::pair_relu: return loops.pair_relu;
        case Kind::sigmoid: return loops.sigmoid;
        case Kind::silu: return loops.silu;
        case Kind::gelu: return loops.gelu;
        case Kind::layer_norm: return loops.layer_norm;
        case Kind::rms_norm: return loops.rms_norm;
        case Kind::add: return loops.add;
        case Kind::product: return gate_of(step.gate, loops);
        case Kind::round: return loops.round;
        case Kind::mean_pool: return loops.mean_pool;
        case Kind::log_softmax: return loops.log_softmax;
        case Kind::input:
        case Kind::linear:
        case Kind::fixed: break;  // no loop: input is copied by the stream, linear is `multiply`, fixed nodes know theirs
    }
    return nullptr;
}

void multiply(const Operation& op, float* base, std::int32_t) noexcept {
    static_cast<const Matvec*>(op.matrix)->multiply_add(base + op.in, base + op.out);
}

void multiply_tile(const Operation& op, float* base, std::int32_t) noexcept {
    static_cast<const TileMatrix*>(op.matrix)->multiply(base + op.in, nullptr, op.a, base + op.out);
}

void multiply_add_tile(const Operation& op, float* base, std::int32_t) noexcept {
    static_cast<const TileMatrix*>(op.matrix)->multiply(base + op.in, base + op.other, op.a, base + op.out);
}

void emit_fixed(const Node& node, Operation op, Buffers& values, Plan& plan) {
    op.run = node.fixed->run;
    op.fixed = node.fixed.get();
    if (node.state.size() > 1 && node.other == kNone) op.other = static_cast<std::uint32_t>(padded(node.state[0]));  // from its first part to the second
    const std::int32_t scratch = node.fixed->scratch;
    if (scratch > 0) op.other = values.take(scratch);
    plan.operations.push_back(op);
    if (scratch > 0) values.give(op.other, scratch);
}

void emit_tile_product(const Step& step, const Node& linear, Operation op, Plan& plan) {
    op.run = step.other == kNone ? multiply_tile : multiply_add_tile;
    op.a = linear.a.empty() ? nullptr : linear.a.data();
    op.matrix = linear.matrix.get();
    plan.operations.push_back(op);
}

// The operations of a product with one frame: out = other or zeros, out += bias, out += W in. Rows that the matrix keeps in another
// order are multiplied into memory of their own and added from there to where they belong.
void emit_product(const Step& step, const Node& linear, Operation op, const Elementwise& loops, Buffers& values,
                  Plan& plan) {
    const bool bias = !linear.a.empty();
    auto emit = [&](Elementwise::Run run, std::uint32_t in) {
        plan.operations.push_back(op);
        plan.operations.back().run = run;
        plan.operations.back().in = in;
    };
    op.a = linear.a.data();
    op.matrix = linear.matrix.get();
    if (step.other == kNone) {
        emit(bias ? loops.load : loops.clear, op.in);
    } else {
        if (op.out != op.other) emit(loops.copy, op.other);
        if (bias) emit(loops.accumulate, op.in);
    }
    const std::span<const std::int32_t> order = static_cast<const Matvec*>(linear.matrix.get())->order();
    if (order.empty()) {
        emit(multiply, op.in);
        return;
    }
    const std::uint32_t x = op.in, out = op.out;
    op.n = static_cast<std::int32_t>(order.size());
    const std::uint32_t scratch = values.take(op.n);
    op.out = scratch;
    emit(loops.clear, x);
    emit(multiply, x);
    op.order = order.data();
    op.out = out;
    emit(loops.scatter, scratch);
    values.give(scratch, op.n);
}

// `frames` is 1 or kTileFrames.
Plan make_plan(const Graph& graph, std::int32_t output, const Elementwise& loops, std::int32_t frames) {
    Plan plan{};
    std::vector<std::uint32_t> state_of(graph.size(), 0), offset(graph.size(), 0);
    Buffers states(0, 1);
    for (std::size_t i = 0; i < graph.size(); ++i) {
        state_of[i] = static_cast<std::uint32_t>(states.end());
        for (std::int32_t width : graph[i].state) plan.states.push_back({states.take(width), width});
    }

    const std::vector<Step> steps = fuse(graph, output);
    std::vector<std::size_t> last_use(graph.size(), 0);
    for (std::size_t s = 0; s < steps.size(); ++s)
        for (std::int32_t value : {steps[s].in, steps[s].other})
            if (value != kNone) last_use[value] = s;
    last_use[output] = steps.size();

    Buffers values(states.end(), frames);
    plan.input = offset[0] = values.take(graph[0].width);
    for (std::size_t s = 0; s < steps.size(); ++s) {
        const Step& step = steps[s];
        const Node& node = graph[step.node];
        const bool product = step.matrix != kNone;
        // A loop may write where it reads for the last time; a product must not write over its own x.
        auto reusable = [&](std::int32_t value) {
            return value != kNone && last_use[value] == s && graph[value].width == node.width;
        };
        std::int32_t reused = kNone;
        if (reusable(step.other) && !(product && step.other == step.in))
            reused = step.other;
        else if (!product && reusable(step.in))
            reused = step.in;
        offset[step.node] = reused != kNone ? offset[reused] : values.take(node.width);

        Operation op{};
        op.in = offset[step.in];
        op.other = step.other != kNone ? offset[step.other] : 0;
        op.out = offset[step.node];
        op.state = state_of[step.node];
        op.n = node.width;
        op.value = step.node;
        if (node.fixed) {
            emit_fixed(node, op, values, plan);
        } else if (product && frames > 1) {
            emit_tile_product(step, graph[step.matrix], op, plan);
        } else if (product) {
            emit_product(step, graph[step.matrix], op, loops, values, plan);
        } else {
            op.run = loop_of(step, node, loops);
            op.a = node.a.data();
            op.b = node.b.data();
            op.scalar = node.scalar;
            plan.operations.push_back(op);
        }

        auto release = [&](std::int32_t value) {
            if (value != kNone && value != reused && last_use[value] == s)
                values.give(offset[value], graph[value].width);
        };
        release(step.in);
        if (step.other != step.in) release(step.other);
    }
    plan.output = offset[output];
    plan.size = values.end();
    return plan;
}

}  // namespace

Plan make_plan(const Graph& graph, std::int32_t output, const Elementwise& loops) {
    return make_plan(graph, output, loops, 1);
}

Plan make_plan(const Graph& graph, std::int32_t output, const TileLoops& loops) {
    return make_plan(graph, output, loops.loops, kTileFrames);
}

}  // namespace lrnn
