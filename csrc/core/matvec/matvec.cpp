#include "core/matvec/matvec.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <utility>

#include "core/aligned.h"
#include "core/matvec/cost.h"
#include "core/matvec/formats.h"
#include "core/matvec/kernels.h"
#include "core/matvec/panels.h"
#include "core/matvec/windows.h"

namespace lrnn {
namespace {

class DenseMatvec final : public Matvec {
public:
    DenseMatvec(const float* weight, std::int32_t rows, std::int32_t cols, PanelsKernel kernel)
        : store_(weight, rows, cols, 1), kernel_(kernel) {}
    void multiply_add(const float* x, float* y) const noexcept override {
        kernel_({store_.weight.data(), store_.wide, store_.narrow, store_.steps}, x, y);
    }
    std::size_t bytes() const noexcept override { return bytes_of(store_.weight); }
    const char* name() const noexcept override { return "dense"; }

private:
    PanelStore<float> store_;
    PanelsKernel kernel_;
};

class WindowsMatvec final : public Matvec {
public:
    WindowsMatvec(const WindowPlan& plan, const Sparse<float>& weight, const WindowShape& shape,
                  std::vector<std::int32_t> order, WindowsKernel kernel)
        : store_(plan, weight, shape), order_(std::move(order)), kernel_(kernel) {}
    void multiply_add(const float* x, float* y) const noexcept override { kernel_(store_.view(), x, y); }
    std::span<const std::int32_t> order() const noexcept override { return order_; }
    std::size_t bytes() const noexcept override { return store_.bytes() + bytes_of(order_); }
    const char* name() const noexcept override { return "windows"; }

private:
    WindowStore store_;
    std::vector<std::int32_t> order_;
    WindowsKernel kernel_;
};

class RowsMatvec final : public Matvec {
public:
    explicit RowsMatvec(Sparse<float> weight) : store_(std::move(weight)) {}
    void multiply_add(const float* x, float* y) const noexcept override { rows_scalar(store_.view(), x, y); }
    std::size_t bytes() const noexcept override { return store_.bytes(); }
    const char* name() const noexcept override { return "csr"; }

private:
    LineStore<float> store_;
};

class EventMatvec final : public Matvec {
public:
    explicit EventMatvec(const Sparse<float>& weight) : store_(transposed(weight)) {}
    void multiply_add(const float* x, float* y) const noexcept override { columns_scalar(store_.view(), x, y); }
    std::size_t bytes() const noexcept override { return store_.bytes(); }
    const char* name() const noexcept override { return "event"; }

private:
    LineStore<float> store_;
};

// A window kernel, how it wants its slots and what they cost.
struct WindowChoice {
    WindowShape shape;
    WindowsKernel kernel;
    SlotCosts costs;
};

// One ISA's float32 kernels.
struct FloatArithmetic {
    std::span<const WindowChoice> windows;  // none: compressed rows instead
    PanelsKernel panels;
    DenseCosts costs;
};

#if defined(__x86_64__) || defined(_M_X64)
constexpr WindowChoice kWindows512[] = {{{16, 1, 32, 8, 1, 1, 0}, windows32_avx512, kFloatSlots512by32},
                                        {{16, 4, 32, 8, 1, 4, 0}, windows32_avx512, kFloatSlots512by32},
                                        {{16, 4, 64, 8, 1, 4, 0}, windows64_avx512, kFloatSlots512by64}};
constexpr WindowChoice kWindows256[] = {{{8, 4, 16, 8, 1, 4, 0}, windows_avx2, kFloatSlots256}};
constexpr FloatArithmetic kArithmetic512{kWindows512, panels_avx512, kFloatPanels};
constexpr FloatArithmetic kArithmetic256{kWindows256, panels_avx2, kFloatPanels};
#endif
constexpr FloatArithmetic kArithmeticScalar{{}, panels_scalar, kFloatPanels};

const FloatArithmetic& arithmetic([[maybe_unused]] Isa isa) {
#if defined(__x86_64__) || defined(_M_X64)
    if (float_isa(isa) == Isa::avx512) return kArithmetic512;
    if (isa == Isa::avx2) return kArithmetic256;
#endif
    return kArithmeticScalar;
}

// The rows that are not empty, fullest first: a group takes as many slots as its fullest row needs, so rows of like
// fullness belong together. Rows of pruned networks differ: of a pruned S5's B two in three are empty.
std::vector<std::int32_t> fullest_first(const Pattern& pattern) {
    std::vector<std::int32_t> order(static_cast<std::size_t>(pattern.rows));
    std::iota(order.begin(), order.end(), 0);
    std::erase_if(order, [&](auto r) { return pattern.count(r) == 0; });
    std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return pattern.count(a) > pattern.count(b); });
    return order;
}

// A way to pack a matrix, and what a product then costs.
struct Cut {
    const WindowChoice* choice;
    WindowPlan plan;
    std::vector<std::int32_t> order;
    double cost;
};

Cut cut(const Pattern& pattern, const WindowChoice& choice, std::vector<std::int32_t> order) {
    const std::int32_t room = static_cast<std::int32_t>(padded(std::max(pattern.cols, 1)));
    WindowPlan plan = plan_windows(pattern, order, choice.shape, room);
    const double cost = slots_cost(plan, choice.costs, sizeof(float)) + kMovedRow * static_cast<double>(order.size());
    return {&choice, std::move(plan), std::move(order), cost};
}

