#include "core/matvec/packed.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <exception>
#include <memory>
#include <span>
#include <string>

#include "core/aligned.h"
#include "core/matvec/form.h"
#include "core/matvec/matvec.h"

using namespace lrnn;

struct lrnn_matvec {
    Precision precision;
    std::int32_t rows, cols;
    std::unique_ptr<Matvec> floats;
    std::unique_ptr<IntegerMatvec> integers;
    AlignedVector<float> x, y, scale;
    AlignedVector<float> sorted;  // y in the order in which the matrix keeps its rows, where that is another
    AlignedVector<std::int16_t> words;
    AlignedVector<std::uint8_t> form;
    AlignedVector<std::int64_t> sums;  // or as many int32

    const PackedMatrix& matrix() const {
        return floats ? static_cast<const PackedMatrix&>(*floats) : static_cast<const PackedMatrix&>(*integers);
    }
};

namespace {

constexpr std::int32_t kMostRowsOrColumns = 1 << 16;

std::string checked(std::int32_t precision, std::int32_t format, std::int32_t rows, std::int32_t cols,
                    const void* weight) {
    const auto outside = [](const char* name, std::int64_t is, std::int64_t least, std::int64_t most) {
        return std::string(name) + " is " + std::to_string(is) + ", expected " + std::to_string(least) + " to " +
               std::to_string(most);
    };
    if (precision < LRNN_FLOAT32 || precision > LRNN_W8A8) return outside("precision", precision, 0, 3);
    if (format < LRNN_MATVEC_AUTO || format > LRNN_MATVEC_EVENT) return outside("format", format, 0, 3);
    if (rows < 0 || rows > kMostRowsOrColumns) return outside("rows", rows, 0, kMostRowsOrColumns);
    if (cols < 0 || cols > kMostRowsOrColumns) return outside("cols", cols, 0, kMostRowsOrColumns);
    const std::int64_t size = static_cast<std::int64_t>(rows) * cols;
    if (weight == nullptr && size > 0) return "weight is null";
    if (precision == LRNN_FLOAT32 || precision == LRNN_BFLOAT16) {
        const float* w = static_cast<const float*>(weight);
        if (!std::all_of(w, w + size, [](float v) { return std::isfinite(v); }))
            return "weight has NaN or infinite values";
    }
    return {};
}

void allocate(lrnn_matvec& m) {
    m.x.assign(padded(std::max(m.cols, 1)), 0.0f);
    m.y.assign(padded(std::max(m.rows, 1)), 0.0f);
    if (m.floats && !m.floats->order().empty()) m.sorted.assign(padded(std::max(m.rows, 1)), 0.0f);
    if (!m.integers) return;
    m.words.assign(padded(std::max(m.cols, 1)), 0);
    m.form.assign(m.integers->form_bytes() + 64, 0);
    m.sums.assign(padded(std::max(m.rows, 1)), 0);
    m.scale.assign(padded(std::max(m.rows, 1)), 1.0f);
}

void multiply_floats(lrnn_matvec& m) {
    std::fill(m.y.begin(), m.y.end(), 0.0f);
    if (m.sorted.empty()) return m.floats->multiply_add(m.x.data(), m.y.data());
    std::fill(m.sorted.begin(), m.sorted.end(), 0.0f);
    m.floats->multiply_add(m.x.data(), m.sorted.data());
    const std::span<const std::int32_t> order = m.floats->order();
    for (std::size_t i = 0; i < order.size(); ++i) m.y[order[i]] = m.sorted[i];
}

void multiply_integers(lrnn_matvec& m) { m.integers->multiply(m.form.data(), m.sums.data()); }

void quantized(lrnn_matvec& m, const float* x, float x_scale, const float* row_scale, float* y) {
    const FormLoops& loops = form_loops();
    loops.to_words(x, m.cols, x_scale, m.precision == Precision::w8a16 ? 32767 : 127, m.words.data());
    m.integers->prepare(m.words.data(), m.form.data());
    multiply_integers(m);
    if (m.integers->is_wide())
        loops.from_wide(m.sums.data(), m.rows, row_scale, y);
    else
        loops.from_narrow(reinterpret_cast<const std::int32_t*>(m.sums.data()), m.rows, row_scale, y);
}

template <typename F>
double seconds(std::int64_t repeats, F f) {
    const auto start = std::chrono::steady_clock::now();
    for (std::int64_t i = 0; i < repeats; ++i) f();
    const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - start;
    return spent.count() / static_cast<double>(repeats);
}

// Numbers without a pattern, as reproducible as they need to be; `density` of them not zero.
void fill_x(lrnn_matvec& m, double density) {
    std::uint32_t state = 1;
    const auto next = [&state] {
        state = state * 1664525u + 1013904223u;
        return static_cast<double>(state >> 8) / (1 << 24);
    };
    for (std::int32_t i = 0; i < m.cols; ++i) m.x[i] = next() < density ? static_cast<float>(2 * next() - 1) : 0.0f;
}

// Seconds of one product on the x that `fill_x` left, from `repeats` in a row.
double spent(lrnn_matvec& m, std::int32_t span, std::int64_t repeats) {
    if (m.floats) {
        if (span == LRNN_WHOLE) return seconds(repeats, [&] { multiply_floats(m); });
        float* y = m.sorted.empty() ? m.y.data() : m.sorted.data();
        std::fill_n(y, m.rows, 0.0f);
        return seconds(repeats, [&] { m.floats->multiply_add(m.x.data(), y); });
    }
    const float most = m.precision == Precision::w8a16 ? 32767.0f : 127.0f;
    if (span == LRNN_WHOLE)
        return seconds(repeats, [&] { quantized(m, m.x.data(), most, m.scale.data(), m.y.data()); });
    form_loops().to_words(m.x.data(), m.cols, most, most, m.words.data());
    m.integers->prepare(m.words.data(), m.form.data());
    return seconds(repeats, [&] { multiply_integers(m); });
}

}  // namespace

