// The nodes of integers of engine.h that forget a frame when the next one comes.

#include <cstdlib>
#include <limits>
#include <memory>

#include "core/engine/fixed_builder.h"

using namespace lrnn;

namespace {

// A product's matrix, in the kernel for its weights and for the magnitude of x, and what its sums need.
void take_matrix(Build& build, const lrnn_engine* engine, const std::int16_t* weight, std::int32_t rows,
                 std::int32_t cols, std::int64_t x_most) {
    FixedNode& node = build.fixed();
    const std::int64_t size = static_cast<std::int64_t>(rows) * cols;
    const bool bytes = std::all_of(weight, weight + size, [](std::int16_t w) { return w >= -127 && w <= 127; });
    std::int64_t scratch = 8 * padded(rows);
    if (bytes && x_most <= std::numeric_limits<std::int16_t>::max()) {
        const std::vector<std::int8_t> small(weight, weight + size);
        const Precision precision = x_most <= 127 ? Precision::w8a8 : Precision::w8a16;
        node.matrix = pack(small.data(), rows, cols, engine->isa, static_cast<Format>(engine->format), precision,
                           x_most);
        scratch += 2 * padded(cols) + padded(static_cast<std::int64_t>(node.matrix->form_bytes()));
        node.finish = node.matrix->is_wide() ? 2 : build.wide() ? 1 : 0;
        if (node.matrix->is_wide()) build.widen();
    } else {
        node.rows = std::make_unique<WideRows>(weight, rows, cols);
        node.finish = 2;
        build.widen();
    }
    node.cols = cols;
    node.scratch = static_cast<std::int32_t>(scratch / 4);
}

}  // namespace

std::int32_t lrnn_engine_fixed_quantize(lrnn_engine* engine, std::int32_t x, std::int32_t exponent, std::int32_t bits) {
    return guarded(engine, [&] {
        check_between("exponent", exponent, -126, 126);
        Build build(engine, unary(engine, Kind::fixed, x));
        build.node().numbers = Numbers::integers;
        build.finish({LRNN_NEAREST_EVEN, bits, 32});
        build.fixed().scalar = std::ldexp(1.0f, exponent);
        return build.append_to(engine, build.loops().quantize);
    });
}

std::int32_t lrnn_engine_fixed_dequantize(lrnn_engine* engine, std::int32_t x, std::int32_t exponent) {
    return guarded(engine, [&] {
        check_between("exponent", exponent, -126, 126);
        Build build(engine, integer_unary(engine, x));
        build.node().numbers = Numbers::floats;
        build.fixed().scalar = std::ldexp(1.0f, -exponent);
        return build.append_to(engine, build.loops().dequantize);
    });
}

std::int32_t lrnn_engine_fixed_rescale(lrnn_engine* engine, std::int32_t x, std::int32_t shift, lrnn_finish finish) {
    return guarded(engine, [&] {
        Build build(engine, integer_unary(engine, x));
        build.finish(finish);
        build.expect_shifts(&shift, 1);
        build.shift(shift);
        return build.append_to(engine, build.loops().rescale[build.wide()]);
    });
}

std::int32_t lrnn_engine_fixed_linear(lrnn_engine* engine, std::int32_t x, std::int32_t rows, std::int32_t cols,
                                      const std::int16_t* weight, const std::int64_t* bias, const std::int32_t* shift,
                                      std::int64_t x_most, lrnn_finish finish) {
    return guarded(engine, [&] {
        Node node = integer_unary(engine, x);
        if (cols != node.width) refuse(found("cols", cols, node.width));
        check_width("rows", rows);
        check_present("weight", weight, static_cast<std::int64_t>(rows) * cols);
        node.width = rows;
        Build build(engine, std::move(node));
        build.finish(finish);
        build.expect_shifts(shift, rows);
        take_matrix(build, engine, weight, rows, cols, x_most);
        build.bias(bias, rows);
        build.shifts(shift, rows);
        return build.append_to(engine, fixed_linear);
    });
}

std::int32_t lrnn_engine_fixed_affine(lrnn_engine* engine, std::int32_t x, std::int32_t n, const std::int16_t* scale,
                                      const std::int64_t* bias, const std::int32_t* shift, lrnn_finish finish) {
    return guarded(engine, [&] {
        Build build(engine, integer_unary(engine, x));
        if (n != build.width()) refuse(found("n", n, build.width()));
        check_present("scale", scale, n);
        build.finish(finish);
        build.expect_shifts(shift, n);
        build.fixed().scale = build.keep(scale, n, build.fixed().arrays32);
        build.bias(bias, n);
        build.shifts(shift, n);
        return build.append_to(engine, build.loops().affine[build.wide()]);
    });
}