// The cheapest of the kernels, with rows as they come or, where they may move, fullest first.
Cut cut_best(const Pattern& pattern, std::span<const WindowChoice> choices, bool may_permute) {
    Cut best = cut(pattern, choices[0], {});
    const auto consider = [&](Cut other) {
        if (other.cost < best.cost) best = std::move(other);
    };
    for (const WindowChoice& choice : choices.subspan(1)) consider(cut(pattern, choice, {}));
    const std::vector<std::int32_t> order = fullest_first(pattern);
    if (may_permute && !order.empty())
        for (const WindowChoice& choice : choices) consider(cut(pattern, choice, order));
    return best;
}

std::unique_ptr<Matvec> pack_float(const float* weight, std::int32_t rows, std::int32_t cols, Isa isa, Format format,
                                   bool may_permute) {
    const FloatArithmetic& ar = arithmetic(isa);
    const std::int64_t size = static_cast<std::int64_t>(rows) * cols;
    Sparse<float> sparse = compress(weight, rows, cols);
    std::unique_ptr<Matvec> out;
    Costs costs{dense_cost(ar.costs, size, 4 * size), 0.0, kEventWeight};
    if (!ar.windows.empty() && cols <= kMostColumns) {
        Cut cut = cut_best(sparse.pattern, ar.windows, may_permute);
        costs.sparse = cut.cost;
        if (format == Format::sparse || (format == Format::automatic && costs.sparse < costs.dense))
            out = std::make_unique<WindowsMatvec>(cut.plan, sparse, cut.choice->shape, std::move(cut.order),
                                                  cut.choice->kernel);
    } else {
        costs.dense = static_cast<double>(size);
        costs.sparse = kCompressedPrice * static_cast<double>(sparse.value.size());
        if (format == Format::sparse || (format == Format::automatic && costs.sparse < costs.dense))
            out = std::make_unique<RowsMatvec>(std::move(sparse));
    }
    if (format == Format::event) out = std::make_unique<EventMatvec>(sparse);
    if (!out) out = std::make_unique<DenseMatvec>(weight, rows, cols, ar.panels);
    out->costs = costs;
    return out;
}

// The nearest bfloat16, half to even; both zeros are 0.
std::uint16_t rounded(float value) {
    std::uint32_t bits;
    value += 0.0f;
    std::memcpy(&bits, &value, sizeof bits);
    return static_cast<std::uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

#if defined(__x86_64__) || defined(_M_X64)
// Sums of bfloat16 products; x is rounded in every call, in memory of the calling thread that grows to the widest x.
template <typename Store, auto Kernel>
class Bfloat16Matvec final : public Matvec {
public:
    template <typename... Arguments>
    Bfloat16Matvec(std::int32_t cols, const char* name, Arguments&&... arguments)
        : store_(std::forward<Arguments>(arguments)...), cols_(cols), name_(name) {}
    void multiply_add(const float* x, float* y) const noexcept override {
        thread_local AlignedVector<std::uint16_t> form;
        if (form.size() < static_cast<std::size_t>(padded(cols_))) form.assign(padded(cols_), 0);
        to_bf16(x, cols_, form.data());
        if constexpr (requires { store_.view(); })
            Kernel(store_.view(), form.data(), y);
        else
            Kernel({store_.weight.data(), store_.wide, store_.narrow, store_.steps}, form.data(), y);
    }
    std::size_t bytes() const noexcept override {
        if constexpr (requires { store_.view(); })
            return store_.bytes();
        else
            return bytes_of(store_.weight);
    }
    const char* name() const noexcept override { return name_; }

private:
    Store store_;
    std::int32_t cols_;
    const char* name_;
};

std::unique_ptr<Matvec> pack_bf16(const std::uint16_t* weight, std::int32_t rows, std::int32_t cols, Format format) {
    constexpr WindowShape shape{16, 4, 64, 8, 2, 2, 0};
    const std::int64_t size = static_cast<std::int64_t>(rows) * cols;
    const Sparse<std::uint16_t> sparse = compress(weight, rows, cols);
    Costs costs{dense_cost(kBfloat16Panels, size, 2 * size), kNever, kEventWeight};
    std::unique_ptr<Matvec> out;
    if (cols <= kMostColumns) {
        const WindowPlan plan =
            plan_windows(sparse.pattern, {}, shape, static_cast<std::int32_t>(padded(std::max(cols, 1))));
        costs.sparse = slots_cost(plan, kBfloat16Slots, sizeof(std::uint16_t));
        if (format == Format::sparse || (format == Format::automatic && costs.sparse < costs.dense))
            out = std::make_unique<Bfloat16Matvec<WindowStore, windows_bf16>>(cols, "windows", plan, sparse, shape);
    }
    if (!out)
        out = std::make_unique<Bfloat16Matvec<PanelStore<std::uint16_t>, panels_bf16>>(cols, "dense", weight, rows,
                                                                                      cols, 2);
    out->costs = costs;
    return out;
}
#endif

}  // namespace

std::unique_ptr<Matvec> pack(const float* weight, std::int32_t rows, std::int32_t cols, Isa isa, Format format,
                             Precision precision, bool may_permute) {
    if (precision != Precision::bfloat16) return pack_float(weight, rows, cols, isa, format, may_permute);
    const std::size_t size = static_cast<std::size_t>(rows) * cols;
    std::vector<std::uint16_t> small(size);
    std::transform(weight, weight + size, small.begin(), rounded);
#if defined(__x86_64__) || defined(_M_X64)
    if (isa == Isa::avx512vnni && has_bf16_dot() && format != Format::event)
        return pack_bf16(small.data(), rows, cols, format);
#endif
    std::vector<float> widened(size);
    for (std::size_t i = 0; i < size; ++i) {
        const std::uint32_t bits = static_cast<std::uint32_t>(small[i]) << 16;
        std::memcpy(&widened[i], &bits, sizeof bits);
    }
    return pack_float(widened.data(), rows, cols, isa, format, may_permute);
}

}  // namespace lrnn
