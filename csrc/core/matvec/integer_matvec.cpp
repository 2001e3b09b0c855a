// The IntegerMatvec half of matvec.h.

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <utility>

#include "core/aligned.h"
#include "core/matvec/cost.h"
#include "core/matvec/formats.h"
#include "core/matvec/kernels.h"
#include "core/matvec/matvec.h"
#include "core/matvec/panels.h"
#include "core/matvec/windows.h"

namespace lrnn {
namespace {

// Kernels of one ISA and how they want their layouts.
struct Machine {
    const IntegerArithmetic* arithmetic;  // null: portable loops
    WindowShape shape;
    DenseCosts panels;
    SlotCosts slots;
};

Machine machine([[maybe_unused]] Isa isa, [[maybe_unused]] Precision precision) {
#if defined(__x86_64__) || defined(_M_X64)
    if (isa == Isa::avx512vnni) {
        const bool words = precision == Precision::w8a16;
        return {words ? &integers16_avx512vnni : &integers8_avx512vnni, {16, 4, 128, 64, 4, 1, 0},
                kBytePanels512, kByteSlots512};
    }
    if (isa == Isa::avx2 || isa == Isa::avx512)
        return {&integers16_avx2, {16, 2, 32, 8, 2, 1, 0x70}, kBytePanels256, kByteSlots256};
#elif defined(__aarch64__)
    if (isa == Isa::neon)
        return {&integers16_neon, {4, 4, 64, 16, 4, 1, 0}, kBytePanels128, kByteSlots128};
#endif
    return {};
}

// Whether some |x| <= x_most makes a sum that an int32 cannot hold.
bool needs_wide(const std::int8_t* weight, std::int32_t rows, std::int32_t cols, std::int64_t x_most) {
    for (std::int32_t r = 0; r < rows; ++r, weight += cols) {
        std::int64_t sum = 0;
        for (std::int32_t c = 0; c < cols; ++c) sum += std::abs(std::int32_t{weight[c]});
        if (sum * x_most > std::numeric_limits<std::int32_t>::max()) return true;
    }
    return false;
}

AlignedVector<std::int32_t> starting_sums(const std::int8_t* weight, std::int32_t rows, std::int32_t cols,
                                          std::int32_t factor) {
    AlignedVector<std::int32_t> init(static_cast<std::size_t>(padded(rows)), 0);
    for (std::int32_t r = 0; r < rows; ++r, weight += cols) {
        std::int32_t sum = 0;
        for (std::int32_t c = 0; c < cols; ++c) sum += weight[c];
        init[r] = factor * sum;
    }
    return init;
}

// A layout run by an ISA's own arithmetic.
template <typename Store>
class ArithmeticMatvec final : public IntegerMatvec {
public:
    template <typename... Arguments>
    ArithmeticMatvec(const IntegerArithmetic& arithmetic, AlignedVector<std::int32_t> init, std::int32_t cols,
                     std::int64_t room, bool wide, Arguments&&... arguments)
        : arithmetic_(arithmetic), store_(std::forward<Arguments>(arguments)...), init_(std::move(init)), cols_(cols),
          room_(room), wide_(wide) {}

    std::size_t form_bytes() const noexcept override { return static_cast<std::size_t>(room_) * arithmetic_.planes; }
    void prepare(const std::int16_t* x, void* form) const noexcept override {
        arithmetic_.prepare(x, cols_, form, room_);
    }
    void multiply(const void* form, void* y) const noexcept override {
        if constexpr (kSparse)
            run(arithmetic_.windows, store_.view(), form, y);
        else
            run(arithmetic_.panels, BytePanels{store_.weight.data(), store_.wide, store_.narrow, store_.steps}, form, y);
    }
    bool is_wide() const noexcept override { return wide_; }
    std::size_t bytes() const noexcept override {
        if constexpr (kSparse)
            return store_.bytes() + bytes_of(init_);
        else
            return bytes_of(store_.weight) + bytes_of(init_);
    }
    const char* name() const noexcept override { return kSparse ? "windows" : "dense"; }

private:
    static constexpr bool kSparse = std::is_same_v<Store, WindowStore>;

    template <typename Kernels, typename Layout>
    void run(const Kernels& kernels, const Layout& layout, const void* form, void* y) const noexcept {
        const IntegerX x{form, room_};
        if (wide_)
            kernels.wide(layout, x, init_.data(), static_cast<std::int64_t*>(y));
        else
            kernels.narrow(layout, x, init_.data(), static_cast<std::int32_t*>(y));
    }

