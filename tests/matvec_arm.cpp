// Integer products on the active ISA against plain loops; run by test_arm.py in an emulator. Exit status: 0 where
// all are equal.
#include <cstdio>
#include <random>
#include <vector>

#include "core/isa.h"
#include "core/matvec/packed.h"

namespace {

std::mt19937 random_bits(1);

int uniform(int least, int count) { return static_cast<int>(random_bits() % count) + least; }

bool equal(int rows, int cols, double density, int format, int precision) {
    std::vector<std::int8_t> weight(static_cast<std::size_t>(rows) * cols);
    for (auto& w : weight)
        if (uniform(0, 1000) < density * 1000) w = static_cast<std::int8_t>(uniform(-128, 256));
    std::vector<std::int16_t> x(cols);
    for (auto& v : x)
        v = static_cast<std::int16_t>(precision == LRNN_W8A16 ? uniform(-32768, 65536) : uniform(-128, 256));
    std::vector<std::int64_t> y(rows);
    lrnn_matvec* matvec = lrnn_matvec_new(precision, format, rows, cols, weight.data(), nullptr);
    lrnn_matvec_integers(matvec, x.data(), y.data());
    lrnn_matvec_free(matvec);
    for (int r = 0; r < rows; ++r) {
        std::int64_t sum = 0;
        for (int c = 0; c < cols; ++c) sum += std::int64_t{weight[static_cast<std::size_t>(r) * cols + c]} * x[c];
        if (sum != y[r]) return false;
    }
    return true;
}

}  // namespace

int main() {
    int wrong = 0;
    for (int rows : {1, 3, 17, 64, 70, 129})
        for (int cols : {1, 5, 63, 64, 65, 300, 1030})
            for (double density : {0.0, 0.05, 0.3, 1.0})
                for (int format : {LRNN_MATVEC_DENSE, LRNN_MATVEC_SPARSE, LRNN_MATVEC_EVENT})
                    for (int precision : {LRNN_W8A16, LRNN_W8A8})
                        wrong += !equal(rows, cols, density, format, precision);
    std::printf("%s: %d wrong\n", lrnn_isa(), wrong);
    return wrong != 0;
}
