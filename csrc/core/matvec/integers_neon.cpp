#include <arm_neon.h>

#include "core/matvec/kernels.h"

// sdot multiplies four signed bytes by four signed bytes into a lane. 16-bit numbers of x are cut in two bytes, the low
// one made signed by an offset: x = 256 high + (low' + 128), so that W x = 256 (sum w high) + sum w low' + 128 sum w.
namespace lrnn {
namespace {

// A window of 64 numbers: tbl looks up in four registers.
struct Window {
    int8x16x4_t high, low;
    Window(const std::int8_t* x, std::int64_t room) : high(vld1q_s8_x4(x)), low(vld1q_s8_x4(x + room)) {}
};

// Sums of 4 rows.
struct Sums {
    int32x4_t high, low;
    void start(const std::int32_t* init) { high = vdupq_n_s32(0), low = vld1q_s32(init); }
    void add(int8x16_t h, int8x16_t l, int8x16_t weights) {
        high = vdotq_s32(high, h, weights);
        low = vdotq_s32(low, l, weights);
    }
    void store(std::int32_t* y) const { vst1q_s32(y, vaddq_s32(vshlq_n_s32(high, 8), low)); }
    void store(std::int64_t* y) const {
        vst1q_s64(y, vaddw_s32(vshll_n_s32(vget_low_s32(high), 8), vget_low_s32(low)));
        vst1q_s64(y + 2, vaddw_s32(vshll_n_s32(vget_high_s32(high), 8), vget_high_s32(low)));
    }
};

template <int Registers, typename Sum>
const std::uint8_t* group(const std::uint8_t* slot, const std::uint16_t* start, std::int32_t count, IntegerX in,
                          const std::int32_t* init, Sum* y) {
    Sums sums[Registers];
    for (int r = 0; r < Registers; ++r) sums[r].start(init + 4 * r);
    const std::int8_t* x = static_cast<const std::int8_t*>(in.planes);
    for (std::int32_t s = 0; s < count; ++s, slot += 32 * Registers) {
        const Window window(x + start[s], in.room);
        for (int r = 0; r < Registers; ++r) {
            const uint8x16_t columns = vld1q_u8(slot + 16 * (Registers + r));
            sums[r].add(vqtbl4q_s8(window.high, columns), vqtbl4q_s8(window.low, columns),
                        vreinterpretq_s8_u8(vld1q_u8(slot + 16 * r)));
        }
    }
    for (int r = 0; r < Registers; ++r) sums[r].store(y + 4 * r);
    return slot;
}

template <typename Sum>
void windows(const Windows& w, IntegerX in, const std::int32_t* init, Sum* y) noexcept {
    const std::uint8_t* slot = w.slots;
    const std::uint16_t* start = w.starts;
    const std::int32_t* count = w.counts;
    for (std::int32_t g = 0; g < w.wide; ++g, start += *count++, y += 16, init += 16)
        slot = group<4>(slot, start, *count, in, init, y);
    for (std::int32_t g = 0; g < w.narrow; ++g, start += *count++, y += 4, init += 4)
        slot = group<1>(slot, start, *count, in, init, y);
}

// Registers of 4 rows; each step is four columns, side by side for each row.
template <int Registers, typename Sum>
const std::int8_t* panel(const std::int8_t* weight, std::int32_t steps, IntegerX in, const std::int32_t* init, Sum* y) {
    Sums sums[Registers];
    for (int r = 0; r < Registers; ++r) sums[r].start(init + 4 * r);
    const std::int8_t* x = static_cast<const std::int8_t*>(in.planes);
    for (std::int32_t s = 0; s < steps; ++s, x += 4, weight += 16 * Registers) {
        const auto four = [](const std::int8_t* p) {
            return vreinterpretq_s8_s32(vdupq_n_s32(*reinterpret_cast<const std::int32_t*>(p)));
        };
        const int8x16_t high = four(x), low = four(x + in.room);
        for (int r = 0; r < Registers; ++r) sums[r].add(high, low, vld1q_s8(weight + 16 * r));
    }
    for (int r = 0; r < Registers; ++r) sums[r].store(y + 4 * r);
    return weight;
}

template <typename Sum>
void panels(const BytePanels& p, IntegerX in, const std::int32_t* init, Sum* y) noexcept {
    const std::int8_t* weight = p.weight;
    for (std::int32_t i = 0; i < p.wide; ++i, y += 64, init += 64)
        weight = panel<16>(weight, p.steps, in, init, y);
    for (std::int32_t i = 0; i < p.narrow; ++i, y += 16, init += 16)
        weight = panel<4>(weight, p.steps, in, init, y);
}

void prepare(const std::int16_t* x, std::int32_t n, void* planes, std::int64_t room) noexcept {
    std::int8_t *high = static_cast<std::int8_t*>(planes), *low = high + room;
    for (std::int32_t i = 0; i < n; ++i) {
        high[i] = static_cast<std::int8_t>(x[i] >> 8);
        low[i] = static_cast<std::int8_t>((x[i] & 255) - 128);
    }
}

}  // namespace

const IntegerArithmetic integers16_neon{prepare, 2, 128, {windows, windows}, {panels, panels}, 4};

}  // namespace lrnn
