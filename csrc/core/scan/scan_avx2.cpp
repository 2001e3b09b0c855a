#include "core/scan/scan_isa.h"
#include "core/scan/scan_rows.h"

const lrnn::ScanKernels lrnn::scan_avx2{forward_rows<32>, backward_rows<32>};
