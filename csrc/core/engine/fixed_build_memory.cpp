// The nodes of integers of engine.h that remember.

#include "core/engine/fixed_builder.h"

using namespace lrnn;

namespace {

// From x to the state, and from there to the value.
void take_shifts(Build& build, std::int32_t x_shift, std::int32_t state_bits, std::int32_t shift, lrnn_finish finish) {
    check_between("state_bits", state_bits, 2, 32);
    build.finish(finish);
    const std::int32_t both[] = {x_shift, shift};
    build.expect_shifts(both, 2);
    build.shift(shift);
    build.x_shift(x_shift);
    build.fixed().state_most = most_of(state_bits);
}

void take_decay(Build& build, std::int32_t pairs, const std::int32_t* decay, const std::int32_t* decay_exponent) {
    check_present("decay", decay, pairs);
    check_present("decay_exponent", decay_exponent, pairs);
    FixedNode& node = build.fixed();
    std::vector<std::int64_t> re, im, right;
    for (std::int32_t p = 0; p < pairs; ++p) {
        check_between("decay_exponent", decay_exponent[p], 1, 30);
        re.push_back(decay[2 * p]);
        im.push_back(decay[2 * p + 1]);
        right.push_back(decay_exponent[p]);
    }
    node.decay_re = build.keep(re.data(), pairs, node.arrays64);
    node.decay_im = build.keep(im.data(), pairs, node.arrays64);
    node.decay_right = build.keep(right.data(), pairs, node.arrays64);
}

}  // namespace

std::int32_t lrnn_engine_fixed_diagonal(lrnn_engine* engine, std::int32_t x, std::int32_t pairs,
                                        const std::int32_t* decay, const std::int32_t* decay_exponent,
                                        std::int32_t x_shift, std::int32_t state_bits, std::int32_t shift,
                                        lrnn_finish finish) {
    return guarded(engine, [&] {
        Build build(engine, integer_unary(engine, x));
        if (2 * static_cast<std::int64_t>(pairs) != build.width()) refuse(found("width of x", build.width(), 2LL * pairs));
        take_shifts(build, x_shift, state_bits, shift, finish);
        take_decay(build, pairs, decay, decay_exponent);
        build.node().state = {build.width(), build.width()};
        return build.append_to(engine, build.loops().diagonal[build.wide()]);
    });
}

std::int32_t lrnn_engine_fixed_gated(lrnn_engine* engine, std::int32_t g, std::int32_t x, std::int32_t n,
                                     const std::int32_t* decay, const std::int32_t* decay_exponent,
                                     std::int32_t gate_exponent, std::int32_t x_shift, std::int32_t state_bits,
                                     std::int32_t shift, lrnn_finish finish) {
    return guarded(engine, [&] {
        const bool turned = decay != nullptr;
        if (width_of(engine, "g", g, Numbers::integers) != n) refuse(found("width of g", engine->graph[g].width, n));
        Node node = integer_unary(engine, x);
        if (node.width != std::int64_t{n} * (turned ? 2 : 1))
            refuse(found("width of x", node.width, std::int64_t{n} * (turned ? 2 : 1)));
        node.in = g;
        node.other = x;
        Build build(engine, std::move(node));
        check_between("gate_exponent", gate_exponent, 0, 30);
        take_shifts(build, x_shift, state_bits, shift, finish);
        if (turned) take_decay(build, n, decay, decay_exponent);
        build.fixed().gate_right = gate_exponent;
        build.fixed().part = static_cast<std::uint32_t>(padded(build.width()));
        build.node().state.assign(turned ? 3 : 2, build.width());
        const FixedLoops& loops = build.loops();
        return build.append_to(engine, (turned ? loops.turned_gated : loops.gated)[build.wide()]);
    });
}

std::int32_t lrnn_engine_fixed_mean_pool(lrnn_engine* engine, std::int32_t x) {
    return guarded(engine, [&] {
        Build build(engine, integer_unary(engine, x));
        build.node().state = {2 * (build.width() + 1)};  // int64
        return build.append_to(engine, fixed_mean_pool);
    });
}