    const IntegerArithmetic& arithmetic_;
    Store store_;
    AlignedVector<std::int32_t> init_;
    std::int32_t cols_;
    std::int64_t room_;
    bool wide_;
};

// Portable loops: x as it is, int64 sums.
class PortableMatvec : public IntegerMatvec {
public:
    explicit PortableMatvec(std::int32_t cols) : cols_(cols) {}
    std::size_t form_bytes() const noexcept override { return sizeof(std::int16_t) * static_cast<std::size_t>(cols_); }
    void prepare(const std::int16_t* x, void* form) const noexcept override {
        std::copy_n(x, cols_, static_cast<std::int16_t*>(form));
    }
    bool is_wide() const noexcept override { return true; }

protected:
    static const std::int16_t* words(const void* form) { return static_cast<const std::int16_t*>(form); }
    static std::int64_t* sums(void* y) { return static_cast<std::int64_t*>(y); }
    std::int32_t cols_;
};

class RowsMatvec final : public PortableMatvec {
public:
    explicit RowsMatvec(Sparse<std::int8_t> weight) : PortableMatvec(weight.pattern.cols), store_(std::move(weight)) {}
    void multiply(const void* form, void* y) const noexcept override { rows_scalar(store_.view(), words(form), sums(y)); }
    std::size_t bytes() const noexcept override { return store_.bytes(); }
    const char* name() const noexcept override { return "csr"; }

private:
    LineStore<std::int8_t> store_;
};

class EventMatvec final : public PortableMatvec {
public:
    explicit EventMatvec(const Sparse<std::int8_t>& weight)
        : PortableMatvec(weight.pattern.cols), store_(transposed(weight)), rows_(weight.pattern.rows) {}
    void multiply(const void* form, void* y) const noexcept override {
        columns_scalar(store_.view(), words(form), sums(y), rows_);
    }
    std::size_t bytes() const noexcept override { return store_.bytes(); }
    const char* name() const noexcept override { return "event"; }

private:
    LineStore<std::int8_t> store_;
    std::int32_t rows_;
};

class BytesMatvec final : public PortableMatvec {
public:
    BytesMatvec(const std::int8_t* weight, std::int32_t rows, std::int32_t cols)
        : PortableMatvec(cols), weight_(weight, weight + static_cast<std::size_t>(rows) * cols), rows_(rows) {}
    void multiply(const void* form, void* y) const noexcept override {
        bytes_scalar(weight_.data(), rows_, cols_, words(form), sums(y));
    }
    std::size_t bytes() const noexcept override { return bytes_of(weight_); }
    const char* name() const noexcept override { return "dense"; }

private:
    std::vector<std::int8_t> weight_;
    std::int32_t rows_;
};

std::unique_ptr<IntegerMatvec> pack_portable(const std::int8_t* weight, std::int32_t rows, std::int32_t cols,
                                             Sparse<std::int8_t> sparse, Format format, Costs& costs) {
    costs = {static_cast<double>(rows) * cols, kCompressedPrice * static_cast<double>(sparse.value.size()), kEventWeight};
    if (format == Format::sparse || (format == Format::automatic && costs.sparse < costs.dense))
        return std::make_unique<RowsMatvec>(std::move(sparse));
    return std::make_unique<BytesMatvec>(weight, rows, cols);
}

}  // namespace

std::unique_ptr<IntegerMatvec> pack(const std::int8_t* weight, std::int32_t rows, std::int32_t cols, Isa isa,
                                    Format format, Precision precision, std::int64_t x_most) {
    const Machine m = machine(isa, precision);
    Sparse<std::int8_t> sparse = compress(weight, rows, cols);
    const std::int64_t size = static_cast<std::int64_t>(rows) * cols;
    std::unique_ptr<IntegerMatvec> out;
    Costs costs{dense_cost(m.panels, size, size), kNever, kEventWeight};
    if (format == Format::event) {
        out = std::make_unique<EventMatvec>(sparse);
    } else if (m.arithmetic == nullptr) {
        out = pack_portable(weight, rows, cols, std::move(sparse), format, costs);
    } else {
        const std::int64_t room = (std::max(cols, 1) + std::int64_t{127}) / 128 * 128;
        const bool wide = needs_wide(weight, rows, cols, x_most);
        AlignedVector<std::int32_t> init = starting_sums(weight, rows, cols, m.arithmetic->init_factor);
        if (cols <= kMostColumns) {
            WindowShape shape = m.shape;
            // Windows that may start anywhere need a tenth fewer slots, but their loads cross cache lines: that costs
            // more where the weights come from the first-level cache.
            if (sparse.pattern.nonzeros() > 10000) shape.stride = 1;
            const WindowPlan plan = plan_windows(sparse.pattern, {}, shape, static_cast<std::int32_t>(room));
            costs.sparse = slots_cost(plan, m.slots, sizeof(std::int8_t));
            if (format == Format::sparse || (format == Format::automatic && costs.sparse < costs.dense))
                out = std::make_unique<ArithmeticMatvec<WindowStore>>(*m.arithmetic, std::move(init), cols, room, wide,
                                                                      plan, sparse, shape);
        }
        if (!out)
            out = std::make_unique<ArithmeticMatvec<PanelStore<std::int8_t>>>(
                *m.arithmetic, std::move(init), cols, room, wide, weight, rows, cols, m.arithmetic->panel_dot);
    }
    out->costs = costs;
    return out;
}

}  // namespace lrnn