std::int32_t lrnn_engine_fixed_embedding(lrnn_engine* engine, std::int32_t x, std::int32_t tokens, std::int32_t n,
                                         const std::int16_t* weight, const std::int32_t* shift, lrnn_finish finish) {
    return guarded(engine, [&] {
        Node node = of_token(engine, Kind::fixed, x, tokens, n);
        check_present("weight", weight, static_cast<std::int64_t>(tokens) * n);
        node.numbers = Numbers::integers;
        Build build(engine, std::move(node));
        build.finish(finish);
        build.expect_shifts(shift, tokens);
        build.fixed().tokens = std::make_unique<TokenRows>(weight, tokens, n, shift, finish.rounding);
        return build.append_to(engine, fixed_embedding);
    });
}

std::int32_t lrnn_engine_fixed_relu(lrnn_engine* engine, std::int32_t x) {
    return guarded(engine, [&] {
        Build build(engine, integer_unary(engine, x));
        return build.append_to(engine, build.loops().relu);
    });
}

std::int32_t lrnn_engine_fixed_pair_relu(lrnn_engine* engine, std::int32_t x) {
    return guarded(engine, [&] {
        Build build(engine, integer_unary(engine, x));
        if (build.width() % 2 != 0) refuse(found("width of x modulo 2", 1, 0));
        return build.append_to(engine, build.loops().pair_relu);
    });
}

std::int32_t lrnn_engine_fixed_table(lrnn_engine* engine, std::int32_t x, std::int32_t entries,
                                     const std::int32_t* table, std::int32_t x_bits) {
    return guarded(engine, [&] {
        Build build(engine, integer_unary(engine, x));
        const std::int32_t segments = entries - 1;
        check_between("x_bits", x_bits, 2, 16);
        if (segments < 2 || (segments & (segments - 1)) != 0 || segments > (1 << x_bits))
            refuse("entries is " + std::to_string(entries) + ", expected a power of two and one more, at most 2^" +
                   std::to_string(x_bits) + " + 1");
        check_present("table", table, entries);
        FixedNode& node = build.fixed();
        node.offset = 1 << (x_bits - 1);
        node.step = x_bits;
        for (std::int32_t s = segments; s > 1; s /= 2) --node.step;
        // Where entries and slopes take 16 bits and their product with what is left of x 31, one word holds both.
        std::vector<std::int32_t> words;
        bool fits = true;
        for (std::int32_t i = 0; i < segments; ++i) {
            const std::int64_t slope = std::int64_t{table[i + 1]} - table[i];
            fits = fits && table[i] == static_cast<std::int16_t>(table[i]) && slope == static_cast<std::int16_t>(slope) &&
                   (std::abs(slope) + 1) << node.step <= std::numeric_limits<std::int32_t>::max();
            words.push_back(static_cast<std::int32_t>(static_cast<std::uint32_t>(slope) << 16 |
                                                      (static_cast<std::uint32_t>(table[i]) & 0xffff)));
        }
        node.table = fits ? build.keep(words.data(), segments, node.arrays32) : build.keep(table, entries, node.arrays32);
        return build.append_to(engine, fits ? build.loops().table : fixed_table);
    });
}

std::int32_t lrnn_engine_fixed_norm(lrnn_engine* engine, std::int32_t x, std::int32_t n, const std::int16_t* scale,
                                    const std::int64_t* bias, const std::int32_t* shift, std::int64_t eps,
                                    std::int32_t centred, lrnn_finish finish) {
    return guarded(engine, [&] {
        Build build(engine, integer_unary(engine, x));
        if (n != build.width()) refuse(found("n", n, build.width()));
        check_present("scale", scale, n);
        check_between("eps", eps, 1, std::numeric_limits<std::int64_t>::max());
        build.finish(finish);
        build.widen();
        FixedNode& node = build.fixed();
        node.scale = build.keep(scale, n, node.arrays32);
        node.eps = eps;
        node.centred = centred != 0;
        node.x_shift64 = shift_by<std::int64_t>(2, finish.rounding);  // tells how the norm itself rounds
        build.bias(bias, n);
        build.shifts(shift, n);
        return build.append_to(engine, build.loops().norm);
    });
}

std::int32_t lrnn_engine_fixed_add(lrnn_engine* engine, std::int32_t x0, std::int32_t x1, std::int32_t left0,
                                   std::int32_t left1, std::int32_t shift, lrnn_finish finish) {
    return guarded(engine, [&] {
        Build build(engine, binary(engine, Kind::fixed, x0, x1, Numbers::integers));
        check_between("left0", left0, 0, kMostShift);
        check_between("left1", left1, 0, kMostShift);
        build.finish(finish);
        const std::int32_t all[] = {left0, left1, shift};
        build.expect_shifts(all, 3);
        build.shift(shift);
        build.fixed().left0 = left0;
        build.fixed().left1 = left1;
        return build.append_to(engine, build.loops().add[build.wide()]);
    });
}

std::int32_t lrnn_engine_fixed_product(lrnn_engine* engine, std::int32_t x0, std::int32_t x1, std::int32_t shift,
                                       lrnn_finish finish) {
    return guarded(engine, [&] {
        Build build(engine, binary(engine, Kind::fixed, x0, x1, Numbers::integers));
        build.finish(finish);
        build.expect_shifts(&shift, 1);
        build.shift(shift);
        return build.append_to(engine, build.loops().product[build.wide()]);
    });
}