lrnn_matvec* lrnn_matvec_new(std::int32_t precision, std::int32_t format, std::int32_t rows, std::int32_t cols,
                             const void* weight, const char** error) {
    thread_local std::string message;
    message = checked(precision, format, rows, cols, weight);
    try {
        if (message.empty()) {
            auto m = std::make_unique<lrnn_matvec>();
            m->precision = static_cast<Precision>(precision);
            m->rows = rows;
            m->cols = cols;
            const Isa isa = active_isa();
            const Format how = static_cast<Format>(format);
            if (m->precision == Precision::float32 || m->precision == Precision::bfloat16)
                m->floats = pack(static_cast<const float*>(weight), rows, cols, isa, how, m->precision);
            else
                m->integers = pack(static_cast<const std::int8_t*>(weight), rows, cols, isa, how, m->precision,
                                   m->precision == Precision::w8a16 ? 1 << 15 : 1 << 7);
            allocate(*m);
            return m.release();
        }
    } catch (const std::exception& e) {
        message = std::string("packing failed: ") + e.what();
    }
    if (error != nullptr) *error = message.c_str();
    return nullptr;
}

void lrnn_matvec_free(lrnn_matvec* matvec) { delete matvec; }

std::int64_t lrnn_matvec_bytes(const lrnn_matvec* matvec) { return static_cast<std::int64_t>(matvec->matrix().bytes()); }

const char* lrnn_matvec_kernel(const lrnn_matvec* matvec) { return matvec->matrix().name(); }

void lrnn_matvec_costs(const lrnn_matvec* matvec, double costs[3]) {
    const Costs& c = matvec->matrix().costs;
    costs[0] = c.dense, costs[1] = c.sparse, costs[2] = c.event;
}

void lrnn_matvec_floats(lrnn_matvec* matvec, const float* x, float* y) {
    lrnn_matvec& m = *matvec;
    std::copy_n(x, m.cols, m.x.begin());
    multiply_floats(m);
    std::copy_n(m.y.begin(), m.rows, y);
}

void lrnn_matvec_integers(lrnn_matvec* matvec, const std::int16_t* x, std::int64_t* y) {
    lrnn_matvec& m = *matvec;
    m.integers->prepare(x, m.form.data());
    multiply_integers(m);
    if (m.integers->is_wide())
        std::copy_n(m.sums.begin(), m.rows, y);
    else
        std::copy_n(reinterpret_cast<const std::int32_t*>(m.sums.data()), m.rows, y);
}

void lrnn_matvec_quantized(lrnn_matvec* matvec, const float* x, float x_scale, const float* row_scale, float* y) {
    quantized(*matvec, x, x_scale, row_scale, y);
}

double lrnn_matvec_time(lrnn_matvec* matvec, std::int32_t span, double density, std::int64_t repeats) {
    fill_x(*matvec, density);
    return spent(*matvec, span, repeats);
}

double lrnn_matvec_time_cold(lrnn_matvec* matvec, std::int32_t span, double density, const std::uint8_t* other,
                             std::int64_t bytes) {
    volatile std::uint64_t seen = form_loops().read(other, static_cast<std::size_t>(bytes));
    (void)seen;
    fill_x(*matvec, density);
    return spent(*matvec, span, 1);
}

double lrnn_read_time(std::int64_t bytes, std::int64_t repeats) {
    const AlignedVector<std::uint8_t> memory(static_cast<std::size_t>(std::max<std::int64_t>(bytes, 64)), 1);
    volatile std::uint64_t seen = 0;  // keeps the reads
    return seconds(repeats, [&] { seen = seen + form_loops().read(memory.data(), memory.size()); });
}
