#include "core/scan/scan_isa.h"
#include "core/scan/scan_rows.h"

const lrnn::ScanKernels lrnn::scan_avx512{forward_rows<64>, backward_rows<64>};
