// The rows of tokens in integers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/aligned.h"

namespace lrnn {

// In 8 bits where they fit, each with a shift of its own.
class TokenRows {
public:
    TokenRows(const std::int16_t* weight, std::int32_t tokens, std::int32_t n, const std::int32_t* shift,
              std::int32_t rounding);
    // y (n) = row `token`, shifted and within +-most.
    void read(std::int64_t token, std::int32_t most, std::int32_t* y) const noexcept;
    std::size_t bytes() const noexcept {
        return bytes_.size() + sizeof(std::int16_t) * words_.size() + shifts_.size();
    }

private:
    AlignedVector<std::int8_t> bytes_;
    AlignedVector<std::int16_t> words_;
    std::vector<std::int8_t> shifts_;
    std::int32_t n_, rounding_;
};

}  // namespace lrnn
