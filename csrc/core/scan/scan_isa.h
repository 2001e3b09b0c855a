// The scan's entry points per ISA; scan.cpp chooses among them.
#pragma once

#include "core/scan/scan.h"

namespace lrnn {

// How memory is walked: steps of a tile of time, and whether the large outputs are written past the caches (their
// rows are then aligned to 64 bytes).
struct ScanWalk {
    int64_t tile;
    bool stream;
};

struct ScanKernels {
    void (*forward)(const lrnn_scan&, const lrnn_scan_unit&, const ScanWalk&, const void* b, void* h, void* h_last);
    void (*backward)(const lrnn_scan&, const lrnn_scan_unit&, const ScanWalk&, const void* grad_h,
                     const void* grad_last, const void* h, void* grad_a, void* grad_b, void* grad_h0);
};

#if defined(__x86_64__) || defined(_M_X64)
extern const ScanKernels scan_avx2, scan_avx512;
#endif

}  // namespace lrnn
