#include "core/engine/token_rows.h"

#include "core/engine/fixed_builder.h"

namespace lrnn {
namespace {

template <typename T>
void shifted_row(const T* row, std::int32_t n, const Shift<std::int64_t>& s, std::int64_t most, std::int32_t* y) {
    for (std::int32_t i = 0; i < n; ++i) {
        const std::int64_t v = std::int64_t{row[i]} << s.left;
        const std::int64_t rounded = (v + s.half + ((v >> s.right) & s.even)) >> s.right;
        y[i] = static_cast<std::int32_t>(std::clamp(rounded, -most, most));
    }
}

}  // namespace

TokenRows::TokenRows(const std::int16_t* weight, std::int32_t tokens, std::int32_t n, const std::int32_t* shift,
                     std::int32_t rounding)
    : shifts_(shift, shift + tokens), n_(n), rounding_(rounding) {
    const std::int16_t* end = weight + static_cast<std::int64_t>(tokens) * n;
    if (std::all_of(weight, end, [](std::int16_t w) { return w == static_cast<std::int8_t>(w); }))
        bytes_.assign(weight, end);
    else
        words_.assign(weight, end);
}

void TokenRows::read(std::int64_t token, std::int32_t most, std::int32_t* y) const noexcept {
    const Shift<std::int64_t> shift = shift_by<std::int64_t>(shifts_[token], rounding_);
    if (words_.empty()) shifted_row(bytes_.data() + token * n_, n_, shift, most, y);
    else shifted_row(words_.data() + token * n_, n_, shift, most, y);
}

}  // namespace lrnn
