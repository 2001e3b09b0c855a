// The packed layouts, as plain pointers, and the kernels that run them. The files of an ISA include nothing else: an
// inline function of the standard library, compiled there with wider instructions, could be the copy the linker keeps
// for the whole program.
#pragma once

#include <cstdint>

namespace lrnn {

// Sparse: groups of rows, slot by slot (windows.h has the idea). Slot: the weights of every entry, then an index byte for
// each, which is the weight's column within the slot's window.
struct Windows {
    const std::uint8_t* slots;   // 64-byte aligned
    const std::uint16_t* starts; // first column of each slot's window
    const std::int32_t* counts;  // slots of each group
    std::int32_t wide, narrow;   // groups of each kind, wide ones first
};

// Sparse, by lines: rows for ISAs without a table look-up in registers, columns where zeros of x are to be skipped.
template <typename T>
struct Lines {
    const std::uint32_t* start;  // (count + 1): where a line's weights begin
    const std::int32_t* place;   // of each weight in its line
    const T* weight;
    std::int32_t count;
};

// Dense, float32: panels of 64 rows, then panels of 16 rows, zero rows at the end. Within a panel column by column, so
// that one x is multiplied with a run of rows and nothing has to be summed across lanes.
struct Panels {
    const float* weight;
    std::int32_t wide;    // panels of 64 rows
    std::int32_t narrow;  // panels of 16 rows
    std::int32_t cols;
};

// Dense, smaller numbers: the same panels, `dot` columns at a time side by side for each row; zero columns at the end.
template <typename T>
struct SteppedPanels {
    const T* weight;
    std::int32_t wide, narrow;
    std::int32_t steps;  // of `dot` columns
};
using BytePanels = SteppedPanels<std::int8_t>;

// float32: y += W x. Summed in an order that depends on the packing alone.
using PanelsKernel = void (*)(const Panels&, const float* x, float* y) noexcept;
using WindowsKernel = void (*)(const Windows&, const float* x, float* y) noexcept;

void panels_scalar(const Panels&, const float* x, float* y) noexcept;
void panels_avx2(const Panels&, const float* x, float* y) noexcept;
void panels_avx512(const Panels&, const float* x, float* y) noexcept;
void rows_scalar(const Lines<float>& rows, const float* x, float* y) noexcept;
void columns_scalar(const Lines<float>& columns, const float* x, float* y) noexcept;

// 8 lanes, wide groups of 4 registers, windows of 16 columns, 1 weight of a row to a slot, 4 registers to an index word.
void windows_avx2(const Windows&, const float* x, float* y) noexcept;
// 16 lanes, wide groups of 4 registers, windows of so many columns, 1 weight of a row to a slot, 4 registers to an index
// word.
void windows32_avx512(const Windows&, const float* x, float* y) noexcept;
void windows64_avx512(const Windows&, const float* x, float* y) noexcept;

// bfloat16 weights and x, float32 sums. 16 lanes, 4 registers, 64 columns, 2 weights, 2 registers to an index word.
void windows_bf16(const Windows&, const std::uint16_t* x, float* y) noexcept;
void panels_bf16(const SteppedPanels<std::uint16_t>&, const std::uint16_t* x, float* y) noexcept;  // dot 2
// To the nearest bfloat16, half to even, for n numbers and the vector that the last of them begins.
void to_bf16(const float* x, std::int32_t n, std::uint16_t* out) noexcept;

// Integers: int8 weights, x of 16 or 8 bits, exact sums. A kernel reads x in a form of its own, which `prepare` makes of
// int16 numbers: `planes` arrays of bytes or words, `room` numbers each. It writes `y`, int32 where its caller has
// proved that they hold every sum, else int64.
struct IntegerX {
    const void* planes;
    std::int64_t room;
};
using PrepareX = void (*)(const std::int16_t* x, std::int32_t n, void* planes, std::int64_t room) noexcept;

template <typename Layout>
struct IntegerKernels {
    void (*narrow)(const Layout&, IntegerX, const std::int32_t* init, std::int32_t* y) noexcept;
    void (*wide)(const Layout&, IntegerX, const std::int32_t* init, std::int64_t* y) noexcept;
};

// One ISA's integer arithmetic for one width of x.
struct IntegerArithmetic {
    PrepareX prepare;
    std::int32_t planes;        // bytes that a number takes in the kernel's form
    std::int32_t init_factor;   // a row's sum starts from init = factor * (sum of its weights): undoes offsets of the form
    IntegerKernels<Windows> windows;
    IntegerKernels<BytePanels> panels;
    std::int32_t panel_dot;     // columns side by side in a panel
};

extern const IntegerArithmetic integers16_avx512vnni, integers8_avx512vnni;  // 16 lanes, 4 registers, 128 columns, dot 4
extern const IntegerArithmetic integers16_avx2;  // 16 lanes, 2 registers, 32 columns, dot 2, bias 0x70
extern const IntegerArithmetic integers16_neon;  // 4 lanes, 4 registers, 64 columns, dot 4

void rows_scalar(const Lines<std::int8_t>& rows, const std::int16_t* x, std::int64_t* y) noexcept;
void columns_scalar(const Lines<std::int8_t>& columns, const std::int16_t* x, std::int64_t* y, std::int32_t rows) noexcept;
void bytes_scalar(const std::int8_t* weight, std::int32_t rows, std::int32_t cols, const std::int16_t* x,
                  std::int64_t* y) noexcept;

}  // namespace lrnn
