// The scan's entry points per ISA; scan.cpp chooses among them. `stream` writes the large outputs past the caches:
// their rows are then aligned to 64 bytes.
#pragma once

#include "core/scan/scan.h"

namespace lrnn {

struct ScanKernels {
    void (*forward)(const lrnn_scan&, const lrnn_scan_unit&, bool stream, const void* b, void* h, void* h_last);
    void (*backward)(const lrnn_scan&, const lrnn_scan_unit&, bool stream, const void* grad_h, const void* grad_last,
                     const void* h, void* grad_a, void* grad_b, void* grad_h0);
};

#if defined(__x86_64__) || defined(_M_X64)
extern const ScanKernels scan_avx2, scan_avx512;
#endif

}  // namespace lrnn
